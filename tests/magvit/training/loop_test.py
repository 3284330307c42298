"""Tests of the loop: interruption, warm start, and what a run leaves."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit import optimizer
from magvit import trained as trained_lib
from magvit.modes import offline
from magvit.recognition import recognition
from magvit.scoring import held_out
from magvit.tokenizer import describe
from magvit.tokenizer import gan
from magvit.tokenizer import inflation
from magvit.training import check
from magvit.training import endings
from magvit.training import loop
from magvit.training import metrics as metrics_lib
from magvit.workdir import weights as weights_lib
from tests import tiny
from tests import untrained

_ROOT = pathlib.Path(__file__).parents[3]


def _history(workdir):
  path = pathlib.Path(workdir) / "metrics.jsonl"
  if not path.exists():
    return []
  lines = path.read_text().splitlines(keepends=True)
  steps = [json.loads(line) for line in lines if line.endswith("\n")]
  # How fast steps were is the one thing that differs between equal runs.
  timed = ("steps_per_second", "data_wait")
  return [{k: v for k, v in step.items() if k not in timed} for step in steps]


def _start(workdir, steps):
  command = [sys.executable, "main.py", "--config=tests/tiny.py:recognition"]
  command += ["--config.recognizer.input=pixels"]
  command += ["--config.tokenizer_workdir="]
  command += [f"--workdir={workdir}", f"--config.num_steps={steps}"]
  command += ["--config.checkpoint_every=10"]
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
  return subprocess.Popen(
    command,
    cwd=_ROOT,
    env={**os.environ, "XLA_FLAGS": flags},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )


def _end_after(process, signal_number, workdir, steps):
  """Sends a signal once metrics of as many steps are written."""
  while len(_history(workdir)) < steps:
    assert process.poll() is None, process.communicate()[0].decode()
    time.sleep(0.002)
  process.send_signal(signal_number)
  return process.communicate(timeout=300)[0].decode()


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_goes_on_bit_for_bit(tmp_path):
  """SIGTERM, then kill -9 between saves; each time the same command again.

  A recognizer of pixels compiles soonest. tests/magvit/object_stores_test.py
  shows it of a tokenizer, and tests below of generators.
  """
  ended, whole = tmp_path / "ended", tmp_path / "whole"
  steps = 60
  uninterrupted = _start(whole, steps)
  output = uninterrupted.communicate(timeout=300)[0].decode()
  assert uninterrupted.returncode == 0, output

  stopped = _start(ended, steps)
  output = _end_after(stopped, signal.SIGTERM, ended, 3)
  assert stopped.returncode == endings.EXIT_CODE == 143, output
  saved = weights_lib.latest_step(str(ended))
  assert f"stopped on request after step {saved}, which is saved" in output
  # The last step done is the one saved, although none was due: nothing is lost.
  assert saved == _history(ended)[-1]["step"] < steps and saved >= 3

  killed = _start(ended, steps)
  last = saved // 10 * 10 + 13  # the save before it is complete or under way
  output = _end_after(killed, signal.SIGKILL, ended, last)
  assert f"resuming from step {saved}" in output
  assert killed.returncode == -signal.SIGKILL
  # A kill in the middle of a save would leave this folder.
  torn = ended / "checkpoints" / "50.orbax-checkpoint-tmp"
  (torn / "state").mkdir(parents=True, exist_ok=True)

  resumed = _start(ended, steps)
  output = resumed.communicate(timeout=300)[0].decode()
  assert resumed.returncode == 0, output
  assert _history(ended) == _history(whole)
  assert [x["step"] for x in _history(ended)] == list(range(1, steps + 1))
  for step in (50, 60):
    assert (ended / "checkpoints" / str(step) / "state").is_dir()
  assert not torn.exists()


@pytest.mark.slow
def test_a_run_goes_on_with_fewer_and_with_more_slices(tmp_path, monkeypatch):
  """Two devices are a slice; the batch of 12 clips stays the same.

  A recognizer of pixels is what compiles soonest.
  """
  monkeypatch.setattr(held_out, "evaluate_all", lambda *unused: [])
  devices = jax.devices()

  def train(workdir, slices):
    monkeypatch.setattr(jax, "devices", lambda: devices[: 2 * slices])
    config = tiny.recognition("")
    config.recognizer.input = "pixels"
    config.batch_size, config.mesh.slices = 12, slices
    config.num_steps, config.optimizer.warmup_steps = 5, 2
    config.checkpoint_every = 3
    config.optimizer.peak_learning_rate = 1e-4
    loop.train(config, str(workdir))
    return _history(workdir)

  whole = train(tmp_path / "whole", 2)
  for slices in (1, 3):
    workdir = tmp_path / str(slices)
    shutil.copytree(tmp_path / "whole", workdir)
    shutil.rmtree(workdir / "checkpoints" / "5")
    resumed = train(workdir, slices)
    assert resumed[:3] == whole[:3] and len(resumed) == len(whole) == 5
    assert weights_lib.latest_step(str(workdir)) == 5
    for one, two in zip(resumed[3:], whole[3:], strict=True):
      assert one.keys() == two.keys()
      for name in one:
        # Sums of float32 in another order differ by 1e-4 of a metric, and
        # gradients after Adam's steps by more (tests/magvit/mesh_test.py).
        rtol = 1e-3 if name.endswith("gradient_norm") else 1e-4
        np.testing.assert_allclose(
          one[name], two[name], rtol=rtol, atol=1e-4, err_msg=name
        )


def test_an_evaluation_that_was_cut_short_is_made_up_for(tmp_path):
  path = tmp_path / "metrics.jsonl"
  lines = [{"step": 2, "loss": 1.0}, {"step": 2, "eval/a/b": 3.0}]
  path.write_text(json.dumps(lines[0]) + "\n")
  assert not metrics_lib.has_evaluation(str(tmp_path), 2)
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert metrics_lib.has_evaluation(str(tmp_path), 2)
  assert not metrics_lib.has_evaluation(str(tmp_path), 4)


@pytest.mark.slow
def test_a_video_tokenizer_starts_from_the_inflated_image_tokenizer(
  tmp_path, caplog
):
  """The run is so short that its evaluations read a batch of 64 clips."""
  image_workdir = str(tmp_path / "image")
  untrained.write(image_workdir, tiny.tokenizer(temporal=False))
  config = tiny.tokenizer()
  config.num_steps, config.optimizer.warmup_steps = 2, 1
  config.eval_every, config.dataset.eval_examples = 1, 64
  config.inflate_from = image_workdir
  mesh = mesh_lib.make_mesh(config.mesh)
  algorithm = gan.TokenizerGan.build(config, mesh)
  state = algorithm.init(jax.random.key(0))
  warm = algorithm.warm_start(state)
  _, image = describe.restore_tokenizer(image_workdir, mesh)
  expected = inflation.inflate(image, state.params["tokenizer"])
  for tree in (warm.params["tokenizer"], warm.ema["tokenizer"]):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)
  jax.tree.map(  # the discriminator starts from scratch
    np.testing.assert_array_equal,
    warm.params["discriminator"],
    state.params["discriminator"],
  )
  video_workdir = str(tmp_path / "video")
  with caplog.at_level("INFO"):
    loop.train(config, video_workdir)
  assert weights_lib.latest_step(video_workdir) == config.num_steps
  said = [m for m in caplog.messages if m.startswith("evaluating 8 of 64 held")]
  assert len(said) == 2  # after step 1, and at the end
  for name in ("reconstruction", "codebook"):
    path = pathlib.Path(video_workdir) / "results" / f"held_out_{name}.json"
    assert json.loads(path.read_text())["protocol"]["examples"] == 8


_PREDICTION = ("class_conditional", "frame_prediction")
_COMPLETION = ("class_conditional", "interpolation", "dynamic_outpainting")


@pytest.mark.slow
@pytest.mark.parametrize(
  ("make", "tasks"),
  [
    (tiny.masked, _COMPLETION),
    pytest.param(tiny.masked_diffusion, _COMPLETION, marks=pytest.mark.rows),
    (tiny.next_frame_flow, _PREDICTION),
    pytest.param(tiny.diffusion, _COMPLETION, marks=pytest.mark.rows),
  ],
  ids=["masked", "masked_diffusion", "next_frame_flow", "diffusion"],
)
def test_a_generator_keeps_its_tokenizer_and_leaves_scores_and_a_report(
  tiny_tokenizer_workdir, tmp_path, make, tasks
):
  workdir = tmp_path / "generator"
  config = make(tiny_tokenizer_workdir)
  config.dataset.eval_examples = 8  # so few that the short run reads all
  for task in config.tasks:
    config.tasks[task] = float(task in tasks)
  loop.train(config, str(workdir))
  assert [x["step"] for x in _history(workdir)] == [1, 2, 3, 4, 5, 6]
  schedule = optimizer.make_schedule(config.optimizer, config.num_steps)
  rates = [x["learning_rate"] for x in _history(workdir)]
  assert rates == [float(schedule(step)) for step in range(6)]
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  assert all(json.loads(line)["steps_per_second"] > 0 for line in lines)
  assert all(0 <= json.loads(line)["data_wait"] <= 1 for line in lines)
  names = {p.stem for p in (workdir / "results").glob("*.json")}
  assert names == {"frechet", *tasks}
  for name in tasks:
    assert (workdir / "samples" / f"{name}.gif").stat().st_size > 0
  assert config.name in (workdir / "report.html").read_text()
  # The workdir alone gives the same scores.
  config.tokenizer_workdir = "gone"
  before = (workdir / "results" / "frechet.json").read_text()
  os.remove(workdir / "results" / "frechet.json")
  held_out.evaluate_all(offline.open_model(str(workdir), config))
  assert (workdir / "results" / "frechet.json").read_text() == before
  # Its last steps come again to the bit from the checkpoint before them.
  config.tokenizer_workdir = tiny_tokenizer_workdir
  history = _history(workdir)
  weights = lambda: jax.tree.leaves(
    offline.open_model(str(workdir), config).params
  )
  whole = weights()
  shutil.rmtree(workdir / "checkpoints" / "6")
  loop.train(config, str(workdir))
  assert _history(workdir) == history
  for a, b in zip(whole, weights(), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_metric_that_is_not_finite_stops_the_run_and_is_not_saved(
  tmp_path, monkeypatch
):
  class Broken(recognition.Recognition):
    def step(self, state, batch, key):
      del batch, key
      bad = jax.numpy.where(state.step == 3, jax.numpy.nan, 1.0)
      return state.replace(step=state.step + 1), {"loss": bad, "fine": 1.0}

  monkeypatch.setitem(trained_lib.ALGORITHMS, "recognition", Broken)
  workdir, config = tmp_path / "run", tiny.recognition("")
  config.recognizer.input = "pixels"
  with pytest.raises(endings.NonFiniteError, match="step 4: loss=nan"):
    loop.train(config, str(workdir))
  assert weights_lib.latest_step(str(workdir)) == 2
  said = "values: loss not finite since step 4: lower optimizer.peak_"
  assert said in (workdir / "report.html").read_text()


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("algorithm", "gan", r"algorithm='gan' .*\['autoregressive', 'diffusion'"),
    ("num_steps", 0, "num_steps=0 .*at least 1"),
    ("log_every", 0, "log_every=0 .*at least 1"),
    ("batch_size", 12, "batch_size=12 .* 8 devices .* 16"),
  ],
)
def test_fields_of_the_loop_are_checked(field, value, message, tmp_path):
  config = tiny.tokenizer()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    loop.train(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_a_model_has_at_least_the_classes_of_its_data():
  config = tiny.masked("a tokenizer's workdir")
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  check.check_config(config, mesh)
  config.transformer.num_classes = 4
  match = "transformer.num_classes=4 .* 10 classes .*dataset.name='digits'"
  with pytest.raises(ValueError, match=match):
    check.check_config(config, mesh)
