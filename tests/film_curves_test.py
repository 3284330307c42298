"""Tests of benchmarks/film_curves.py: what is kept of a run, and drawn."""

import json

import numpy as np
from PIL import Image
import pytest

from benchmarks import film_curves


def _rows(steps):
  values = {"generator/reconstruction": 0.01, "health/codes_used": 0.5}
  return [
    {
      **dict.fromkeys(film_curves.CURVES, step / 100),
      **values,
      "step": step,
      "learning_rate": 1.0,
    }
    for step in steps
  ]


def _write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_means_of_fifty_steps_are_kept_and_read_again(tmp_path):
  evaluated = {"step": 60, "eval/held_out_reconstruction/psnr": 20.0}
  rows = [*_rows(range(10, 101, 10)), evaluated]
  read = film_curves.read(_write(tmp_path / "metrics.jsonl", rows))
  assert len(read) == 10
  film_curves.keep(read, tmp_path / "kept.jsonl")
  kept = film_curves.read(tmp_path / "kept.jsonl")
  assert [row["step"] for row in kept] == [50, 100]
  assert [row["generator/perceptual"] for row in kept] == [0.3, 0.8]
  assert film_curves.thin(kept) == kept


def test_errors_are_drawn_as_psnr_and_one_batch_is_no_spike():
  rows = _rows(range(50, 551, 50))
  rows[5]["generator/reconstruction"] = 1.0
  steps, psnr = film_curves.points(rows, "generator/reconstruction")
  np.testing.assert_array_equal(steps, np.arange(50, 551, 50))
  np.testing.assert_allclose(psnr, 20.0)


def test_a_run_is_drawn_over_ours(tmp_path, monkeypatch):
  for folder in ("image", "video"):
    _write(tmp_path / folder / "metrics.jsonl", _rows(range(50, 301, 50)))
  sizes = []
  for name, *arguments in (
    ("ours",),
    ("yours", f"--image={tmp_path}/image", f"--video={tmp_path}/video"),
  ):
    output = tmp_path / f"{name}.png"
    command = ["film_curves", *arguments, f"--output={output}"]
    monkeypatch.setattr("sys.argv", command)
    film_curves.main()
    with Image.open(output) as picture:
      sizes.append((picture.size, picture.tobytes()))
  assert sizes[0][0] == sizes[1][0] and sizes[0][1] != sizes[1][1]


def test_a_folder_without_curves_is_refused(tmp_path, monkeypatch, capsys):
  _write(tmp_path / "masked" / "metrics.jsonl", [{"step": 10, "loss": 1.0}])
  for folder, words in (
    ("nowhere", "has no metrics.jsonl: expected a workdir"),
    ("masked", "expected the metrics.jsonl of a tokenizer trained"),
  ):
    command = f"film_curves --image={tmp_path / folder} --output=x.png"
    monkeypatch.setattr("sys.argv", command.split())
    with pytest.raises(SystemExit):
      film_curves.main()
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["none/x.png", "x.words"])
def test_a_picture_that_cannot_be_written_is_one_line(
  tmp_path, monkeypatch, capsys, name
):
  command = f"film_curves --output={tmp_path / name}"
  monkeypatch.setattr("sys.argv", command.split())
  with pytest.raises(SystemExit):
    film_curves.main()
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith("film_curves: error:") and name[-5:] in error
