"""Tests of input_pipeline: what is in a batch, and that it can be repeated."""

import numpy as np
import pytest
from sklearn import datasets

from configs import base
from input_pipeline import pipeline
from input_pipeline.sources import digits
from input_pipeline.sources import photo


def _dataset(**changes):
  dataset = base.tokenizer().dataset
  dataset.update(frames=5, size=16, eval_examples=10)
  dataset.update(changes)
  return dataset


def _take(iterator, n):
  return [next(iterator) for _ in range(n)]


def test_a_clip_is_a_pure_function_of_its_index():
  a, b = (digits.Digits("train", 9, 24, seed=3) for _ in range(2))
  for index in (0, 7, 2**39):
    np.testing.assert_array_equal(a[index]["video"], b[index]["video"])
    assert a[index]["label"] == b[index]["label"]
  assert (a[0]["video"] != a[1]["video"]).any()
  other_seed = digits.Digits("train", 9, 24, seed=4)
  assert (a[0]["video"] != other_seed[0]["video"]).any()


def test_training_and_held_out_scans_never_mix():
  data = datasets.load_digits()
  seen = {}
  for split in ("train", "held_out"):
    images, labels = digits._enlarged(split, 8)
    seen[split] = {(x * 16).astype(int).tobytes() for x in images}
    assert len(images) == {"train": 1500, "held_out": 297}[split]
    assert set(labels) == set(range(10))
  # Scans are compared by content: the set has no duplicates.
  assert len({x.astype(int).tobytes() for x in data.images}) == 1797
  assert not seen["train"] & seen["held_out"]


def test_clips_show_a_whole_digit_that_moves_and_stays_inside():
  clips = digits.Digits("train", 40, 32, seed=0)
  for index in range(20):
    video = clips[index]["video"]
    assert video.shape == (40, 32, 32, 3) and video.dtype == np.uint8
    np.testing.assert_array_equal(video[..., 0], video[..., 2])
    mass = video.astype(float).sum((1, 2, 3))
    np.testing.assert_allclose(mass, mass[0], rtol=0.02)  # nothing is cut off
    # At most 1 / 64 of the frame per frame and axis; light moves with it.
    centre = (video.astype(float).sum(-1) * np.arange(32)).sum((1, 2)) / mass
    assert np.abs(np.diff(centre)).max() < 32 / 64 + 0.05


def test_crossing_digits_go_from_border_to_border_at_constant_speed():
  clips = digits.Digits("train", 17, 16, seed=0, motion="cross")
  crossed = set()
  for index in range(20):
    light = clips[index]["video"][..., 0].astype(float)
    mass = light.sum((1, 2))
    np.testing.assert_allclose(mass, mass[0], rtol=0.02)  # nothing is cut off
    for axis in (1, 2):
      centre = (light.sum(3 - axis) * np.arange(16)).sum(1) / mass
      steps = np.diff(centre)
      np.testing.assert_allclose(steps, steps.mean(), atol=0.03)  # 8 bits
      if abs(abs(centre[-1] - centre[0]) - 4) < 0.05:  # pixels free to move in
        crossed.add((index, axis))
  assert {index for index, _ in crossed} == set(range(20))
  assert {axis for _, axis in crossed} == {1, 2}
  with pytest.raises(ValueError, match="dataset.motion='spin' .*'bounce'"):
    digits.Digits("train", 17, 16, seed=0, motion="spin")


def _centre(frame_HWC):
  light = frame_HWC[..., 0].astype(float)
  return [
    (light.sum(1 - a) * np.arange(16)).sum() / light.sum() for a in (0, 1)
  ]


@pytest.mark.parametrize("motion", ["cross", "drift"])
def test_a_label_of_motion_is_the_direction_and_the_class(motion):
  settings = dict(split="train", frames=17, size=16, seed=0, motion=motion)
  clips = digits.Digits(**settings)
  directed = digits.Digits(**settings, labels="motion")
  names = digits.class_names("motion")
  assert len(names) == 40
  seen = set()
  for index in range(60):
    video, label = directed[index]["video"], int(directed[index]["label"])
    np.testing.assert_array_equal(video, clips[index]["video"])
    assert label % 10 == clips[index]["label"]
    rows, columns = np.subtract(_centre(video[-1]), _centre(video[0]))
    if abs(rows) > abs(columns):
      direction = "down" if rows > 0 else "up"
    else:
      direction = "right" if columns > 0 else "left"
    name = digits.Digits.CLASS_NAMES[label % 10]
    assert names[label] == f"{name} going {direction}"
    seen.add(direction)
  assert len(seen) == 4


def test_where_a_drift_starts_does_not_tell_its_direction():
  """The digits start alike in all directions, and those that cross do not."""

  def starts(motion):
    clips = digits.Digits("train", 2, 16, 0, motion, labels="motion")
    places = {n: [] for n in range(4)}
    for index in range(1200):
      corners = digits._PATHS[motion](
        np.random.default_rng(index), 4, clips._frames, 16
      )
      places[digits._direction(corners)].append(corners[0])
    return np.array([np.mean(x, 0) for x in places.values()])

  spread = np.ptp(starts("drift"), axis=0)
  assert spread.max() < 0.2  # they start within 2 pixels
  assert np.ptp(starts("cross"), axis=0).min() > 3.9


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(labels="motion"), "'motion' needs .*motion='bounce' .*'drift'"),
    (dict(labels="motion", motion="drift", frames=1), "frames=1 has none"),
    (dict(labels="speed"), r"labels='speed' .*\['class', 'motion'\]"),
  ],
)
def test_labels_that_a_motion_does_not_have_are_refused(changes, message):
  settings = dict(split="train", frames=17, size=16, seed=0)
  with pytest.raises(ValueError, match=message):
    digits.Digits(**{**settings, **changes})


