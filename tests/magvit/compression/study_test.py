"""Tests of magvit/compression/study.py."""

import dataclasses
import json
import os

import numpy as np
import pytest

from evaluation.show import mp4
from input_pipeline.decoding import media
from input_pipeline.sources import photo
import magvit
from magvit.compression import decode as decode_file
from magvit.compression import file_format
from magvit.compression import study as study_lib
from magvit.compression import video_codecs
from models.features import perceptual
from tests import untrained

_QPS = (24, 30, 36, 42)


def _study(workdirs=(), **changes):
  study = study_lib.Study(
    workdirs=tuple(workdirs),
    codecs=(
      video_codecs.x265("ultrafast", _QPS),
      video_codecs.vvenc("faster", _QPS[:1]),
    ),
    height=48,
    width=64,
    frames=4,
  )
  return dataclasses.replace(study, **changes)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  """A folder with one video of 5 frames, 64 x 64."""
  folder = tmp_path_factory.mktemp("videos")
  clip_THWC = photo.Photo("train", 5, 64, 0)[0]["video"]
  with mp4.Writer(str(folder / "tower.mp4"), 25) as writer:
    for frame_HWC in clip_THWC:
      writer.add(frame_HWC)
  return folder


def test_only_results_of_the_same_point_count_as_measured(tmp_path):
  path = tmp_path / "a.json"
  contestant = study_lib._Contestant("x265", "24", ".hevc", lambda: None)
  row = {"video": "a", "curve": "x265", "point": "24", "bpp": 0.5, "psnr": 30.0}
  is_measured = lambda: study_lib._is_measured(str(path), "a", contestant)
  assert not is_measured()
  path.write_text(json.dumps(row))
  assert is_measured()
  for field, value in (
    *(("video", "b"), ("curve", "vvenc"), ("point", "30"), ("point", None)),
    *(("bpp", 0), ("bpp", "0.5"), ("bpp", None), ("psnr", float("nan"))),
    *(("psnr", []), ("psnr", 10**400)),
  ):
    path.write_text(json.dumps(row | {field: value}))
    assert not is_measured(), (field, value)
  for text in ("{}", "[]", ""):
    path.write_text(text)
    assert not is_measured(), text


def test_a_study_measures_the_bytes_on_disk_and_goes_on(
  videos, tmp_path, tiny_tokenizer_workdir, monkeypatch
):
  study = _study([tiny_tokenizer_workdir])
  results = study_lib.compress(study, str(videos), str(tmp_path))
  assert results == json.loads((tmp_path / "study.json").read_text())
  assert results["version"] == magvit.__version__
  assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")
  assert results["videos"] == 1 and not results["failures"]
  curves = results["curves"]
  assert {name: len(points) for name, points in curves.items()} == {
    "tokens": 1,
    "x265": 4,
    "vvenc": 1,
  }
  for row in results["items"]:
    name = f"{row['curve']}-{row['point']}".replace(" ", "_")
    suffix = {"tokens": file_format.SUFFIX, "x265": ".hevc", "vvenc": ".vvc"}
    file = tmp_path / "items" / "tower.mp4" / (name + suffix[row["curve"]])
    assert row["bpp"] == 8 * file.stat().st_size / (4 * 48 * 64)
  # Four frames are padded to five, of 6 bits for each 2 x 2 x 2 pixels.
  tokens = next(r for r in results["items"] if r["curve"] == "tokens")
  np.testing.assert_allclose(tokens["padding_share"], 1 / 5)
  np.testing.assert_allclose(
    tokens["bpp_uncoded"], 3 * 24 * 32 * 6 / (4 * 48 * 64)
  )
  against = results["bd_rate"]["psnr"]
  assert (
    "1 points, and a BD-rate needs" in against["x265 against tokens"]["none"]
  )

  monkeypatch.setattr(study_lib, "_measure", None)  # nothing is left to do
  assert study_lib.compress(study, str(videos), str(tmp_path)) == results
  with pytest.raises(ValueError, match="frames is 4 there and 3 here; name"):
    study_lib.compress(
      dataclasses.replace(study, frames=3), str(videos), str(tmp_path)
    )


