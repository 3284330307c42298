"""Tests of magvit/modes/reconstruct.py: files in, files and scores out."""

from concurrent import futures
import errno
import json
import logging
import os
import shutil

import numpy as np
from PIL import Image
import pytest

from evaluation.show import mp4
from input_pipeline.decoding import media as media_lib
from magvit.modes import reconstruct as reconstruct_mode
from magvit.scoring import media_scores
from magvit.tokenizer import loaded
from tests import tiny
from tests.magvit.tokenizer import frames_test


@pytest.fixture
def workdir(tiny_tokenizer_workdir, tmp_path):
  """A copy of a trained workdir, which the tests may write to."""
  return shutil.copytree(tiny_tokenizer_workdir, tmp_path / "run")


@pytest.fixture
def exact(monkeypatch):
  """Replaces the trained tokenizer by one that loses nothing."""
  tokenizer = frames_test.Exact(tiny.tokenizer())
  monkeypatch.setattr(loaded, "load_tokenizer", lambda path: tokenizer)


def _write_image(path, height, width, mode="RGB"):
  path.parent.mkdir(exist_ok=True)
  channels = len(mode) if len(mode) > 1 else 1
  shape = (height, width, channels) if channels > 1 else (height, width)
  pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  Image.fromarray(pixels).save(path)


def _write_video(path, frames, height, width, rate=25):
  path.parent.mkdir(exist_ok=True)
  t, y, x = np.mgrid[:frames, :height, :width]
  waves = [np.sin(x / 9 + t / 3), np.sin(y / 7 - t), np.cos((x + y) / 11)]
  with mp4.Writer(path, rate) as writer:
    for frame_HWC in (128 + 120 * np.stack(waves, -1)).astype(np.uint8):
      writer.add(frame_HWC)


def _frames(path):
  return np.stack(list(media_lib.probe(str(path)).frames()))


def _results(workdir, name):
  return json.loads((workdir / "results" / f"media_{name}.json").read_text())


def test_images_of_every_kind_in_a_folder(workdir, exact, tmp_path):
  inputs = tmp_path / "in"
  _write_image(inputs / "colour.png", 13, 11)
  _write_image(inputs / "below" / "grey.png", 12, 15, "L")
  _write_image(inputs / "clear.png", 5, 16, "RGBA")
  (inputs / "notes.txt").write_text("mine")
  inputs_before = sorted(inputs.rglob("*"))
  reconstruct_mode.reconstruct(str(workdir), str(inputs))
  assert sorted(inputs.rglob("*")) == inputs_before
  output = workdir / "reconstructions" / "in"
  for name in ("colour.png", "below/grey.png", "clear.png"):
    original = _frames(inputs / name)
    made = _frames(output / "reconstruction" / name)
    np.testing.assert_array_equal(made, original)  # the tokenizer is exact
    pair = _frames(output / "side_by_side" / name)
    width = original.shape[2]
    np.testing.assert_array_equal(pair[:, :, :width], original)
    np.testing.assert_array_equal(pair[:, :, -width:], original)
  results = _results(workdir, "in")
  assert [row["file"] for row in results["files"]] == [
    *["below/grey.png", "clear.png", "colour.png"]
  ]
  row = results["files"][2]
  assert (row["frames"], row["height"], row["width"]) == (1, 13, 11)
  assert (row["padded_frames"], row["padded_height"]) == (1, 14)
  assert row["padded_width"] == 12 and row["psnr"] == 100.0
  assert (workdir / row["reconstruction"]).is_file()
  assert results["files"][1]["ssim"] is None  # 5 pixels high
  assert results["metrics"]["mean_ssim"] == pytest.approx(1)
  assert results["metrics"]["files"] == 3 and results["failures"] == {}
  assert results["skipped"] == ["notes.txt"] and results["step"] == 1
  report = (workdir / "report.html").read_text()
  assert "media_in" in report and "below/grey.png" in report


def test_a_video_keeps_its_frames_size_and_rate(workdir, tmp_path):
  """Uses the real tokenizer, whose clips have an odd number of frames."""
  _write_video(tmp_path / "clip.mp4", 4, 15, 16, rate=12)
  reconstruct_mode.reconstruct(str(workdir), str(tmp_path / "clip.mp4"))
  output = workdir / "reconstructions" / "clip"
  (row,) = _results(workdir, "clip")["files"]
  assert (row["frames"], row["height"], row["width"]) == (4, 15, 16)
  assert row["padded_frames"] == 5 and row["padded_height"] == 16
  assert row["frame_rate"] == "12"
  for kind, width in (("reconstruction", 16), ("side_by_side", 34)):
    path = output / kind / "clip.mp4"
    assert media_lib.probe(str(path)).frame_rate == 12
    assert _frames(path).shape == (4, 15, width, 3)
  # Scores are those of frames before the codec, which changes little.
  original, made = (
    _frames(p) / 255.0
    for p in (tmp_path / "clip.mp4", output / "reconstruction" / "clip.mp4")
  )
  psnr = -10 * np.log10(np.square(original - made).mean((1, 2, 3))).mean()
  assert row["psnr"] == pytest.approx(psnr, abs=1)


