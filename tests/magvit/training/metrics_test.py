"""Tests of magvit/training/metrics.py."""

import json
import math

import pytest

from magvit.training import endings
from magvit.training import metrics as metrics_lib


def _lines(workdir):
  text = (workdir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_values_survive_the_file_exactly(tmp_path):
  writer = metrics_lib.Writer(str(tmp_path), 0)
  writer.write(1, {"loss": 0.1 + 0.2, "flip_rate": [0.5, 0.25]})
  writer.close()
  expected = {"step": 1, "loss": 0.1 + 0.2, "flip_rate": [0.5, 0.25]}
  assert _lines(tmp_path) == [expected]


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
  writer = metrics_lib.Writer(str(tmp_path), 0)
  for step in (1, 2, 3):
    writer.write(step, {"loss": float(step)})
  writer.close()
  with (tmp_path / "metrics.jsonl").open("a") as f:
    f.write('{"step": 4, "lo')  # torn by a kill
  writer = metrics_lib.Writer(str(tmp_path), 2)
  writer.write(3, {"loss": 30.0})
  writer.close()
  assert [(x["step"], x["loss"]) for x in _lines(tmp_path)] == [
    (1, 1.0),
    (2, 2.0),
    (3, 30.0),
  ]


def test_a_step_that_is_not_finite_is_in_the_file(tmp_path):
  writer = metrics_lib.Writer(str(tmp_path), 0)
  writer.write(1, {"loss": math.inf, "flip_rate": [math.nan, 0.5]})
  writer.close()
  (line,) = _lines(tmp_path)
  assert line["loss"] == math.inf
  assert math.isnan(line["flip_rate"][0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_guard_names_the_step_and_the_metric(value):
  metrics_lib.check_finite(6, {"loss": 1.0})
  with pytest.raises(endings.NonFiniteError, match=f"step 7: r1={value}"):
    metrics_lib.check_finite(7, {"loss": 1.0, "r1": value})
  with pytest.raises(endings.NonFiniteError, match="step 7: flip_rate="):
    metrics_lib.check_finite(7, {"loss": 1.0, "flip_rate": [0.5, value]})


def test_progress_has_rate_and_time_left(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(metrics_lib.time, "monotonic", lambda: now[0])
  progress = metrics_lib.Progress(0, 400, "name", ("loss",))
  now[0] += 50.0
  line = progress.line(100, {"loss": 1.23456, "unlisted": 3.0})
  assert line == "name 100/400 (25%), 2 steps/s, 0:02:30 left | loss 1.235"


def test_the_rate_is_that_of_training_alone(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(metrics_lib.time, "monotonic", lambda: now[0])
  progress = metrics_lib.Progress(0, 400, "name")
  now[0] += 90.0  # compiling
  progress.restart_clock(0)
  now[0] += 5.0
  with progress.paused():  # a save, an evaluation
    now[0] += 1000.0
  assert not progress.is_due()
  now[0] += 5.0
  assert progress.is_due()
  assert progress.line(10, {}).startswith(
    "name 10/400 (2%), 1 steps/s, 0:06:30"
  )


def test_lines_that_are_json_but_no_step_do_not_stop_a_resumed_run(
  tmp_path, caplog
):
  good = '{"step": 1, "eval/psnr": 20.0}'
  damaged = ("[]", "null", "3", "{}", '{"step": null}', '{"step": "1"}')
  lines = "".join(f"{line}\n" for line in (*damaged, "[" * 10**5, good))
  (tmp_path / "metrics.jsonl").write_text(lines)
  assert metrics_lib.has_evaluation(str(tmp_path), 1)
  assert not metrics_lib.has_evaluation(str(tmp_path), 2)
  caplog.clear()
  metrics_lib.Writer(str(tmp_path), 1).close()
  assert _lines(tmp_path) == [json.loads(good)]
  assert "left out 7 damaged lines of" in caplog.text
