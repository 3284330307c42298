"""Tests that what can be known before the first step is checked before it."""

import logging
import types

import numpy as np
from PIL import Image
import pytest

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.training import check
from magvit.training import loop
from models.weights import safetensors_file
from tests import tiny


def _write_pictures(folder, train=4, held_out=2):
  for split, count in (("train", train), ("held_out", held_out)):
    (folder / split / "cats").mkdir(parents=True)
    for i in range(count):
      Image.new("RGB", (20, 18), (i, 0, 0)).save(
        folder / split / "cats" / f"{i}.png"
      )


def _images(folder, **changes):
  config = tiny.tokenizer(temporal=False)
  config.dataset.name, config.dataset.format = "mine", "auto"
  config.dataset.path = str(folder)
  config.dataset.eval_examples = 2
  config.update_from_flattened_dict(changes)
  return config


def _refused(config, workdir, match):
  with pytest.raises(ValueError, match=match):
    loop.train(config, str(workdir))
  assert not workdir.exists()


@pytest.mark.parametrize(
  "changes, expected",
  [
    (
      {"dataset.eval_examples": 3},
      "eval_examples=3 is more than the 2 held-out .*eval_examples=2",
    ),
    ({"dataset.stride": 2, "dataset.format": "embedded"}, "is not read"),
    ({"profile_steps": (3, 9)}, "among the steps 1 to num_steps=6"),
    ({"optimizer.warmup_steps": 6}, "warmup_steps=6 must be below num_steps=6"),
    ({"evaluation.protocols": ("fid",)}, "protocol 'fid' must be one of"),
    (
      {"evaluation.protocols": ("adm_imagenet",)},
      "'adm_imagenet', which measures samples, .* generates none: remove it",
    ),
    (
      {"evaluation.protocols": ("squeezenet_interpolation",)},
      "interpolation', which measures completions, .* generates none: remove",
    ),
    (
      {"evaluation.protocols": ("rfid_imagenet_val",)},
      "inception_weights='' is no file, .*needs it: .*models.weights.convert",
    ),
    ({"evaluation.lpips_weights": "/none"}, "lpips_weights='/none' is no file"),
  ],
)
def test_a_run_that_would_fail_later_is_refused(tmp_path, changes, expected):
  _write_pictures(tmp_path / "data")
  config = _images(tmp_path / "data", **changes)
  _refused(config, tmp_path / "run", expected)


def test_weights_of_another_network_are_refused_unread(tmp_path):
  path = str(tmp_path / "w.safetensors")
  safetensors_file.save(path, "i3d", {"a": np.zeros(1, np.float32)}, {})
  changes = {
    "evaluation.protocols": ("rfid_imagenet_val",),
    "evaluation.inception_weights": path,
  }
  _write_pictures(tmp_path / "data")
  expected = "inception_weights: .*holds the weights of 'i3d', expected"
  config = _images(tmp_path / "data", **changes)
  _refused(config, tmp_path / "run", expected)


def test_protocols_are_for_the_model_that_they_measure(tiny_tokenizer_workdir):
  config = tiny.masked(tiny_tokenizer_workdir)
  mesh = mesh_lib.make_mesh(config.mesh)
  config.evaluation.protocols = ("reconstruction",)
  with pytest.raises(ValueError, match="reconstructions, and .* makes samples"):
    check.check_config(config, mesh)
  config.tasks.frame_prediction = 0.0
  for name in ("bair_fvd", "squeezenet_frame_prediction"):
    config.evaluation.protocols = (name,)
    with pytest.raises(ValueError, match="has tasks.frame_prediction=0: rem"):
      check.check_config(config, mesh)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_the_first_clip_of_each_split_is_read(tmp_path, split):
  _write_pictures(tmp_path / "data")
  (tmp_path / "data" / split / "cats" / "0.png").write_bytes(b"no picture")
  config = _images(tmp_path / "data")
  _refused(config, tmp_path / "run", f"{split}/cats/0.png")


def test_pictures_are_too_short_for_clips(tmp_path):
  _write_pictures(tmp_path / "data")
  config = _images(tmp_path / "data", **{"dataset.frames": 5})
  config.tokenizer.temporal = True
  config.tokenizer.temporal_downsample = (True,)
  _refused(
    config, tmp_path / "run", "is a picture, and a clip .*frames=5: take a row"
  )


def test_a_disk_without_room_is_refused(tmp_path, monkeypatch):
  config = tiny.tokenizer()
  mesh = mesh_lib.make_mesh(config.mesh)
  algorithm = trained_lib.build(config, mesh)
  assert check.check_room(algorithm, str(tmp_path)) is None
  full = types.SimpleNamespace(free=0)
  monkeypatch.setattr(check.shutil, "disk_usage", lambda path: full)
  with pytest.raises(ValueError, match="0.0 GB free, and a checkpoint takes"):
    check.check_room(algorithm, str(tmp_path))


def test_the_log_says_which_data_and_how_much(tmp_path, caplog):
  _write_pictures(tmp_path / "data")
  caplog.set_level(logging.INFO)
  data = tmp_path / "data"
  check.check_data(_images(data), str(tmp_path / "run"), training=True)
  lines = [r.message for r in caplog.records]
  assert lines == [
    f"data: 'mine', files of the folder {data}; 1 classes (cats)",
    f"data: trains on 4 clips of {data}/train, 16 x 16 pixels, crop 'random'",
    f"data: evaluates 2 of 2 held-out clips of {data}/held_out, 16 x 16"
    " pixels, crop 'centre'",
    "WARNING: batch_size=8 is more than the 4 training clips, so that a step"
    " sees some of them more than once",
  ]
  caplog.clear()
  check.check_data(tiny.tokenizer(), str(tmp_path / "run"), training=True)
  lines = [r.message for r in caplog.records]
  assert lines[0].startswith("data: 'digits', embedded, made as it is read; 10")
  assert lines[1:] == [
    "data: trains on endlessly many clips, 5 frames of 16 x 16 pixels",
    "data: evaluates 10 of endlessly many held-out clips, 5 frames of"
    " 16 x 16 pixels",
  ]


def test_a_run_that_began_with_a_field_in_vain_goes_on_and_says_so(
  tiny_tokenizer_workdir, caplog
):
  config = tiny.tokenizer()
  config.dataset.path = "/my/videos"
  check.check_data(config, tiny_tokenizer_workdir, training=True)
  assert "WARNING: dataset.path='/my/videos' is not read" in caplog.text
