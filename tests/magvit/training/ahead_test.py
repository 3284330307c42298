"""Tests of magvit/training/ahead.py: what a start does beside reading."""

import logging
import threading

import jax
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.recognition import recognition
from magvit.scoring import held_out
from magvit.training import ahead as ahead_lib
from magvit.training import loop
from tests import tiny


class _Data:
  """Batches that say which one they are."""

  def __init__(self, broken=()):
    self.next, self.threads, self._broken = 0, [], broken

  def set_state(self, position):
    self.next = position["next_batch"]

  def __next__(self):
    self.threads.append(threading.current_thread().name)
    if self.next in self._broken:
      raise ValueError(f"clip {self.next} is damaged")
    self.next += 1
    return {"label": np.full(8, self.next - 1)}


class _Step:
  """A step that counts how often it is compiled."""

  def __init__(self):
    self.compiled = 0

  def lower(self, *unused):
    return self

  def compile(self):
    self.compiled += 1


def _ahead(step, data):
  mesh = mesh_lib.data_mesh(jax.devices())
  return ahead_lib.Ahead(step, None, jax.random.key(0), data, mesh)


def _at(number):
  return {"next_batch": number}


def test_the_first_batch_is_read_where_the_newest_checkpoint_says():
  step, data = _Step(), _Data()
  with _ahead(step, data) as ahead:
    ahead.begin(_at(4))
    ahead.set_state(_at(4))
    np.testing.assert_array_equal(ahead.batch()["label"], np.full(8, 4))
  assert data.next == 5 and step.compiled == 1 and data.threads == ["ahead"]


@pytest.mark.parametrize("broken", [(), (4,)])
def test_another_checkpoint_is_another_batch(broken):
  step, data = _Step(), _Data(broken)
  with _ahead(step, data) as ahead:
    ahead.begin(_at(4))
    ahead.set_state(_at(2))
    np.testing.assert_array_equal(ahead.batch()["label"], np.full(8, 2))
  assert data.next == 3


def test_a_batch_that_cannot_be_read_is_an_error_where_it_is_wanted():
  with _ahead(_Step(), _Data(broken=(0,))) as ahead:
    ahead.begin(None)
    with pytest.raises(ValueError, match="clip 0 is damaged"):
      ahead.batch()


def test_what_was_not_begun_is_done_when_it_is_wanted():
  step, data = _Step(), _Data()
  with _ahead(step, data) as ahead:
    ahead.set_state(_at(3))
    np.testing.assert_array_equal(ahead.batch()["label"], np.full(8, 3))
  assert step.compiled == 1 and data.threads == ["MainThread"]


@pytest.mark.slow
def test_a_run_compiles_its_step_once_and_draws_no_weights_to_go_on(
  tmp_path, monkeypatch, caplog
):
  class Smallest(recognition.Recognition):
    def step(self, state, batch, key):
      loss = batch["video"].mean() + 0.0 * jax.random.uniform(key)
      return state.replace(step=state.step + 1), {"loss": loss}

  monkeypatch.setitem(trained_lib.ALGORITHMS, "recognition", Smallest)
  monkeypatch.setattr(held_out, "evaluate_all", lambda *unused: [])

  def compiled(steps):
    config = tiny.recognition("")
    config.recognizer.input, config.num_steps = "pixels", steps
    caplog.clear()
    jax.config.update("jax_log_compiles", True)
    try:
      with caplog.at_level(logging.WARNING):
        loop.train(config, str(tmp_path))
    finally:
      jax.config.update("jax_log_compiles", False)
    said = [m for m in caplog.messages if "Finished XLA compilation" in m]
    count = lambda name: sum(f"jit({name})" in m for m in said)
    return count("init"), count("step")

  assert compiled(3) == (1, 1)
  assert compiled(5) == (0, 1)
