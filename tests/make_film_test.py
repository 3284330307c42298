"""Tests of `make film`: what it would run; nothing is run."""

import pathlib
import re
import subprocess

import pytest

from configs import masked
from configs import tokenizer_image
from configs import tokenizer_video
from evaluation.protocols import table as protocol_table

_ROOT = pathlib.Path(__file__).parents[1]
_ROWS = ("film64_small", "film64", "film128")
_CONFIGS = {
  "tokenizer_image": tokenizer_image,
  "tokenizer_video": tokenizer_video,
  "masked": masked,
}


def _would_run(folder, *flags):
  """What make prints, with the environment taken to be ready."""
  command = ["make", "-n", "-o", ".venv/installed", "film", f"FILM={folder}"]
  done = subprocess.run(
    [*command, *flags], cwd=_ROOT, capture_output=True, text=True, check=True
  )
  return done.stdout


@pytest.mark.parametrize("row", _ROWS)
def test_its_stages_name_rows_and_protocols_that_there_are(row, tmp_path):
  text = _would_run(
    *(tmp_path, f"ROW={row}", "FILM_FLAGS=--config.seed=3"),
    "FILM_TOKENIZER_FLAGS=--config.quantizer.name=lfq",
  )
  trained = re.findall(r"--config=configs/(\w+)\.py:(\w+)", text)
  assert [name for name, _ in trained] == list(_CONFIGS)
  for name, arg in trained:
    assert arg == row and arg in _CONFIGS[name].VARIANTS
  assert text.count("--config.seed=3") == 3
  assert text.count("--config.quantizer.name=lfq") == 2
  generator = text[text.index("configs/masked.py") :]
  assert "quantizer" not in generator
  size = tokenizer_video.get_config(row).dataset.size * 3 // 2
  assert f"--output={tmp_path}/shards{size} --size={size}" in " ".join(
    text.replace("\\\n", " ").split()
  )
  loops = re.findall(r"for name in (.*?); do", text)
  names = " ".join(loops).split()
  assert len(names) == len(set(names)) == 14
  for name in names:
    protocol = protocol_table.get(name.partition("@")[0])
    if protocol.made == "completions":
      assert masked.get_config(row).tasks[protocol.task] > 0


@pytest.mark.parametrize(
  "flag, words",
  [
    ("FILM=a folder", "FILM=a folder must be a folder whose name has no"),
    ("ROW=film12", "ROW=film12 must be one of: film64_small film64 film128"),
    ("ROW=film64 film128", "ROW=film64 film128 must be one of"),
  ],
)
def test_names_that_make_cannot_take_are_refused(flag, words):
  command = ["make", "-n", "film", flag]
  done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
  assert done.returncode and words in done.stderr
  assert "python" not in done.stdout


def test_what_is_finished_is_not_run_again(tmp_path):
  run = tmp_path / "film64_small"
  stages = (
    tmp_path / "shards96" / "live_action" / "held_out" / "media.json",
    tmp_path / "weights" / "squeezenet.safetensors",
    run / "image_tokenizer" / "report.html",
    run / "tokenizer" / "report.html",
    tmp_path / "weights" / "efficientnet_lite0.safetensors",
    run / "tokenizer" / "results" / "film_codecs.json",
    run / "tokenizer" / "scored",
    run / "generator" / "report.html",
    run / "generator" / "scored",
    run / "report.html",
  )
  words = (
    *("--format=film", "--network=squeezenet", "tokenizer_image.py"),
    "tokenizer_video.py",
    *("--network=efficientnet_lite0", "film_codecs", "_reconstructions"),
    *("masked.py", "_frame_prediction", "evaluation.show.report"),
  )
  for done, (stage, word) in enumerate(zip(stages, words, strict=True)):
    text = _would_run(tmp_path)
    assert [w in text for w in words] == [False] * done + [True] * (
      len(words) - done
    ), word
    stage.parent.mkdir(parents=True, exist_ok=True)
    stage.touch()
  assert "Nothing to be done" in _would_run(tmp_path)


def test_a_training_that_failed_is_trained_again(tmp_path):
  """It may have written its page, where a value was not finite."""
  page = tmp_path / "film64_small" / "image_tokenizer" / "report.html"
  for done in (
    tmp_path / "shards96" / "live_action" / "held_out" / "media.json",
    tmp_path / "weights" / "squeezenet.safetensors",
  ):
    done.parent.mkdir(parents=True)
    done.touch()
  fails = tmp_path / "fails"
  fails.write_text(f"#!/bin/sh\nmkdir -p {page.parent}\ntouch {page}\nexit 1\n")
  fails.chmod(0o755)
  command = ["make", "-o", ".venv/installed", str(page), f"FILM={tmp_path}"]
  done = subprocess.run(
    [*command, f"TRAIN={fails}"], cwd=_ROOT, capture_output=True, text=True
  )
  assert done.returncode and page.parent.exists()
  assert not page.exists()
