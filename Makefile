# make demo, make test and make lint each set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

# Training ends with a workdir's report: what has one is not trained again.
TRAIN := $(BIN)/python main.py
IMAGE := $(DEMO)/image_tokenizer
VIDEO := $(DEMO)/video_tokenizer
REPORT = $(BIN)/python -m evaluation.show.report --output=$@ --title=$(TITLE) \
  $(patsubst %/report.html,%,$^)

.PHONY: demo demo-multitask test test-long test-rows lint clean

demo: $(DEMO)/report.html

demo-multitask: $(DEMO)/multitask_report.html

$(DEMO)/report.html: TITLE = "MAGVIT-v2 on moving digits"
$(DEMO)/multitask_report.html: TITLE = "Ten tasks on moving digits"

$(DEMO)/report.html: $(VIDEO)/report.html $(DEMO)/generator/report.html \
  $(IMAGE)/report.html
	$(REPORT)

$(DEMO)/multitask_report.html: $(DEMO)/multitask_generator/report.html \
  $(VIDEO)/report.html $(IMAGE)/report.html
	$(REPORT)

$(IMAGE)/report.html: | $(VENV)/installed
	$(TRAIN) --config=configs/tokenizer_image.py:digits --workdir=$(@D)

$(VIDEO)/report.html: | $(IMAGE)/report.html
	$(TRAIN) --config=configs/tokenizer_video.py:digits --workdir=$(@D) \
	  --config.inflate_from=$(IMAGE)

$(DEMO)/generator/report.html: | $(VIDEO)/report.html
	$(TRAIN) --config=configs/masked.py:digits --workdir=$(@D) \
	  --config.tokenizer_workdir=$(VIDEO)

$(DEMO)/multitask_generator/report.html: | $(VIDEO)/report.html
	$(TRAIN) --config=configs/masked.py:digits_multitask --workdir=$(@D) \
	  --config.tokenizer_workdir=$(VIDEO)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist=worksteal

test-long: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 -m long

test-rows: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 -m rows

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

clean:
	rm -rf $(DEMO) .xla_cache

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
