"""Tests of magvit/training/trace.py."""

import re

import jax
import jax.numpy as jnp
import pytest

from magvit.training import trace as trace_lib


def test_the_steps_of_a_range_are_traced(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(jax.profiler, "start_trace", calls.append)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
  with trace_lib.Trace(str(tmp_path), (3, 4)) as trace:
    for step in range(1, 7):
      trace.before(step, jnp.zeros(()))
      calls.append(step)
  assert calls == [1, 2, str(tmp_path / "profile"), 3, 4, "stop", 5, 6]
  calls.clear()
  with trace_lib.Trace(str(tmp_path), (3, 9)) as trace:  # resumed after step 3
    for step in (4, 5):
      trace.before(step, jnp.zeros(()))
  assert calls == [str(tmp_path / "profile"), "stop"]
  calls.clear()
  with trace_lib.Trace(str(tmp_path), (0, 0)) as trace:
    trace.before(1, jnp.zeros(()))
  assert not calls


def test_a_trace_is_written(tmp_path):
  with trace_lib.Trace(str(tmp_path), (1, 1)) as trace:
    for step in (1, 2):
      trace.before(step, jnp.zeros(()))
      jax.jit(lambda x: x + 1)(jnp.zeros(8)).block_until_ready()
  assert list((tmp_path / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize("steps", [(3,), (4, 3), (0, 2), (-1, 2)])
def test_ranges_that_are_none_are_refused(steps):
  match = re.escape(f"profile_steps={steps} ") + r".*\(0, 0\)"
  with pytest.raises(ValueError, match=match):
    trace_lib.check_steps(steps, num_steps=30)
