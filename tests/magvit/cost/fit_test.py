"""Tests of choosing mesh, microbatches and remat, with made-up compilers."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import pytest

from magvit import mesh as mesh_lib
from magvit.cost import chips
from magvit.cost import estimate
from magvit.cost import fit
from magvit.cost import links
from tests import tiny

_V5E = chips.CHIPS["TPU v5 lite"]
_GIB = 2**30
_GRID = links.Links(tuple((i % 4, i // 4, 0) for i in range(16)), _V5E.links)


def _facts(state_gib=4.0, activations_gib=3.0, clips=16) -> estimate.Facts:
  """A step of 16 chips; activations are of a clip, by "off" the most."""
  held = {"off": 3.0, "dots": 1.0, "all": 0.25}
  return estimate.Facts(
    flops={"off": 10**15, "dots": 10**15, "all": 13 * 10**14},
    activations={
      name: int(share * activations_gib * clips * _GIB)
      for name, share in held.items()
    },
    weights=int(state_gib / 6 * _GIB),
    gradients=int(state_gib / 3 * _GIB),
    state=lambda shape: int(state_gib * _GIB / shape.fsdp / shape.tensor),
    padding=lambda shape: 1.0,
  )


def _estimator(facts, slices=1):
  return estimate.Estimator(facts, _V5E, _GRID, 16 * slices)


def _compiler(truth: estimate.Estimator, compiled: list):
  """Says what another estimator says, as a compiler would."""

  def compile_shape(shape):
    compiled.append(shape)
    told = truth.estimate(shape)
    if told.memory_gib > 16:
      return {
        "fits": False,
        "error": f"Ran out of memory. Used {told.memory_gib:.2f}G of 16G hbm.",
      }
    seconds = {**told.seconds, "least": told.least}
    return {
      "fits": True,
      "memory_gib": {"total": told.memory_gib},
      "bytes": told.seconds["memory"] * _V5E.bandwidth,
      "seconds": seconds,
      "mfu": told.seconds["compute"] / told.least,
      "bound": max(told.seconds, key=told.seconds.__getitem__),
    }

  return compile_shape


def _config(**fields):
  config = tiny.masked("")
  config.batch_size = 16
  config.transformer.remat = "dots"
  config.update_from_flattened_dict(fields)
  return config


def _search(config, facts, truth=None, batch=16):
  compiled = []
  shapes = estimate.shapes(16, 1, batch, (1, 2), ("off", "dots", "all"))
  tried = fit.search(
    shapes,
    _estimator(facts),
    lambda shape: fit.changes_to(config, shape),
    _compiler(_estimator(truth or facts), compiled),
    16,
  )
  assert [t.shape for t in tried] == compiled
  return tried


def test_a_config_that_is_the_best_is_left_alone():
  # Products bind, whatever the mesh.
  tried = _search(_config(), _facts(state_gib=0.5))
  assert len(tried) == 1 and tried[0].changes == {}
  assert fit.choose(tried) is tried[0]


def test_a_state_that_is_too_large_is_split():
  tried = _search(_config(), _facts(state_gib=20.0))
  assert not tried[0].figures["fits"]
  best = fit.choose(tried)
  assert best is not None
  assert best.changes.keys() == {"mesh.fsdp"}
  assert best.figures["fits"] and len(tried) <= 5
  text = fit.flags(best.changes)
  assert text == f"--config.mesh.fsdp={best.shape.fsdp}"


def test_activations_that_are_too_many_come_in_parts_or_are_recomputed():
  config = _config(batch_size=128)
  facts = _facts(state_gib=0.5, clips=128)
  tried = _search(config, facts, batch=128)
  assert "needs 24." in fit.describe(tried[0], 16)
  best = fit.choose(tried)
  assert best is not None
  # Recomputing more takes products; parts in turn take none.
  assert best.changes == {"microbatches": 2}


def test_what_is_compiled_corrects_what_is_expected():
  config = _config(batch_size=128)
  expected = _facts(state_gib=0.5, activations_gib=0.3, clips=128)
  truth = _facts(state_gib=0.5, activations_gib=3.0, clips=128)
  tried = _search(config, expected, truth, batch=128)
  first, second, *_ = tried
  assert first.expected.memory_gib < 4 < 16 < first.figures["used_gib"]
  assert second.figures["fits"]
  assert second.expected.memory_gib == pytest.approx(
    second.figures["used_gib"], rel=0.01
  )


def test_nothing_that_fits_names_the_nearest():
  facts = _facts(state_gib=900.0)
  tried = _search(_config(), facts)
  assert fit.choose(tried) is None and len(tried) == 5
  text = fit.nothing_fits(tried, _config(), 16)
  assert text.startswith(
    "--fit: none of the 5 ways that were compiled fits; the nearest, --config."
  )
  assert " of 16 GiB. Take transformer.dtype=bfloat16, a batch_size" in text


def test_the_choice_prefers_few_changes_among_equals():
  tried = _search(_config(), _facts(state_gib=4.0))
  slower = dataclasses.replace(
    tried[0], changes={"mesh.fsdp": 2, "microbatches": 2}
  )
  assert fit.choose([slower, tried[0]]) is tried[0]
  fitted = fit.Fitted([slower, tried[0]], tried[0], 16)
  assert fitted.describe()["flags"] == "the config as it is"
  assert fitted.lines()[-1] == "  best: the config as it is"


def test_shapes_stay_within_slices_and_divide_the_batch():
  shapes = estimate.shapes(32, 2, 64, (1, 2), ("all",))
  assert {s.data * s.fsdp * s.tensor for s in shapes} == {16}
  assert {s.slices for s in shapes} == {2}
  assert all(64 % (s.parts * s.microbatches) == 0 for s in shapes)
  assert max(s.fsdp * s.tensor for s in shapes) == 16
  assert {s.microbatches for s in shapes if s.tensor == 1} == {1, 2}
  assert estimate.shapes(8, 1, 7, (1,), ("all",)) == []
  # A clip for two devices each.
  few = estimate.shapes(8, 1, 4, (1, 2), ("all",))
  assert {s.tensor for s in few} == {2}


def test_what_crosses_slices_takes_the_networks_time():
  facts = _facts()
  shape = estimate.Shape(16, 1, 1, 1, "dots")
  one = _estimator(facts).estimate(shape)
  both = _estimator(facts, 2).estimate(dataclasses.replace(shape, slices=2))
  assert one.seconds["network"] == 0.0
  assert both.seconds["network"] == facts.weights / 16 / _V5E.network


@pytest.mark.slow
def test_facts_of_a_real_config():
  config = tiny.masked("tests/tiny.py:tokenizer")
  config.dataset.tokens = "stored"
  facts, state = fit._facts(config, jax.devices())
  assert facts.activations["off"] > facts.activations["dots"]
  assert facts.activations["dots"] >= facts.activations["all"]
  assert facts.flops["all"] > facts.flops["off"]
  whole = facts.state(estimate.Shape(8, 1, 1, 1, "off"))
  # Weights and two moments in float32, and the frozen tokenizer.
  assert whole > 3 * facts.weights
  assert fit._splits(config, jax.devices(), 2, state)
  assert not fit._splits(config, jax.devices(), 8, state)
  # No array is large enough to be split.
  assert facts.padding(estimate.Shape(1, 8, 1, 1, "off")) == 1.0


def test_a_choice_by_memory_is_left_to_each_shape():
  config = tiny.tokenizer()
  shape = estimate.Shape(8, 1, 1, 1, "auto")
  config.tokenizer.remat = "auto"
  assert fit._remats(config) == ("auto",)
  assert fit.changes_to(config, shape) == {}
  config.tokenizer.remat = "all"
  assert fit._remats(config) == ("all", "off", "dots")
  kept = dataclasses.replace(shape, remat="dots")
  assert fit.changes_to(config, kept) == {"tokenizer.remat": "dots"}
  generator = tiny.masked("")
  generator.transformer.remat = "auto"
  assert fit.changes_to(generator, kept) == {}


def test_small_pieces_are_sent_in_whole_tiles():
  mesh = mesh_lib.make_mesh(
    ml_collections.ConfigDict({"data": 1, "fsdp": 8, "tensor": 1}),
    jax.devices(),
  )
  params = {"a": jax.ShapeDtypeStruct((512, 128), jnp.float32)}
  params["b"] = jax.ShapeDtypeStruct((128,), jnp.float32)
  split = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    params,
    mesh_lib.state_shardings(params, mesh),
  )
  # 64 of the 512 rows, which take the room of 128; b is whole.
  pieces, padded = 64 * 128 + 128, 128 * 128 + 128
  assert fit._padding(split) == padded / pieces


def test_a_size_that_the_compiler_does_badly_is_not_held_against_others():
  estimator = _estimator(_facts())
  bad, other = (estimate.Shape(16 // n, n, 1, 1, "dots") for n in (16, 4))
  before = estimator.estimate(other).seconds
  slow = {**estimator.estimate(bad).seconds, "links": 9.0, "memory": 9.0}
  figures = {"fits": True, "bytes": 9 * _V5E.bandwidth, "seconds": slow}
  good = estimate.Shape(16, 1, 1, 1, "dots")
  expected = estimator.estimate(good).seconds
  fine = {**figures, "seconds": expected}
  fine["bytes"] = expected["memory"] * _V5E.bandwidth
  estimator.learn(good, fine)
  estimator.learn(bad, figures)
  assert estimator.estimate(bad).seconds["links"] == pytest.approx(9.0)
  assert estimator.estimate(other).seconds == pytest.approx(before)
