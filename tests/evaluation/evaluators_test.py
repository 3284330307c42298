"""Tests of evaluation/evaluators.py and the digit judge."""

import json
import pathlib

import numpy as np
import pytest

from evaluation import evaluators
from evaluation.metrics import digit_judge
from evaluation.protocols import table as protocol_table
from input_pipeline.sources import digits
import magvit


def _clips(split, first, count):
  clips = digits.Digits(split, 5, 16, seed=0)
  examples = [clips[first + i] for i in range(count)]
  return (
    np.stack([e["video"] for e in examples]),
    np.stack([e["label"] for e in examples]),
  )


@pytest.fixture(scope="module")
def held_out():
  return _clips("held_out", 0, 200)


@pytest.fixture(scope="module")
def judge():
  return digit_judge.DigitJudge(*_clips("train", 0, 3000))


def test_reconstruction_counts_the_real_clips_of_a_batch(held_out):
  video = held_out[0][:6]
  offset = lambda batch: {
    "video": np.clip(batch / 255.0, 0, 0.9) + 0.1,
    "ids": np.zeros((len(batch), 1, 2, 2), int),
  }
  batches = [(video[:4], 4), (np.repeat(video[4:5], 4, 0), 1)]
  scores, use = evaluators.evaluate_reconstruction(
    offset, batches, 6, {"split": "held_out"}
  )
  assert scores.protocol["examples"] == 5
  assert scores.protocol["split"] == "held_out"
  np.testing.assert_allclose(scores.metrics["psnr"], 20.0, atol=0.2)
  assert use.metrics["tokens"] == 20 and use.metrics["codes_used"] == 1
  assert scores.protocol["psnr"].startswith("dB, at most 100, per frame")


def test_the_judge_knows_real_held_out_clips(judge, held_out):
  video, label = held_out
  assert (judge.classify(video) == label).mean() >= 0.95
  as_float = (video / 255.0).astype(np.float32)
  np.testing.assert_array_equal(judge.classify(as_float), judge.classify(video))


def test_the_judge_is_at_chance_without_a_digit(judge):
  noise = np.random.default_rng(0).random((200, 5, 16, 16, 3))
  label = np.arange(200) % 10
  assert (judge.classify(noise) == label).mean() < 0.3
  judge.classify(np.zeros((2, 5, 16, 16, 3)))  # black has no centre: no error


def test_motion_features_follow_the_centre(judge):
  video = np.zeros((1, 5, 16, 16, 3))
  for t in range(5):
    video[0, t, 4 + t, 8] = 1.0
  motion = judge.features(video)["motion"].reshape(5, 2)
  np.testing.assert_allclose(motion[:, 0], (4.5 + np.arange(5)) / 16, atol=1e-4)
  np.testing.assert_allclose(motion[:, 1], 8.5 / 16, atol=1e-4)


def test_real_clips_as_samples_score_like_real_clips(judge, held_out):
  video, label = held_out
  by_class = {c: video[label == c] for c in range(10)}

  def sample(task, labels, clips, seed):
    assert task == "class_conditional" and (clips == 0).all()
    rng = np.random.default_rng(seed)
    chosen = [by_class[c][rng.integers(len(by_class[c]))] for c in labels]
    return {"video": np.stack(chosen) / 255.0}

  result, distance = evaluators.evaluate_class_samples(
    sample, judge, video, label, 3, 8, 0, {}
  )
  assert result.metrics["class_accuracy"] >= 0.9
  assert result.metrics["baseline_class_accuracy"] == 0.1
  assert result.protocol["baseline"] == "random class"
  assert result.protocol["examples"] == 30
  assert distance.metrics["frechet_appearance_distance"] > 0
  assert distance.protocol["real_examples"] == 200


def test_a_perfect_completion_beats_the_trivial_one(held_out):
  video = held_out[0][:10]
  given = np.zeros((5, 16, 16), bool)
  given[:2] = True
  result = evaluators.evaluate_completion(
    lambda task, labels, clips, seed: {"video": clips / 255.0},
    "frame_prediction",
    given,
    video,
    held_out[1][:10],
    4,
    0,
    {},
  )
  assert result.metrics["hidden_psnr"] == 100.0
  assert result.metrics["baseline_hidden_psnr"] < 40.0
  assert result.protocol["baseline"] == "last given frame repeated"


def test_trivial_completions_use_the_given_pixels_only():
  video = np.arange(4.0).reshape(1, 4, 1, 1, 1) * np.ones((1, 4, 4, 4, 3)) / 4
  frames = np.zeros((4, 4, 4), bool)
  frames[:2] = True
  _, filled = evaluators.trivial_completion(video, frames)
  np.testing.assert_array_equal(filled[0, :, 0, 0, 0], [0, 0.25, 0.25, 0.25])
  border = np.ones((4, 4, 4), bool)
  border[:, 1:3, 1:3] = False
  hidden = video.copy()
  hidden[:, :, 1:3, 1:3] = 9.0
  name, filled = evaluators.trivial_completion(hidden, border)
  np.testing.assert_allclose(filled, video)
  assert name.startswith("mean of the given pixels")