def test_few_training_clips_are_the_first_of_an_endless_set_and_come_again():
  dataset = _dataset(train_examples=3, shuffle=True, motion="drift")
  dataset.labels = "motion"
  batches = _take(pipeline.train_batches(dataset, 3), 3)
  clips = digits.Digits("train", 5, 16, 0, "drift", labels="motion")
  first = {
    clips[i]["video"].tobytes(): int(clips[i]["label"]) for i in range(3)
  }
  orders = set()
  for batch in batches:
    shown = {
      video.tobytes(): int(label)
      for video, label in zip(batch["video"], batch["label"], strict=True)
    }
    assert shown == first
    orders.add(tuple(batch["label"].tolist()))
  assert len(orders) > 1  # each epoch is shuffled anew
  assert pipeline.class_names(dataset) == digits.class_names("motion")


def test_every_class_is_drawn():
  clips = digits.Digits("held_out", 1, 16, seed=0)
  assert {int(clips[i]["label"]) for i in range(200)} == set(range(10))


def test_batches_are_consecutive_clips():
  batch = next(pipeline.train_batches(_dataset(), 4))
  clips = digits.Digits("train", 5, 16, seed=0)
  np.testing.assert_array_equal(batch["video"][3], clips[3]["video"])
  assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32


@pytest.mark.parametrize("parts", [[(0,), (1,)], [(0, 1)], [(1,), (0,), (1,)]])
def test_processes_take_their_parts_of_each_global_batch(parts):
  """Order counts: random draws for a place in the batch meet the same clip."""
  whole = _take(pipeline.train_batches(_dataset(), 4), 3)
  for mine in parts:
    got = _take(pipeline.train_batches(_dataset(), 4, mine, 2), 3)
    for batch, share in zip(whole, got, strict=True):
      expected = [batch["video"][2 * k : 2 * k + 2] for k in mine]
      np.testing.assert_array_equal(share["video"], np.concatenate(expected))


def test_an_iterator_goes_on_where_its_state_was_taken():
  data = pipeline.train_batches(_dataset(), 4)
  _take(data, 3)
  state = data.get_state()
  expected = _take(data, 2)
  resumed = pipeline.train_batches(_dataset(), 4)
  resumed.set_state(state)
  for a, b in zip(expected, _take(resumed, 2), strict=True):
    np.testing.assert_array_equal(a["video"], b["video"])


def test_evaluation_batches_have_one_shape_and_drop_nothing():
  clips = digits.Digits("held_out", 5, 16, seed=0)
  batches = list(pipeline.eval_batches(_dataset(), "held_out", 10, 4))
  assert [n for _, n in batches] == [4, 4, 2]
  assert all(b["video"].shape == (4, 5, 16, 16, 3) for b, _ in batches)
  for i in range(10):
    batch, place = batches[i // 4][0], i % 4
    np.testing.assert_array_equal(batch["video"][place], clips[i]["video"])


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(name="mnist"), "dataset.name='mnist' .*'digits'"),
    (dict(size=20), "dataset.size=20 .* 8, .* 16"),
    (dict(frames=0), "dataset.frames=0 .* 1"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  dataset = _dataset()
  dataset.update(changes)
  with pytest.raises(ValueError, match=message):
    pipeline.source(dataset, "train")


def test_unknown_splits_and_uneven_batches_are_refused():
  with pytest.raises(ValueError, match="split='test'"):
    pipeline.source(_dataset(), "test")
  with pytest.raises(ValueError, match="batch_size=5 .* 2 devices"):
    pipeline.train_batches(_dataset(), 5, (0,), 2)


def test_images_of_joint_training_come_beside_the_clips():
  dataset = _dataset(joint_images=6)
  batches = _take(pipeline.train_batches(dataset, 4), 2)
  alone = _take(pipeline.train_batches(_dataset(), 4), 2)
  for batch, clips in zip(batches, alone, strict=True):
    assert batch["image"].shape == (6, 1, 16, 16, 3)
    np.testing.assert_array_equal(batch["video"], clips["video"])
  # Images are not the clips' first frames, and differ in the next batch.
  first = batches[0]["video"][:, :1]
  assert not (batches[0]["image"][:4] == first).all((1, 2, 3, 4)).any()
  assert (batches[0]["image"] != batches[1]["image"]).any()


def test_processes_share_the_images_of_joint_training():
  dataset = _dataset(joint_images=2)
  whole = next(pipeline.train_batches(dataset, 4))["image"]
  parts = [
    next(pipeline.train_batches(dataset, 4, (index,), 2))["image"]
    for index in range(2)
  ]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  with pytest.raises(ValueError, match="dataset.joint_images=2 .* 3 devices"):
    pipeline.train_batches(dataset, 6, (0,), 3)


def test_the_photo_is_one_moving_clip():
  clip = photo.Photo("train", 5, 32, seed=0)[0]["video"]
  assert clip.shape == (5, 32, 32, 3) and clip.dtype == np.uint8
  assert clip.std() > 50  # a picture, not one colour
  again = photo.Photo("held_out", 5, 32, seed=1)[7]["video"]
  np.testing.assert_array_equal(clip, again)
  assert all(
    (a != b).mean() > 0.5 for a, b in zip(clip, clip[1:], strict=False)
  )
