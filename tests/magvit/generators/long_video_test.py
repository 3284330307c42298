"""Tests of magvit/generators/long_video.py with a model that counts frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit.generators import long_video

_CLIP = 5


def _counting(given):
  """A model whose frames count on from the last given one, with some noise."""

  def predict(video, key):
    ahead = jnp.maximum(jnp.arange(_CLIP) - (given - 1), 0)
    last = video[:, given - 1 : given]
    new = last + ahead[None, :, None, None, None] + jax.random.uniform(key) / 4
    keep = (jnp.arange(_CLIP) < given)[None, :, None, None, None]
    return jnp.where(keep, video, new)

  return jax.jit(predict)


def _first(given):
  frames = jnp.arange(given, dtype=jnp.float32)[None, :, None, None, None]
  return jnp.tile(frames, (2, 1, 4, 4, 3))


@pytest.mark.parametrize(
  "given, frames, lengths",
  [(1, 8, [4, 4]), (3, 5, [2, 2, 1]), (3, 1, [1]), (4, 3, [1, 1, 1])],
)
def test_chunks_go_on_from_the_condition_and_compile_once(
  given, frames, lengths
):
  predict = _counting(given)
  chunks = list(
    long_video.roll(predict, jax.random.key(0), _first(given), frames, _CLIP)
  )
  assert [chunk.shape[1] for chunk in chunks] == lengths
  video = np.concatenate(chunks, 1)
  assert video.shape == (2, frames, 4, 4, 3)
  steps = np.diff(np.concatenate([[given - 1], video[0, :, 0, 0, 0]]))
  assert (steps > 0.5).all() and (steps < 1.5).all()
  assert predict._cache_size() == 1


def test_each_clip_is_given_the_last_frames_of_the_one_before():
  seen = []

  def predict(video, key):
    seen.append(np.asarray(video))
    return jax.random.uniform(key, video.shape)

  first = jax.random.uniform(jax.random.key(1), (2, 2, 4, 4, 3))
  chunks = list(long_video.roll(predict, jax.random.key(0), first, 9, _CLIP))
  history = np.concatenate([first, *chunks], 1)
  for place, video in enumerate(seen):
    start = 3 * place
    np.testing.assert_array_equal(video[:, :2], history[:, start : start + 2])
    assert not video[:, 2:].any()
  assert (chunks[0] != chunks[1]).any()  # each clip has its own key


def test_clips_are_made_only_when_they_are_asked_for():
  calls = []

  def predict(video, key):
    calls.append(1)
    return video

  first = np.zeros((1, 2, 4, 4, 3), np.uint8)
  chunks = long_video.roll(predict, jax.random.key(0), first, 10**9, _CLIP)
  assert not calls
  assert next(chunks).dtype == jnp.float32
  next(chunks)
  assert len(calls) == 2
