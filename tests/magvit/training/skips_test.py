"""Tests of magvit/training/skips.py: what a step that is left out leaves."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evaluation import records
from evaluation.diagnosis import lines as lines_lib
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.tokenizer import gan
from magvit.training import endings
from magvit.training import loop
from magvit.training import skips
from magvit.workdir import heartbeat as heartbeat_lib
from magvit.workdir import weights as weights_lib
from tests import tiny

_ADAM = optax.chain(
  optax.scale_by_adam(b1=0.5),
  optax.scale_by_learning_rate(lambda count: 0.1 / (1 + count)),
)


class _Line(gan.TokenizerGan):
  """Moves a weight towards the numbers of a batch, which may be NaN."""

  def init(self, key):
    state = algorithm_lib.first_state("tokenizer", {"w": jnp.zeros(2)}, _ADAM)
    del key
    return state.replace(
      ema={"tokenizer": {"w": jnp.zeros(2)}}, extras={"sum": jnp.zeros(())}
    )

  def step(self, state, batch, key):
    del key
    error = state.params["tokenizer"]["w"] - batch
    ema, total = state.ema, state.extras["sum"]
    state = algorithm_lib.descend(state, "tokenizer", {"w": error}, _ADAM)
    ema = algorithm_lib.update_ema(
      ema["tokenizer"], state.params["tokenizer"], 0.5
    )
    state = state.replace(
      ema={"tokenizer": ema}, extras={"sum": total + batch.sum()}
    )
    loss = (error**2).sum()
    return state, {"generator/reconstruction": loss, "norms": error}


def _algorithm(number, spike=0.0, steps=200):
  config = tiny.tokenizer(temporal=False)
  config.num_steps = steps
  config.watch.skips, config.watch.spike = number, spike
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  return _Line.build(config, mesh, abstract=True)


def _train(batches, number, spike=0.0):
  algorithm = skips.guarded(_algorithm(number, spike))
  state = algorithm.init(jax.random.key(0))
  step = jax.jit(algorithm.step)
  history = []
  for batch in batches:
    batch = jnp.asarray(batch, jnp.float32)
    state, metrics = step(state, batch, jax.random.key(0))
    history.append(jax.device_get(metrics))
  return state, history


def _left_out(history):
  return [i for i, x in enumerate(history) if skips.was_left_out(x)]


def _without_counts(state):
  extras = {k: v for k, v in state.extras.items() if k != "skips"}
  return state.replace(extras=extras)


_GOOD = [[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]]


def test_without_bad_steps_the_run_is_the_same_to_the_bit():
  state, history = _train(_GOOD, 3)
  plain, _ = _train(_GOOD, 0)
  jax.tree.map(np.testing.assert_array_equal, _without_counts(state), plain)
  assert not _left_out(history) and "skips" not in plain.extras


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_left_out_counts_and_changes_nothing(bad):
  first, _ = _train(_GOOD[:2], 3)
  state, history = _train([*_GOOD[:2], [bad, 1.0]], 3)
  assert _left_out(history) == [2]
  assert [int(x[skips.TOTAL]) for x in history] == [0, 0, 1]
  assert math.isinf(history[2]["norms"][0]) or math.isnan(
    history[2]["norms"][0]
  )  # what was wrong can be read
  for name in ("params", "ema"):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(state, name), getattr(first, name)
    )
  assert state.extras["sum"] == first.extras["sum"]
  assert int(state.step) == 3
  adam, schedule = state.opt_state["tokenizer"]
  before, _ = first.opt_state["tokenizer"]
  jax.tree.map(
    np.testing.assert_array_equal, (adam.mu, adam.nu), (before.mu, before.nu)
  )
  # The learning rate follows the number of the step, as the log says.
  assert int(adam.count) == int(schedule.count) == 3


def test_after_the_stated_number_bad_steps_are_taken():
  bad = [[math.nan, 1.0]]
  state, history = _train(_GOOD + bad * 3, 2)
  assert _left_out(history) == [3, 4]
  assert np.isnan(state.params["tokenizer"]["w"]).any()


def test_a_spike_is_a_multiple_of_the_usual_loss_of_a_settled_run():
  usual = [[1.0, 1.0], [-1.0, -1.0]]  # the weight stays between them
  batches = [[30.0, 30.0], *usual * 40, [30.0, 30.0], *usual]
  _, history = _train(batches, 5, spike=10.0)
  assert _left_out(history) == [81]
  _, history = _train(batches, 5, spike=1e6)
  assert _left_out(history) == []


@pytest.mark.parametrize(
  "number, spike, message",
  [
    (0, 3.0, "watch.spike=3.0 .*watch.skips=0: set watch.skips"),
    (2, 0.5, "watch.spike=0.5 must be above 1"),
  ],
)
def test_a_spike_that_cannot_be_meant_is_refused(number, spike, message):
  algorithm = _algorithm(number, spike)
  with pytest.raises(ValueError, match=message):
    skips.check(algorithm.config, algorithm.facts)


class _Stumbling(gan.TokenizerGan):
  """Adds the numbers of its steps in a weight; the loss of step 3 is NaN."""

  def init(self, key):
    del key
    params = {"tokenizer": {"w": jnp.zeros(())}}
    return algorithm_lib.TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state={},
      ema={},
      extras={},
      frozen={},
    )

  def step(self, state, batch, key):
    del batch, key
    number = state.step + 1
    w = state.params["tokenizer"]["w"] + number
    loss = jnp.where(number == 3, jnp.nan, w)
    state = state.replace(step=number, params={"tokenizer": {"w": w}})
    return state, {"generator/reconstruction": loss}


def _lines(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  measured = ("steps_per_second", "data_wait")  # these differ between runs
  return [
    {k: v for k, v in json.loads(line).items() if k not in measured}
    for line in lines
  ]


@pytest.fixture
def stumbling(monkeypatch):
  """Config of a run whose third step is not finite, without an evaluation."""
  monkeypatch.setitem(trained_lib.ALGORITHMS, "tokenizer", _Stumbling)
  monkeypatch.setattr(loop.held_out, "evaluate_all", lambda *_: [])
  return tiny.tokenizer(temporal=False)


def _stop_after(step, monkeypatch):
  """Lets the next run stop as by SIGTERM after a step."""
  done = []

  def should_stop(self):
    done.append(1)
    return len(done) == step

  monkeypatch.setattr(loop.preemption.Listener, "should_stop", should_stop)


def test_a_resumed_run_leaves_out_what_the_whole_one_did(
  stumbling, tmp_path, monkeypatch, caplog
):
  stumbling.watch.skips = 1
  loop.train(stumbling, str(tmp_path / "whole"))
  assert "step 3 is left out, 1 of watch.skips=1: generator/rec" in caplog.text
  assert heartbeat_lib.read(str(tmp_path / "whole")).skipped == 1
  _stop_after(4, monkeypatch)
  with pytest.raises(endings.Stopped):
    loop.train(stumbling, str(tmp_path / "parts"))
  monkeypatch.undo()
  monkeypatch.setitem(trained_lib.ALGORITHMS, "tokenizer", _Stumbling)
  monkeypatch.setattr(loop.held_out, "evaluate_all", lambda *_: [])
  loop.train(stumbling, str(tmp_path / "parts"))
  lines = _lines(tmp_path / "whole")
  assert repr(lines) == repr(_lines(tmp_path / "parts"))
  assert [x[skips.LEFT_OUT] for x in lines] == [0, 0, 1, 0, 0, 0]
  assert [x[skips.TOTAL] for x in lines] == [0, 0, 1, 1, 1, 1]
  # 1 + 2 + 4 + 5 + 6: all steps but the third.
  assert lines[-1]["generator/reconstruction"] == 18
  assert heartbeat_lib.read(str(tmp_path / "parts")).skipped == 1
  metrics, _ = records.read_metrics(tmp_path / "parts" / "metrics.jsonl")
  (health,) = lines_lib.lines(metrics, stumbling.to_dict())
  assert health.startswith("health: nothing unusual")
  del metrics[skips.LEFT_OUT]
  (health,) = lines_lib.lines(metrics, stumbling.to_dict())
  assert "not finite since step 3" in health


@pytest.mark.parametrize("before, after", [(0, 2), (2, 0)])
def test_steps_may_be_left_out_from_now_on_or_no_more(
  before, after, stumbling, tmp_path, monkeypatch
):
  _stop_after(2, monkeypatch)
  stumbling.watch.skips = before
  with pytest.raises(endings.Stopped):
    loop.train(stumbling, str(tmp_path))
  _stop_after(-1, monkeypatch)
  stumbling.watch.skips = after
  if after:
    loop.train(stumbling, str(tmp_path))
    assert _lines(tmp_path)[-1][skips.TOTAL] == 1
  else:
    with pytest.raises(endings.NonFiniteError, match="step 3: generator/rec"):
      loop.train(stumbling, str(tmp_path))
  assert weights_lib.latest_step(str(tmp_path)) == (6 if after else 2)
