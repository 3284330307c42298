"""Test of docs/your_data.md: folders to samples by its four commands."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks import own_data
from benchmarks import seeds

_SMALL = {
  "image": ("automatic.least_steps=3", "automatic.most_steps=3"),
  "video": ("automatic.least_steps=3", "automatic.most_steps=3"),
  "generator": ("automatic.least_steps=3", "automatic.most_steps=3"),
}


def test_a_training_is_finished_when_its_last_step_was_evaluated(tmp_path):
  assert not seeds.is_finished(tmp_path)
  (tmp_path / "config.json").write_text('{"num_steps": 40}')
  (tmp_path / "report.html").touch()
  assert not seeds.is_finished(tmp_path)  # as after a value was not finite
  (tmp_path / "results").mkdir()
  result = tmp_path / "results" / "held_out_codebook.json"
  for step in (20, 40):
    result.write_text(json.dumps({"step": step, "metrics": {}}))
    assert seeds.is_finished(tmp_path) == (step == 40)


@pytest.mark.long
@pytest.mark.parametrize("by_class", [False, True])
def test_from_folders_to_samples(tmp_path, by_class):
  pictures, videos = tmp_path / "pictures", tmp_path / "videos"
  own_data.write_pictures(pictures, by_class, count=8)
  own_data.write_videos(videos, count=4)
  flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"
  made = own_data.commands(tmp_path, pictures, videos)
  for name, arguments in made.items():
    fewer = [f"--config.{field}" for field in _SMALL.get(name, ())]
    fewer += ["--config.optimizer.warmup_steps=1"] if fewer else []
    done = subprocess.run(
      [sys.executable, "main.py", *arguments, *fewer],
      env={**os.environ, "XLA_FLAGS": flags},
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
  for name in ("image", "video", "generator"):
    stored = json.loads((tmp_path / name / "config.json").read_text())
    assert stored["num_steps"] == 3
    assert 1 <= stored["batch_size"] <= 7
    assert (tmp_path / name / "report.html").exists()
  assert stored["transformer"]["num_classes"] == 1
  assert (tmp_path / "generator/samples/class_conditional.gif").exists()