@pytest.mark.slow
def test_a_longer_video(workdir, tmp_path):
  _write_video(tmp_path / "clip.mp4", 33, 64, 96)
  reconstruct_mode.reconstruct(str(workdir), str(tmp_path / "clip.mp4"))
  path = workdir / "reconstructions" / "clip" / "reconstruction" / "clip.mp4"
  assert _frames(path).shape == (33, 64, 96, 3)


def test_a_broken_file_does_not_stop_the_rest(
  workdir, exact, tmp_path, caplog, monkeypatch
):
  for package in ("magvit", "storage"):
    monkeypatch.setattr(logging.getLogger(package), "propagate", True)
    caplog.set_level(logging.INFO, package)
  inputs = tmp_path / "in"
  for name in ("a.png", "c.png"):
    _write_image(inputs / name, 12, 12)
  (inputs / "b.mp4").write_bytes(b"no video" * 100)
  with pytest.raises(ValueError, match="1 of 3 files in --input=.*b.mp4"):
    reconstruct_mode.reconstruct(str(workdir), str(inputs))
  results = _results(workdir, "in")
  assert [row["file"] for row in results["files"]] == ["a.png", "c.png"]
  assert list(results["failures"]) == ["b.mp4"]
  assert "cannot read" in results["failures"]["b.mp4"]
  assert results["metrics"]["failed"] == 1
  output = workdir / "reconstructions" / "in"
  assert sorted(p.name for p in (output / "reconstruction").iterdir()) == [
    *["a.png", "c.png"]
  ]
  assert "2/3 (66%)" in caplog.text and "0:00:00 left" in caplog.text
  assert "failed\nb.mp4: cannot read" in caplog.text


@pytest.mark.parametrize(
  "content, message",
  [
    (b"no video" * 100, r"--input=.*a.mp4: cannot read .* neither an image"),
    (None, "--input=.*a.mp4 is neither a file nor a folder"),
  ],
)
def test_the_only_file_is_an_error_that_leaves_nothing(
  workdir, exact, tmp_path, content, message
):
  path = tmp_path / "a.mp4"
  if content is not None:
    path.write_bytes(content)
  before = sorted(workdir.rglob("*"))
  with pytest.raises(ValueError, match=message):
    reconstruct_mode.reconstruct(str(workdir), str(path))
  assert sorted(workdir.rglob("*")) == before


def test_folders_without_media_are_refused(workdir, tmp_path):
  (tmp_path / "in").mkdir()
  (tmp_path / "in" / "notes.txt").touch()
  with pytest.raises(
    ValueError, match="--input=.*in .* 1 files .* .png .*.mp4"
  ):
    reconstruct_mode.reconstruct(str(workdir), str(tmp_path / "in"))


def test_files_of_one_name_and_runs_of_one_input_do_not_clash(
  workdir, exact, tmp_path
):
  inputs = tmp_path / "in"
  _write_image(inputs / "a.png", 12, 12)
  _write_image(inputs / "a.bmp", 14, 14)
  reconstruct_mode.reconstruct(str(workdir), str(inputs))
  first = workdir / "reconstructions" / "in" / "reconstruction"
  assert _frames(first / "a.bmp.png").shape == (1, 14, 14, 3)
  assert _frames(first / "a.png.png").shape == (1, 12, 12, 3)
  kept = {p: p.read_bytes() for p in first.iterdir()}
  kept_results = _results(workdir, "in")
  (inputs / "a.bmp").unlink()
  reconstruct_mode.reconstruct(str(workdir), f"{inputs}/")
  assert {p: p.read_bytes() for p in first.iterdir()} == kept
  assert _results(workdir, "in") == kept_results
  (row,) = _results(workdir, "in-2")["files"]
  assert row["side_by_side"] == "reconstructions/in-2/side_by_side/a.png"


_ODD = (
  os.fsdecode(b"no\xffutf8.png"),
  "line\nfeed.png",
  "\x1b[31m\\.png",
  "x" * 242 + ".png",
  "x" * 241 + "y.png",
)