@pytest.mark.slow
def test_a_generators_files_and_lpips_and_back_to_a_video(
  videos, tmp_path, tiny_generator_workdir, tiny_tokenizer_workdir
):
  weights = str(tmp_path / "lpips_vgg.safetensors")
  untrained.write_weights(weights, "lpips_vgg", perceptual.define)
  study = _study([tiny_generator_workdir], codecs=(), lpips=weights)
  results = study_lib.compress(study, str(videos), str(tmp_path / "out"))
  (row,) = results["items"]
  assert row["curve"] == "tokens, generator" and row["lpips"] > 0
  file = next((tmp_path / "out").rglob(f"*{file_format.SUFFIX}"))
  assert row["bytes"] == file.stat().st_size

  video = str(tmp_path / "back.mp4")
  decode_file.decompress(str(file), video, tiny_generator_workdir)
  frames = list(media.probe(video).frames())
  assert len(frames) == 4 and frames[0].shape == (48, 64, 3)
  with pytest.raises(ValueError, match="back.mp4 exists"):
    decode_file.decompress(str(file), video, tiny_generator_workdir)
  with pytest.raises(ValueError, match="generator [0-9a-f]{16}, .* none "):
    other = str(tmp_path / "other.mp4")
    decode_file.decompress(str(file), other, tiny_tokenizer_workdir)


def test_broken_videos_are_listed_and_the_rest_is_done(videos, tmp_path):
  folder = tmp_path / "in"
  folder.mkdir()
  whole = (videos / "tower.mp4").read_bytes()
  (folder / "whole.mp4").write_bytes(whole)
  (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
  (folder / "empty.mp4").write_bytes(b"")
  study = _study(codecs=(video_codecs.x265("ultrafast", (30,)),))
  output = tmp_path / "out"
  with pytest.raises(ValueError, match="2 of 3 videos.*cut.mp4, empty.mp4"):
    study_lib.compress(study, str(folder), str(output))
  results = json.loads((output / "study.json").read_text())
  assert set(results["failures"]) == {"cut.mp4", "empty.mp4"}
  assert "cut.mp4" in results["failures"]["cut.mp4"]
  assert [row["video"] for row in results["items"]] == ["whole.mp4"]


def test_a_study_survives_names_and_errors_of_any_kind(
  videos, tmp_path, monkeypatch
):
  folder = tmp_path / "in"
  folder.mkdir()
  whole = (videos / "tower.mp4").read_bytes()
  odd = (os.fsdecode(b"\xff\n.mp4"), "x" * 242 + ".mp4", "rate.mp4")
  for name in odd:
    (folder / name).write_bytes(whole)
  (folder / "gone.mp4").symlink_to(tmp_path / "nowhere")
  read = study_lib._read

  def fails(path, study):
    if path.endswith("rate.mp4"):
      raise ZeroDivisionError("Fraction(1, 0)")
    return read(path, study)

  monkeypatch.setattr(study_lib, "_read", fails)
  study = _study(codecs=(video_codecs.x265("ultrafast", (30,)),))
  with pytest.raises(ValueError, match="2 of 4 videos.*gone.mp4, rate.mp4"):
    study_lib.compress(study, str(folder), str(tmp_path / "out"))
  results = json.loads((tmp_path / "out" / "study.json").read_text())
  assert results["failures"]["rate.mp4"] == "ZeroDivisionError: Fraction(1, 0)"
  assert [row["video"] for row in results["items"]] == [odd[1], "\\xff\\n.mp4"]
  for item in (tmp_path / "out" / "items").iterdir():
    assert item.name.isprintable() and len(item.name) < 200


def test_mistakes_are_refused_before_anything_is_written(videos, tmp_path):
  output = tmp_path / "out"
  refused = lambda study, folder=videos: study_lib.compress(
    study, str(folder), str(output)
  )
  with pytest.raises(ValueError, match="height=47 must be even"):
    refused(_study(height=47))
  with pytest.raises(ValueError, match="--input=.*tower.mp4 is not a folder"):
    refused(_study(), videos / "tower.mp4")
  (tmp_path / "in").mkdir()
  with pytest.raises(ValueError, match="--input=.*in holds no videos: .* .mp4"):
    refused(_study(), tmp_path / "in")
  with pytest.raises(ValueError, match="holds no config.json"):
    refused(_study([str(tmp_path)]))
  assert not output.exists()
  output.mkdir()
  (output / "mine.txt").write_text("")
  with pytest.raises(ValueError, match="out is not empty .*no settings.json"):
    refused(_study())


def test_frames_are_cut_to_the_aspect_before_they_are_resized():
  frame_HWC = np.zeros((40, 120, 3), np.uint8)
  frame_HWC[:, 40:80] = 200  # the central square
  got = study_lib._resize(frame_HWC, 20, 20)
  assert got.shape == (20, 20, 3) and (got[:, 2:-2] == 200).all()


def test_two_workdirs_of_one_name_are_refused(tmp_path):
  study = study_lib.Study(workdirs=("a/m", "b/m"), codecs=())
  with pytest.raises(ValueError, match="--workdirs=a/m,b/m: .* one name"):
    study_lib.compress(study, str(tmp_path), str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()
