"""Workdirs that a report is written of."""

import json

import numpy as np
import pytest

from evaluation.show import pictures
from tests.evaluation.show import workdirs


@pytest.fixture
def fresh(tmp_path):
  """The workdir of an experiment that has only just started."""
  workdir = tmp_path / "fresh"
  workdir.mkdir()
  (workdir / "config.json").write_text(
    json.dumps({"name": "digits", "algorithm": "tokenizer", "num_steps": 40})
  )
  return workdir


@pytest.fixture
def finished(fresh):
  """A workdir with everything in it."""
  workdirs.write_lines(
    fresh,
    *({"step": s, "time": 1.5, "reconstruction": 1 / s} for s in range(1, 41)),
    {"step": 40, "eval/psnr": 25.125, "eval/reconstruction": 0.5},
  )
  workdirs.write_result(
    fresh, "a", "reconstruction", 40, {"psnr": 25.125}, examples=256
  )
  workdirs.write_result(
    fresh, "b", "codebook", 40, {"usage": 0.5, "tokens": 65536}, split="test"
  )
  samples = fresh / "samples"
  clip_THWC = np.zeros((2, 4, 4, 3), np.uint8)
  clip_THWC[1] = 255
  pictures.write_gif(samples / "z.gif", clip_THWC, scale=1)
  pictures.write_png(samples / "a.png", clip_THWC[0], scale=1)
  (samples / "captions.json").write_text(
    json.dumps(
      {
        "z.gif": {"title": "Moving", "caption": "shown first"},
        "a.png": {"title": "Still", "caption": "shown second"},
      }
    )
  )
  return fresh
