# make demo, make test and make lint each set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-rows lint clean

demo: $(VENV)/installed
	$(BIN)/python main.py --config=configs/tokenizer_image.py:digits \
	  --workdir=$(DEMO)/image_tokenizer
	$(BIN)/python main.py --config=configs/tokenizer_video.py:digits \
	  --workdir=$(DEMO)/video_tokenizer \
	  --config.inflate_from=$(DEMO)/image_tokenizer
	$(BIN)/python main.py --config=configs/masked.py:digits \
	  --workdir=$(DEMO)/generator \
	  --config.tokenizer_workdir=$(DEMO)/video_tokenizer
	$(BIN)/python -m evaluation.report --output=$(DEMO)/report.html \
	  --title="MAGVIT-v2 on moving digits" $(DEMO)/generator \
	  $(DEMO)/video_tokenizer $(DEMO)/image_tokenizer

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2

test-rows: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 -m rows

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(DEMO)

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] < (3, 11) and \
	  'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ...')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements-dev.txt $(VENV)/installed | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