def test_names_of_any_kind_are_read_and_written(workdir, exact, tmp_path):
  inputs = tmp_path / os.fsdecode(b"in\xff\n")
  for name in _ODD:
    _write_image(inputs / name, 12, 12)
  (inputs / "below").symlink_to(tmp_path / "linked")
  _write_image(tmp_path / "linked" / "10.png", 12, 12)
  _write_image(tmp_path / "linked" / "9.png", 12, 12)
  reconstruct_mode.reconstruct(str(workdir), str(inputs))
  (path,) = (workdir / "results").glob("media_in*.json")
  results = json.loads(path.read_text())
  rows = {row["file"]: row for row in results["files"]}
  assert len(rows) == 7 and results["failures"] == {} and not results["left"]
  assert list(rows)[1:3] == ["below/9.png", "below/10.png"]
  assert {"no\\xffutf8.png", "line\\nfeed.png", "\\x1b[31m\\\\.png"} < set(rows)
  made = [row["reconstruction"] for row in rows.values()]
  assert len(set(made)) == 7
  for file in made:
    assert (workdir / file).is_file() and file.isprintable()
    assert len(os.path.basename(file)) < 200
  report = (workdir / "report.html").read_text()
  assert "in\\xff\\n" in report


def test_a_folder_survives_what_is_no_file_and_what_cannot_be_coded(
  workdir, exact, tmp_path, monkeypatch
):
  inputs = tmp_path / "in"
  for name in ("1.png", "2.png", "10.png"):
    _write_image(inputs / name, 12, 12)
  (inputs / "gone.png").symlink_to(tmp_path / "nowhere")
  os.mkfifo(inputs / "pipe.png")
  reconstruct_file = reconstruct_mode._reconstruct_file
  kept = []

  def fails(tokenizer, path, *arguments):
    stored = workdir / "results" / "media_in.json"
    kept.append(json.loads(stored.read_text()) if stored.exists() else None)
    if path.endswith("2.png"):
      raise ZeroDivisionError("Fraction(1, 0)")
    return reconstruct_file(tokenizer, path, *arguments)

  monkeypatch.setattr(reconstruct_mode, "_reconstruct_file", fails)
  monkeypatch.setattr(media_scores, "_WRITING", 0)
  with pytest.raises(ValueError, match="3 of 5 files .*2.png, gone.png, pipe"):
    reconstruct_mode.reconstruct(str(workdir), str(inputs))
  # A kill before any file keeps what was done until then.
  assert kept[0] is None
  assert [len(k["files"]) for k in kept[1:]] == [1, 1, 2, 2]
  assert [len(k["failures"]) for k in kept[1:]] == [0, 1, 1, 2]
  assert kept[3]["left"] == ["gone.png", "pipe.png"]
  results = _results(workdir, "in")
  assert [row["file"] for row in results["files"]] == ["1.png", "10.png"]
  reasons = results["failures"]
  assert reasons["2.png"] == "ZeroDivisionError: Fraction(1, 0)"
  assert "without a target" in reasons["gone.png"]
  assert "a pipe" in reasons["pipe.png"]
  assert "gone.png" not in results["left"]


@pytest.mark.parametrize(
  "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")]
)
def test_a_run_that_stops_keeps_its_scores(
  workdir, exact, tmp_path, monkeypatch, error
):
  for number in range(4):
    _write_image(tmp_path / "in" / f"{number}.png", 12, 12)
  reconstruct_file = reconstruct_mode._reconstruct_file

  def stops(tokenizer, path, *arguments):
    if path.endswith("3.png"):
      raise error
    return reconstruct_file(tokenizer, path, *arguments)

  monkeypatch.setattr(reconstruct_mode, "_reconstruct_file", stops)
  with pytest.raises(type(error)):
    reconstruct_mode.reconstruct(str(workdir), str(tmp_path / "in"))
  results = _results(workdir, "in")
  assert [row["file"] for row in results["files"]] == [
    *["0.png", "1.png", "2.png"]
  ]
  assert results["left"] == ["3.png"] and results["failures"] == {}


def test_runs_of_one_input_at_once_have_names_of_their_own(tmp_path):
  claim = lambda _: reconstruct_mode._claim_name(str(tmp_path), "in/a.png")
  with futures.ThreadPoolExecutor(8) as pool:
    names = list(pool.map(claim, range(16)))
  assert sorted(names) == sorted(["a", *(f"a-{i}" for i in range(2, 17))])
