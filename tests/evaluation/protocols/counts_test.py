"""Tests of evaluation/protocols/counts.py: clips are counted, not repeated."""

import dataclasses
import json
import logging

import numpy as np
from PIL import Image
import pytest

from evaluation.protocols import clips as clips_lib
from evaluation.protocols import run as protocol_run
from evaluation.protocols import table as protocol_table
from tests import tiny

_HELD_OUT = 12


class _Model:
  """A tokenizer that changes nothing and gives each clip ids of its own."""

  step, batch_size, generates, vocabulary = 3, 4, False, 256

  def __init__(self, config):
    self.config = config
    self.encoded = []

  def describe(self):
    return {"name": "mock"}

  def reconstructions(self, protocol, originals):
    return clips_lib.reconstruct_clips(
      lambda video: video / np.float32(255),
      *(self.describe(), protocol, originals, self.batch_size),
    )

  def encode(self, video):
    self.encoded += video[:, 0, 0, 0, 0].tolist()
    return video[:, :1, :1, :1, 0].astype(np.int32)


@pytest.fixture
def model(tmp_path):
  """A model on a folder of images, each of one grey level, 12 held out."""
  for split, count in (("train", 3), ("val", _HELD_OUT)):
    (tmp_path / "set" / split / "a").mkdir(parents=True)
    for i in range(count):
      image_HWC = np.full((16, 16, 3), 10 * i, np.uint8)
      Image.fromarray(image_HWC).save(
        tmp_path / "set" / split / "a" / f"{i}.png"
      )
  config = tiny.tokenizer()
  config.dataset.update(
    *({"name": "mine", "format": "auto", "path": str(tmp_path / "set")},),
    **dict(frames=1, size=16, eval_examples=_HELD_OUT),
  )
  return _Model(config)


def _score(tmp_path, model, protocol="codebook", **fields):
  request = protocol_run.Request(protocol, **fields)
  return protocol_run.score(
    str(tmp_path / "run"), request, model.config, lambda: model
  )


@pytest.mark.parametrize("num", [13, 9999])
def test_more_clips_than_there_are_is_an_error_that_counts_them(
  model, tmp_path, num
):
  with pytest.raises(
    ValueError, match=f"--num={num} .*the 12 clips that .*'mine' has in held_"
  ):
    _score(tmp_path, model, num=num)
  assert not model.encoded and not (tmp_path / "run").exists()


def test_more_eval_examples_than_there_are_name_their_field(model, tmp_path):
  model.config.dataset.eval_examples = 256
  with pytest.raises(ValueError, match="eval_examples=256 .* the 12 clips"):
    _score(tmp_path, model)


def test_counts_and_seeds_have_files_of_their_own(model, tmp_path):
  names = [
    _score(tmp_path, model, **fields).evaluator
    for fields in ({}, {"num": 12}, {"num": 8}, {"seed": 5})
  ]
  assert names == ["codebook", "codebook", "codebook@8x1", "codebook@seed=5"]
  results = tmp_path / "run" / "results"
  counts = {
    path.stem: json.loads(path.read_text())["metrics"]["codes_used"]
    for path in results.iterdir()
  }
  assert counts == {"codebook": 12, "codebook@8x1": 8, "codebook@seed=5": 12}


def test_a_table_of_more_clips_takes_all_there_are_and_says_so(model, tmp_path):
  """Its own number is for its own data set."""
  everything = dataclasses.replace(
    protocol_table.get("codebook"), num=500, dataset="imagenet"
  )
  result = protocol_run._Run(
    *(str(tmp_path / "run"), everything, protocol_run.Request("codebook")),
    *(model.config, lambda: model, None, False),
  ).result()
  assert result.evaluator == "codebook@12x1,dataset=mine"
  assert result.protocol["real_clips_again"] == 0
  assert result.metrics["codes_used"] == 12


def test_clips_that_a_protocol_reads_in_turn_are_counted(model, tmp_path):
  in_turn = dataclasses.replace(
    protocol_table.get("codebook"), num=20, dataset="mine", in_turn=True
  )
  result = protocol_run._Run(
    *(str(tmp_path / "run"), in_turn, protocol_run.Request("codebook")),
    *(model.config, lambda: model, None, False),
  ).result()
  assert result.evaluator == "codebook"
  assert result.protocol["real_clips_again"] == 8
  assert result.metrics["tokens"] == 20


def test_scores_that_were_not_measured_say_why(model, tmp_path, caplog):
  with caplog.at_level(logging.INFO):
    result = _score(tmp_path, model, "reconstruction")
  assert result.protocol["left_out"] == {
    "ms_ssim": "needs frames of at least 161 pixels a side",
    "lpips": "needs weights of LPIPS, which were not given",
  }
  assert "reconstruction: no lpips, which needs weights of LPIPS" in caplog.text


def test_another_input_of_the_same_name_is_said_to_replace_the_first(
  tmp_path, caplog
):
  for name in ("a", "b"):
    np.savez(tmp_path / f"{name}.npz", arr_0=np.full((2, 16, 16, 3), 9, "u1"))
  score = lambda made: protocol_run.score(
    str(tmp_path),
    protocol_run.Request(
      "reconstruction",
      input=str(tmp_path / made),
      reference=str(tmp_path / "a.npz"),
    ),
  )
  score("a.npz")
  score("a.npz")
  assert "replaces" not in caplog.text
  score("b.npz")
  assert "reconstruction.json replaces the scores of" in caplog.text


def test_another_folder_is_measured_whole_under_a_name_of_its_own(
  model, tmp_path
):
  (tmp_path / "other" / "val" / "a").mkdir(parents=True)
  (tmp_path / "other" / "train" / "a").mkdir(parents=True)
  for i in range(5):
    image = Image.fromarray(np.full((16, 16, 3), 7 * i, np.uint8))
    for split in ("train", "val"):
      image.save(tmp_path / "other" / split / "a" / f"{i}.png")
  other = str(tmp_path / "other")
  result = _score(tmp_path, model, data=other)
  assert result.evaluator == "codebook@data=other"
  assert result.metrics["codes_used"] == 5
  assert result.protocol["real_clips"]["dataset"]["path"] == other
  assert model.config.dataset.eval_examples == _HELD_OUT
  with pytest.raises(ValueError, match="--data=.* and --reference=.* both"):
    _score(tmp_path, model, data=other, reference=other)
  model.config.dataset.format = "embedded"
  with pytest.raises(ValueError, match="--data=.* is embedded: leave it out"):
    _score(tmp_path, model, data=other)
