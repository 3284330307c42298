# make demo, make test and make lint each set up what they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

# Training ends with a workdir's report: what has one is not trained again.
# One that failed may have a report, too, which says why: make removes it.
.DELETE_ON_ERROR:
TRAIN := $(BIN)/python main.py
IMAGE := $(DEMO)/image_tokenizer
VIDEO := $(DEMO)/video_tokenizer
REPORT = $(BIN)/python -m evaluation.show.report --output=$@ --title=$(TITLE) \
  $(patsubst %/report.html,%,$^)

# make film trains on a film: FILM is its folder, ROW the row of the configs
# (film64 and film128 are for a GPU), FILM_FLAGS what else all trainings take,
# FILM_TOKENIZER_FLAGS what both tokenizers take.
FILM ?= film
ROW ?= film64_small
FILM_FLAGS ?=
FILM_TOKENIZER_FLAGS ?=
FILM_ROWS := film64_small film64 film128
ifneq ($(words $(FILM)),1)
  $(error FILM=$(FILM) must be a folder whose name has no spaces)
endif
ifneq ($(words $(ROW)) $(filter $(ROW),$(FILM_ROWS)),1 $(ROW))
  $(error ROW=$(ROW) must be one of: $(FILM_ROWS))
endif
# Pixels of the shards' short side, half as many again as those of the clips,
# which are crops.
FILM_SIZE := $(if $(findstring 128,$(ROW)),192,96)
SHARDS := $(FILM)/shards$(FILM_SIZE)
SQUEEZENET := $(FILM)/weights/squeezenet.safetensors
EFFICIENTNET := $(FILM)/weights/efficientnet_lite0.safetensors
FILM_IMAGE := $(FILM)/$(ROW)/image_tokenizer
FILM_VIDEO := $(FILM)/$(ROW)/tokenizer
FILM_MASKED := $(FILM)/$(ROW)/generator

# Results of the protocols, for the film and for clips of live action; one that
# is there is not measured again.
RECONSTRUCTED := squeezenet_reconstructions efficientnet_lite0_reconstructions
COMPLETED := squeezenet_frame_prediction squeezenet_interpolation \
  efficientnet_lite0_frame_prediction efficientnet_lite0_interpolation
LIVE := @data=live_action
SCORE = @set -e; for name in $(1) $(addsuffix $(LIVE),$(2) $(1)); do \
  case $$name in \
    squeezenet*) more=--weights=$(SQUEEZENET);; \
    efficientnet*) more=--weights=$(EFFICIENTNET);; \
    *) more=;; \
  esac; \
  case $$name in *$(LIVE)) more="$$more --data=$(SHARDS)/live_action";; esac; \
  test -e $(@D)/results/$$name.json || $(TRAIN) --mode=evaluate \
    --workdir=$(@D) --protocol=$${name%%$(LIVE)} $$more; \
  done; touch $@

.PHONY: demo demo-multitask film test test-slow test-long test-rows \
  test-versions lint clean

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

film: $(FILM)/$(ROW)/report.html

$(FILM)/$(ROW)/report.html: $(FILM_VIDEO)/scored $(FILM_MASKED)/scored
	$(BIN)/python -m evaluation.show.report --output=$@ \
	  --title="MAGVIT-v2 on a film" $(^D) $(FILM_IMAGE)

# The shards of live action are written last.
FILM_READY := $(SHARDS)/live_action/held_out/media.json
$(FILM_READY): | $(VENV)/installed
	$(BIN)/python -m input_pipeline.prepare --format=film \
	  --output=$(SHARDS) --size=$(FILM_SIZE)

$(FILM)/weights/%.safetensors: | $(VENV)/installed
	$(BIN)/python -m models.weights.fetch --network=$* --output=$@

TRAIN_FILM = $(TRAIN) --config=configs/$(1).py:$(ROW) --workdir=$(@D) \
  --config.dataset.path=$(SHARDS)
TOKENIZER_FLAGS := --config.loss.perceptual_weights=$(SQUEEZENET) \
  $(FILM_FLAGS) $(FILM_TOKENIZER_FLAGS)

$(FILM_IMAGE)/report.html: | $(FILM_READY) $(SQUEEZENET)
	$(call TRAIN_FILM,tokenizer_image) $(TOKENIZER_FLAGS)

$(FILM_VIDEO)/report.html: | $(FILM_IMAGE)/report.html
	$(call TRAIN_FILM,tokenizer_video) $(TOKENIZER_FLAGS) \
	  --config.inflate_from=$(FILM_IMAGE)

$(FILM_VIDEO)/results/film_codecs.json: | $(FILM_VIDEO)/report.html
	$(BIN)/python -m benchmarks.film_codecs --shards=$(SHARDS) \
	  --workdir=$(FILM_VIDEO) --output=$@

$(FILM_VIDEO)/scored: | $(FILM_VIDEO)/results/film_codecs.json $(EFFICIENTNET)
	$(call SCORE,$(RECONSTRUCTED),reconstruction codebook)

$(FILM_MASKED)/report.html: | $(FILM_VIDEO)/scored
	$(call TRAIN_FILM,masked) --config.tokenizer_workdir=$(FILM_VIDEO) \
	  $(FILM_FLAGS)

$(FILM_MASKED)/scored: | $(FILM_MASKED)/report.html
	$(call SCORE,$(COMPLETED),)

# Half of the suite's time goes to a fiftieth of its tests, those of whole runs.
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist=worksteal \
	  -m "not slow and not long and not rows"

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist=worksteal \
	  -m "slow and not long and not rows"

test-long: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 -m long

test-rows: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 -m rows

# The tests with each Python that is at hand, and the newest packages for it
# that pyproject.toml allows; a Python that is not at hand, or that pyenv has and
# does not run, is named and passed over. The package itself is taken out again, as
# tests of its wheel must not find these files. TESTS chooses tests, as
# TESTS="tests/models -m 'not slow'".
VERSIONS ?= 3.11 3.12 3.13
TESTS ?=
test-versions:
	@set -e; tried=; for version in $(VERSIONS); do \
	  python=python$$version; $$python -c "" 2>/dev/null || \
	    { echo "Python $$version: not at hand, not tested"; continue; }; \
	  env=$(VENV)-$$version; \
	  test -e $$env || $$python -m venv $$env; \
	  $$env/bin/python -m pip install --quiet --upgrade \
	    --upgrade-strategy=eager --editable ".[dev]"; \
	  $$env/bin/python -m pip uninstall --quiet --yes magvit; \
	  $$env/bin/python -m pip freeze | grep -iE "^(jax|flax|numpy)="; \
	  JAX_COMPILATION_CACHE_DIR=.xla_cache-$$version \
	    $$env/bin/python -m pytest -n 2 --dist=worksteal $(TESTS); \
	  tried="$$tried $$version"; \
	done; test -n "$$tried" || { echo "no Python at hand"; exit 1; }; \
	echo "passed with Python$$tried"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

clean:
	rm -rf $(DEMO) .xla_cache .xla_cache-* .venv-*

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
