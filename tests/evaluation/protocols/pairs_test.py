"""Tests of evaluation/protocols/run.py: which clips are compared with which."""

import dataclasses
import os

import numpy as np
from PIL import Image
import pytest

from evaluation.protocols import run as protocol_run


def _pixels(seed, *shape):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_reconstructions_are_paired_with_originals_by_name(tmp_path):
  for folder, noise in (("real", 0), ("made", 1)):
    (tmp_path / folder).mkdir()
    for i in range(3):
      pixels = _pixels(i, 16, 16, 3) // 2 + noise
      Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
  fields = dict(input=str(tmp_path / "made"), reference=str(tmp_path / "real"))
  request = protocol_run.Request("reconstruction", **fields)
  result = protocol_run.score(str(tmp_path), request)
  np.testing.assert_allclose(
    result.metrics["psnr"], 20 * np.log10(255), rtol=1e-9
  )
  assert set(result.metrics) >= {"ssim_rgb", "ssim_magvit_gray"}
  (tmp_path / "made" / "0.png").rename(tmp_path / "made" / "4.png")
  with pytest.raises(ValueError, match="--reference.* 0 .*--input.* 1"):
    protocol_run.score(str(tmp_path), request)


def _folders(tmp_path, count, noise=1):
  """Two folders of images, made and real, and their .npz in natural order."""
  real = _pixels(0, count, 16, 16, 3) // 2
  sets = {"real": real, "made": real + noise}
  for name, images in sets.items():
    (tmp_path / name).mkdir()
    for i, image_HWC in enumerate(images):
      Image.fromarray(image_HWC).save(tmp_path / name / f"{i}.png")
    np.savez(tmp_path / f"{name}.npz", arr_0=images)
  return {k: str(tmp_path / k) for k in (*sets, "real.npz", "made.npz")}


def test_no_clip_is_compared_with_an_original_that_nothing_names(tmp_path):
  """Natural order puts 10.png last in a folder, as in the .npz."""
  paths = _folders(tmp_path, 12)
  score = lambda made, real: protocol_run.score(
    str(tmp_path),
    protocol_run.Request(
      "reconstruction", input=paths[made], reference=paths[real]
    ),
  )
  for made, real, pairs in (
    ("made", "real", "by name of the file"),
    ("made.npz", "real.npz", "by number of the row"),
  ):
    result = score(made, real)
    assert result.protocol["pairs"] == pairs
    np.testing.assert_allclose(result.metrics["psnr"], 20 * np.log10(255))
  for made, real in (("made", "real.npz"), ("made.npz", "real")):
    with pytest.raises(ValueError, match="two folders.*two .npz"):
      score(made, real)
  np.savez(paths["made.npz"], arr_0=_pixels(0, 11, 16, 16, 3))
  with pytest.raises(ValueError, match="--reference has 12 .*--input 11"):
    score("made.npz", "real.npz")


def test_files_that_share_a_name_are_not_paired(tmp_path):
  """a.jpg, a.png against a.png, a.webp: in order, other pictures would meet."""
  paths = _folders(tmp_path, 2)
  (tmp_path / "real" / "0.png").rename(tmp_path / "real" / "1.jpg")
  request = protocol_run.Request(
    "reconstruction", input=paths["real"], reference=paths["made"]
  )
  with pytest.raises(ValueError, match="--input has 2 files named 1, which"):
    protocol_run.score(str(tmp_path), request)
  request = dataclasses.replace(
    request, input=paths["made"], reference=paths["real"]
  )
  with pytest.raises(ValueError, match="--reference has 2 files named 1, whi"):
    protocol_run.score(str(tmp_path), request)


def test_a_part_without_a_readable_clip_is_no_difference_in_size(tmp_path):
  paths = _folders(tmp_path, 3)
  for number in range(3):
    (tmp_path / "made" / f"{number}.png").write_bytes(b"no picture")
  request = protocol_run.Request(
    "reconstruction", input=paths["made"], reference=paths["real"]
  )
  with pytest.raises(ValueError, match="3 of 3 clips .*0.png: cannot read"):
    protocol_run.score(str(tmp_path), request)


def test_a_folder_survives_whatever_one_of_its_files_is(tmp_path):
  paths = _folders(tmp_path, 4)
  for number, spoil in enumerate(
    (
      lambda path: path.write_bytes(b"no picture"),
      lambda path: path.symlink_to(tmp_path / "nowhere"),
      os.mkfifo,
    )
  ):
    odd = os.fsdecode(b"x\xff\n") + f"{number}.png"
    Image.fromarray(_pixels(9, 16, 16, 3)).save(tmp_path / "real" / odd)
    spoil(tmp_path / "made" / odd)
    request = protocol_run.Request(
      "reconstruction", input=paths["made"], reference=paths["real"]
    )
    result = protocol_run.score(str(tmp_path), request)
    result.write(str(tmp_path), 0)
    assert list(result.protocol["failures"]) == [f"x\\xff\\n{number}.png"]
    np.testing.assert_allclose(result.metrics["psnr"], 20 * np.log10(255))
    (tmp_path / "made" / odd).unlink()
    (tmp_path / "real" / odd).unlink()
