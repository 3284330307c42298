"""Tests of magvit/scoring/model.py."""

import numpy as np
import pytest

from input_pipeline import pipeline
from magvit.modes import offline
from magvit.scoring import model as scored_model
from tests import tiny
from tests import untrained


@pytest.fixture(scope="module")
def generator(tiny_tokenizer_workdir, tmp_path_factory):
  config = tiny.masked(tiny_tokenizer_workdir)
  workdir = str(tmp_path_factory.mktemp("generator") / "run")
  untrained.write(workdir, config)
  return offline.open_model(workdir, config)


@pytest.mark.parametrize(
  "task, whole",
  [
    ("frame_prediction", [0, 1, 2]),
    ("interpolation", [0, 4]),
    ("central_inpainting", []),
  ],
)
def test_clips_through_the_tokens_get_what_completions_get(
  generator, task, whole
):
  """The bound beside a completion carries the same detail, or none."""
  sampling = generator.config.sampling
  clips = pipeline.source(generator.config.dataset, "held_out")
  video = np.stack([clips[i]["video"] for i in range(2)])
  model = scored_model.Model(generator)
  plain = model.tokenized(video, task)
  sampling.carry_detail = True
  try:
    carried = model.tokenized(video, task)
  finally:
    sampling.carry_detail = False
  true = video / np.float32(255)
  np.testing.assert_allclose(carried[:, whole], true[:, whole], atol=1e-6)
  assert np.abs(plain - true).mean() > 0.01
  changed = np.abs(carried - plain).mean((0, 2, 3, 4)) > 1e-3
  np.testing.assert_array_equal(changed, np.full(5, bool(whole)))
