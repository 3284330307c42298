"""Tests of completions: what counts, and what they are compared with."""

import numpy as np
import pytest

from evaluation import evaluators
from evaluation.protocols import completions
from evaluation.protocols import measures
from evaluation.protocols import table as protocol_table
from models.features import networks as feature_networks

_PREDICTION = completions.Given("frame_prediction", [True, True, False, False])
_INTERPOLATION = completions.Given("interpolation", [True, False, False, True])
_POOL = feature_networks.NETWORKS["squeezenet"].dims["pool"]


class _Network:
  """Features that are the mean of the frame, and distances of those."""

  def __call__(self, batch):
    mean = batch.reshape(len(batch), -1).mean(1, keepdims=True)
    return {"pool": np.repeat(mean, _POOL, 1).astype(np.float32)}

  def distance(self, target, output):
    return np.abs(self(target)["pool"] - self(output)["pool"]).mean(1)


def _clips(*levels):
  """Clips (N, 4, 2, 2, 3) of grey frames."""
  levels = np.array(levels, np.uint8)[..., None, None, None]
  return np.broadcast_to(levels, (*levels.shape[:2], 2, 2, 3)).copy()


def _darker(video):
  """A tokenizer that loses ten levels, where there are as many."""
  return np.maximum(video, 10) - np.uint8(10)


def _rows(video, completed, given):
  return completions.rows(video, completed, given, _Network(), _darker)


def _scores(video, completed, given):
  rows = _rows(video, completed, given)
  protocol = protocol_table.get(f"squeezenet_{given.task}")
  real = measures.Real()
  scores = measures.measure(protocol, [rows], real)
  assert not measures.left_out(protocol, scores, rows, real)
  return scores


def test_only_hidden_frames_count_and_a_still_is_what_prediction_beats():
  video = _clips([0, 50, 60, 70], [0, 20, 30, 40], [9, 9, 9, 9])
  completed = video.copy()
  completed[:, :2] = 255  # given frames, as a tokenizer may decode them
  scores = _scores(video, completed, _PREDICTION)
  assert scores["hidden_psnr"] == 100.0 and scores["squeezenet_distance"] == 0
  assert abs(scores["squeezenet_frechet"]) < 1e-6
  np.testing.assert_allclose(  # frame 1 stays: 10 and 20 levels off, or none
    scores["baseline_squeezenet_distance"], (15 + 15 + 0) / 3
  )
  assert 20 < scores["baseline_hidden_psnr"] < 100
  assert scores["baseline_squeezenet_frechet"] > 1
  assert scores["baseline_squeezenet_frechet_differences"] > 1
  # Through the tokens the true clips are 10 levels off, the stills more, where
  # they stay behind, and those of the level 9 lose it.
  np.testing.assert_allclose(
    scores["tokenized_squeezenet_distance"], (10 + 10 + 9) / 3
  )
  np.testing.assert_allclose(
    scores["tokenized_baseline_squeezenet_distance"], (25 + 25 + 9) / 3
  )
  assert abs(scores["tokenized_squeezenet_frechet_differences"]) < 1e-6
  assert _PREDICTION.baseline == "last given frame repeated"
  assert _PREDICTION.numbers == [0, 1]


def test_linear_interpolation_is_what_interpolation_beats():
  video = _clips([0, 30, 60, 90], [0, 10, 20, 90])
  scores = _scores(video, video[:, ::-1], _INTERPOLATION)
  np.testing.assert_allclose(  # the first clip is linear
    scores["baseline_squeezenet_distance"], (0 + 30) / 2
  )
  np.testing.assert_allclose(scores["squeezenet_distance"], (30 + 10) / 2)
  assert "linear interpolation" in _INTERPOLATION.baseline
  np.testing.assert_array_equal(
    _INTERPOLATION.fill(video)[1, :, 0, 0, 0], [0, 30, 60, 90]
  )


def test_one_hidden_frame_has_no_differences_and_the_result_says_so():
  given = completions.Given("interpolation", [True, False, True])
  video = _clips([0, 1, 2, 3], [5, 6, 7, 8], [0, 0, 0, 0])[:, :3]
  rows = _rows(video, video, given)
  protocol = protocol_table.get("squeezenet_interpolation")
  scores = measures.measure(protocol, [rows], measures.Real())
  reasons = measures.left_out(protocol, scores, rows, measures.Real())
  name = "squeezenet_frechet_differences"
  assert set(reasons) == {f"{start}{name}" for start in completions.STARTS}


@pytest.mark.parametrize("frames", [[True, True], [False, False]])
def test_a_task_that_gives_all_or_nothing_is_refused(frames):
  with pytest.raises(ValueError, match=r"gives [02] of 2 frames"):
    completions.Given("interpolation", frames)


def test_clips_of_another_length_are_refused():
  video = _clips([0, 1, 2, 3])
  with pytest.raises(ValueError, match="clips of 3 frames .* makes 4"):
    _rows(video[:, :3], video[:, :3], _PREDICTION)


def test_training_and_protocols_have_one_trivial_completion():
  video = _clips([0, 30, 60, 91])
  given_THW = np.zeros((4, 2, 2), bool)
  given_THW[[0, 3]] = True
  name, filled = evaluators.trivial_completion(video / 255.0, given_THW)
  assert name == _INTERPOLATION.baseline
  np.testing.assert_allclose(
    _INTERPOLATION.fill(video) / 255.0, filled, atol=0.5 / 255
  )