def test_a_completion_is_asked_for_with_the_classes_of_the_clips():
  video = np.zeros((6, 3, 16, 16, 3), np.uint8)
  label = np.arange(6)
  seen = []

  def sample(task, labels, clips, seed):
    seen.extend(labels)
    return {"video": clips / 255.0}

  given = np.zeros((3, 16, 16), bool)
  given[0] = True
  evaluators.evaluate_completion(sample, "x", given, video, label, 3, 0, {})
  assert seen == [0, 1, 2, 3, 4, 5]


def test_frames_between_given_ones_are_interpolated():
  video = np.ones((1, 6, 2, 2, 3)) * 9.0
  video[0, [0, 1, 5]] = np.array([7.0, 1.0, 3.0])[:, None, None, None]
  given = np.zeros((6, 2, 2), bool)
  given[[0, 1, 5]] = True
  name, filled = evaluators.trivial_completion(video, given)
  assert name == "linear interpolation of the given frames"
  np.testing.assert_allclose(filled[0, :, 0, 0, 0], [7, 1, 1.5, 2, 2.5, 3])


def test_the_mean_of_a_moving_strip_is_each_frames_own():
  video = np.tile(np.array([1.0, 2.0, 5.0, 7.0]), (1, 2, 4, 1))[..., None]
  given = np.zeros((2, 4, 4), bool)
  given[0, :, :2] = given[1, :, 2:] = True
  _, filled = evaluators.trivial_completion(video, given)
  np.testing.assert_allclose(filled[0, 0, 0, :, 0], [1.0, 2.0, 1.5, 1.5])
  np.testing.assert_allclose(filled[0, 1, 0, :, 0], [6.0, 6.0, 5.0, 7.0])


def test_results_are_json_with_their_protocol(tmp_path):
  result = evaluators.Result("psnr", {"psnr": 20.5}, {"split": "held_out"})
  path = result.write(str(tmp_path), 7)
  assert json.loads(pathlib.Path(path).read_text()) == {
    "step": 7,
    "version": magvit.__version__,
    "evaluator": "psnr",
    "metrics": {"psnr": 20.5},
    "protocol": {"split": "held_out"},
  }
  assert result.summary() == "psnr: psnr 20.5"


def test_no_result_of_held_out_clips_has_the_name_of_a_protocol(held_out):
  video = held_out[0][:2]
  same = lambda batch: {
    "video": batch / 255.0,
    "ids": np.zeros((len(batch), 1, 2, 2), int),
  }
  results = evaluators.evaluate_reconstruction(same, [(video, 2)], 6, {})
  names = {result.evaluator for result in results}
  assert names == {"held_out_reconstruction", "held_out_codebook"}
  assert not names & protocol_table.PROTOCOLS.keys()


def test_models_that_give_no_numbers_are_refused_by_clip(held_out, judge):
  video, label = held_out[0][:4], held_out[1][:4]
  broken = video / 255.0
  broken[1, 2, 3, 4, 0] = np.nan
  ids = np.zeros((4, 1, 2, 2), int)

  def reconstruct(batch):
    second = batch is batches[1][0]
    return {"video": broken if second else batch / 255.0, "ids": ids}

  batches = [(video.copy(), 4), (video.copy(), 4)]
  with pytest.raises(ValueError, match=r"tions\[5, 2, 3, 4, 0\] is nan"):
    evaluators.evaluate_reconstruction(reconstruct, batches, 6, {})
  with pytest.raises(ValueError, match="at least one clip"):
    evaluators.evaluate_reconstruction(reconstruct, [], 6, {})
  whole = lambda batch: {"video": batch / 255.0, "ids": ids + 6}
  with pytest.raises(ValueError, match=r"ids\[0, 0, 0, 0\] is 6.* 0\.\.5"):
    evaluators.evaluate_reconstruction(whole, batches, 6, {})
  sample = lambda task, label, clips, seed: {"video": broken}
  with pytest.raises(ValueError, match=r"samples\[1, 2, 3, 4, 0\] is nan"):
    evaluators.evaluate_class_samples(sample, judge, video, label, 4, 4, 0, {})
  given = np.zeros((5, 16, 16), bool)
  given[:2] = True
  with pytest.raises(ValueError, match=r"samples\[1, 2, 3, 4, 0\] is nan"):
    evaluators.evaluate_completion(
      sample, "frame_prediction", given, video, label, 4, 0, {}
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None])
def test_scores_that_are_no_numbers_are_no_result(value):
  with pytest.raises(ValueError, match=f"a: b={value} must be a finite number"):
    evaluators.Result("a", {"b": value}, {})
