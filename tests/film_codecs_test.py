"""Tests of benchmarks/film_codecs.py, on two made clips."""

import json

import numpy as np
import pytest

from benchmarks import film as film_program
from benchmarks import film_bound
from benchmarks import film_codecs
from configs import tokenizer_video

_GRID = (3, 4, 4)


@pytest.mark.parametrize(
  "program, flags",
  [
    (film_codecs, ["--output=result.json"]),
    (film_bound, []),
    (film_program, ["--weights=none"]),
  ],
)
def test_shards_that_are_not_there_are_one_line(
  program, flags, monkeypatch, tmp_path
):
  name = program.__name__.rpartition(".")[2]
  monkeypatch.setattr("sys.argv", [name, f"--shards={tmp_path}/none", *flags])
  with pytest.raises(
    SystemExit, match=f"^{name}: --shards=.*none is no folder"
  ):
    program.main()


def _clips():
  """Two clips of 9 x 32 x 32: a pattern that moves, and a still ramp."""
  y, x = np.indices((32, 32))
  moving = [np.sin((x + 2 * t) / 5.0) * np.cos(y / 6.0) for t in range(9)]
  still = [x / 16.0 - 1.0] * 9
  grey = np.rint(128 + 90 * np.array([moving, still])).astype(np.uint8)
  return np.repeat(grey[..., None], 3, axis=-1)


def test_bicubic_keeps_what_the_small_clip_can_hold():
  flat = np.full((9, 32, 32, 3), 77, np.uint8)
  coded = film_codecs.bicubic(flat, _GRID)
  np.testing.assert_array_equal(coded.video_THWC, flat)
  assert coded.bits == 3 * 4 * 4 * 3 * 8
  moving, still = (film_codecs.bicubic(x, _GRID).video_THWC for x in _clips())
  error = lambda x, y: np.abs(x.astype(float) - y).mean()
  assert error(still, _clips()[1]) < 4 < error(moving, _clips()[0])
  # Frames of a clip that only changes with time are levels between its own.
  fade = np.repeat(np.arange(0, 90, 10, np.uint8), 32 * 32 * 3)
  fade = fade.reshape(9, 32, 32, 3)
  faded = film_codecs.bicubic(fade, _GRID).video_THWC
  assert (np.diff(faded[:, 0, 0, 0].astype(int)) > 0).all()
  assert error(faded, fade) < 6


@pytest.mark.parametrize(
  "limit, expected", [(999, 0), (52, 0), (51, 1), (20, 32), (1, 51), (0, 51)]
)
def test_the_least_parameter_that_fits_is_found(limit, expected):
  calls = []

  def size_at(qp):
    calls.append(qp)
    return 52 - qp

  assert film_codecs.least_qp(size_at, limit) == expected
  assert len(calls) <= 6


def test_ways_are_compared_on_the_same_clips_at_their_rates():
  clips = _clips()
  scores = film_codecs.compare(clips, _GRID, 60.0, lambda video: video)
  assert list(scores) == ["tokens", "bicubic", "x264", "x264_51"]
  pixels = 9 * 32 * 32
  assert scores["tokens"]["psnr"] == 100.0 and scores["tokens"]["ssim"] == 1.0
  np.testing.assert_allclose(
    scores["tokens"]["bits_per_pixel"], 3 * 4 * 4 * 60 / pixels
  )
  assert scores["x264"]["fitting"] == 1.0
  x264, lowest = scores["x264"], scores["x264_51"]
  assert lowest["bits_per_pixel"] < x264["bits_per_pixel"]
  assert x264["bits_per_pixel"] <= scores["tokens"]["bits_per_pixel"]
  assert lowest["psnr"] < x264["psnr"]
  tight = film_codecs.compare(clips, _GRID, 1.0)
  assert list(tight) == ["bicubic", "x264", "x264_51"]
  assert tight["x264"]["fitting"] == 0.0  # so it is at its lowest rate
  assert tight["x264"]["psnr"] == tight["x264_51"]["psnr"] == lowest["psnr"]


class _Tokenizer:
  """Codes clips without a loss, by tokens of 2 x 2 x 2 pixels."""

  step = 7

  def __init__(self):
    self.config = tokenizer_video.get_config("film64")
    self.config.tokenizer.temporal_downsample = (True,)
    self.config.dataset.update({"frames": 9, "size": 32})

  def encode(self, video_BTHWC):
    return video_BTHWC

  def decode(self, ids):
    return ids.astype(np.float32) / 255


@pytest.fixture
def film(monkeypatch, tmp_path):
  """Clips and a tokenizer for programs that read them from folders."""
  clips = [{"video": video} for video in _clips()]
  load = lambda workdir: {"DIR": _Tokenizer()}[workdir]
  monkeypatch.setattr(film_codecs.loaded, "load_tokenizer", load)
  source = lambda *_, **__: clips
  monkeypatch.setattr(film_codecs.pipeline, "source", source)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "FILM").mkdir()


def test_the_program_writes_a_result_of_each_set(film, monkeypatch, tmp_path):
  calls = []

  def source(dataset, split, length, training):
    calls.append((dataset.path, split, length, training))
    return [{"video": video} for video in _clips()]

  monkeypatch.setattr(film_codecs.pipeline, "source", source)
  output = tmp_path / "codecs.json"
  flags = ["--shards=FILM", "--workdir=DIR", f"--output={output}"]
  monkeypatch.setattr("sys.argv", ["film_codecs", *flags])
  with pytest.raises(SystemExit, match="FILM/live_action is no folder; python"):
    film_codecs.main()
  (tmp_path / "FILM/live_action").mkdir()
  film_codecs.main()
  result = json.loads(output.read_text())
  assert result["step"] == 7
  assert calls == [
    ("FILM/", "held_out", None, False),
    ("FILM/", "train", 2, False),
    ("FILM/live_action", "held_out", None, False),
  ]
  for name in ("held_out", "train", "live_action"):
    assert result["metrics"][f"{name}_tokens_psnr"] == 100.0
    assert result["metrics"][f"{name}_bicubic_psnr"] < 50
  assert result["protocol"]["tokens"] == "5x16x16 of 18 bits"


def test_the_bound_of_the_film_is_printed_beside_its_tokenizer(
  film, monkeypatch, capsys
):
  flags = ["--shards=FILM", "--workdir=DIR"]
  monkeypatch.setattr("sys.argv", ["film_bound", *flags])
  with np.errstate(divide="ignore"):  # nothing is lost: infinitely many dB
    film_bound.main()
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "covariances of 2 training clips"
  one, four = (float(line.split()[-2]) for line in lines[1:3])
  assert lines[1].startswith("  Gaussian blocks of 2x2x2, 18 bits:")
  assert lines[2].startswith("  Gaussian blocks of 2x4x4, 72 bits:")
  assert 20 < one < four  # blocks of four share what they have in common
  assert lines[3] == "  the tokenizer, 2 held-out clips: inf dB"
