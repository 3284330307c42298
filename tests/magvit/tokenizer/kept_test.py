"""Tests of the choice of what a tokenizer's step keeps."""

import itertools
import types

import jax
import numpy as np
import pytest

from configs import tokenizer_video
from magvit import mesh as mesh_lib
from magvit.cost import programs as cost_programs
from magvit.tokenizer import kept
from tests import tiny

_MEMORY = kept.Memory(
  state=100,
  clips=2,
  other=10,
  levels=(
    {"off": 400, "dots": 100, "all": 50},
    {"off": 80, "dots": 20, "all": 10},
  ),
  block=5,
)


def _mesh(**device):
  """A stand-in for one device of a mesh."""
  device = types.SimpleNamespace(
    process_index=0, **{"platform": "tpu", "device_kind": "", **device}
  )
  return types.SimpleNamespace(devices=np.array([device], object))


def test_a_total_is_the_state_and_what_the_clips_need():
  assert _MEMORY.total(("off", "off")) == 100 + 2 * (10 + 480 + 5)
  assert _MEMORY.total(("all", "dots")) == 100 + 2 * (10 + 70 + 5)


def test_less_memory_never_means_less_recomputation():
  ladder = [",".join(choices) for choices in kept.ladder(2)]
  assert ladder == ["off,off", "dots,off", "dots,dots", "all,dots", "all,all"]
  places = []
  for budget in range(0, 2000, 10):
    remat = kept.choose(_MEMORY, budget)
    choices = remat if "," in remat else f"{remat},{remat}"
    places.append(ladder.index(choices))
    if places[-1] < len(ladder) - 1:
      assert _MEMORY.total(choices.split(",")) <= budget
  assert all(more >= less for more, less in itertools.pairwise(places))
  assert set(places) == set(range(5))


def test_only_auto_on_an_accelerator_is_estimated():
  config = tiny.tokenizer()
  refuse = lambda: pytest.fail("nothing is to be estimated")
  config.tokenizer.remat = "all,off"
  assert kept.find(config, _mesh(), refuse) == "all,off"
  config.tokenizer.remat = "auto"
  assert kept.find(config, _mesh(platform="cpu"), refuse) == "off"
  assert kept.find(config, _mesh(), refuse) == "dots"  # its memory is unknown
  stats = lambda: {"bytes_limit": 500}
  known = _mesh(memory_stats=stats)
  assert kept.find(config, known, lambda: _MEMORY) == "dots"
  assert kept.find(config, _mesh(device_kind="TPU v4"), lambda: _MEMORY) == (
    "off"
  )


@pytest.mark.slow
def test_the_finest_levels_of_the_papers_tokenizer_hold_the_memory():
  config = tokenizer_video.get_config("ucf101")
  config.tokenizer.dtype = "bfloat16"
  config.tokenizer.num_res_blocks = 1  # a quarter of the time to trace
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  config.batch_size, config.microbatches = 6, 2
  memory = cost_programs.describe(config, mesh).measure_memory()
  assert memory.clips == 3
  whole = [memory.total(choices) for choices in kept.ladder(4)]
  assert all(less <= more for more, less in itertools.pairwise(whole))
  for choice in ("off", "dots", "all"):
    finest, *coarser = [level[choice] for level in memory.levels]
    assert finest > sum(coarser) > 0
  assert kept.choose(memory, 10**12) == "off"
  assert kept.choose(memory, 0) == "all"
