"""Tests of magvit/tokenizer/frames.py: number and size are kept."""

from jax.errors import JaxRuntimeError
import numpy as np
import pytest

from evaluation.show import pictures
from magvit.tokenizer import describe
from magvit.tokenizer import frames as frames_lib
from magvit.tokenizer import loaded
from tests import tiny


class Exact:
  """A tokenizer that loses nothing; it remembers the shapes it was given."""

  def __init__(self, config):
    self.config = config
    self.shapes = []

  def encode(self, video_BTHWC):
    self.shapes.append(video_BTHWC.shape)
    self.last_BTHWC = video_BTHWC
    return video_BTHWC

  def decode(self, video_BTHWC):
    return video_BTHWC / np.float32(255.0)

  def encode_stream(self, chunks):
    self.last_BTHWC = np.concatenate(list(chunks), axis=1)
    return iter([self.last_BTHWC])

  def decode_stream(self, chunks):
    return map(self.decode, chunks)


def _clip(frames, height, width):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 6), (5, 6, 8), (2, 7, 3)])
def test_every_frame_comes_out_in_its_size(temporal, shape):
  tokenizer = Exact(tiny.tokenizer(temporal))
  clip = _clip(*shape)
  pairs = list(frames_lib.reconstruct_frames(tokenizer, iter(clip)))
  originals, outputs = (np.stack(x) for x in zip(*pairs, strict=True))
  np.testing.assert_array_equal(originals, clip)
  np.testing.assert_array_equal(outputs, clip)


def test_padding_repeats_the_edge_and_the_last_frame():
  tokenizer = Exact(tiny.tokenizer())
  clip = _clip(2, 3, 5)
  list(frames_lib.reconstruct_frames(tokenizer, iter(clip)))
  padded = tokenizer.last_BTHWC[0]
  assert padded.shape == (3, 4, 6, 3)
  np.testing.assert_array_equal(padded[:2, :3, :5], clip)
  np.testing.assert_array_equal(padded[2], padded[1])
  np.testing.assert_array_equal(padded[:, 3], padded[:, 2])
  np.testing.assert_array_equal(padded[:, :, 5], padded[:, :, 4])
  assert describe.padded_shape(tokenizer.config, (2, 3, 5)) == (3, 4, 6)


def test_a_tokenizer_of_images_codes_groups_of_single_frames(monkeypatch):
  monkeypatch.setattr(frames_lib, "_PIXELS_AT_ONCE", 60)
  tokenizer = Exact(tiny.tokenizer(temporal=False))
  clip = _clip(7, 4, 5)
  stream = iter(clip)
  pairs = frames_lib.reconstruct_frames(tokenizer, stream)
  next(pairs)
  assert len(list(stream)) == 4  # only one group was read
  outputs = frames_lib.reconstruct_frames(tokenizer, iter(clip))
  assert len(list(outputs)) == 7
  assert tokenizer.shapes[1:] == [
    *[(3, 1, 4, 6, 3), (3, 1, 4, 6, 3), (1, 1, 4, 6, 3)]
  ]
  assert describe.padded_shape(tokenizer.config, (7, 4, 5)) == (7, 4, 6)


def test_videos_in_chunks_come_out_as_whole_ones_and_soon():
  config = tiny.tokenizer()
  net = describe.define_tokenizer(config)
  tokenizer = loaded.LoadedTokenizer(config, net, tiny.trained_like(net))
  clip, read = _clip(60, 5, 7), []
  frames = (read.append(t) or frame for t, frame in enumerate(clip))
  pairs = frames_lib.reconstruct_frames(tokenizer, frames)
  original, output = next(pairs)
  assert len(read) < 20
  pairs = [(original, output), *pairs]
  originals, outputs = (np.stack(x) for x in zip(*pairs, strict=True))
  np.testing.assert_array_equal(originals, clip)
  padded = frames_lib._pad(clip[None], config)
  whole = tokenizer.decode(tokenizer.encode(padded))[0, :60, :5, :7]
  whole = pictures.to_uint8(np.asarray(whole))
  assert (outputs != whole).mean() < 1e-3  # values halfway between two differ
  np.testing.assert_allclose(outputs, whole.astype(int), atol=1)


def test_a_tokenizer_that_needs_whole_clips_is_never_given_a_part(monkeypatch):
  monkeypatch.setattr(frames_lib, "MAX_FRAMES", 6)
  tokenizer = Exact(tiny.tokenizer())
  tokenizer.config.tokenizer.norm_statistics = "clip"
  assert len(
    list(frames_lib.reconstruct_frames(tokenizer, iter(_clip(6, 2, 2))))
  )
  assert tokenizer.shapes == [(1, 7, 2, 2, 3)]
  with pytest.raises(ValueError, match=" 6 frames"):
    next(frames_lib.reconstruct_frames(tokenizer, iter(_clip(7, 2, 2))))


@pytest.mark.parametrize(
  "text, error",
  [("RESOURCE_EXHAUSTED: 9 GB", ValueError), ("INTERNAL", JaxRuntimeError)],
)
def test_only_too_little_memory_is_the_users_error(text, error):
  tokenizer = Exact(tiny.tokenizer())

  def decode(ids):
    raise JaxRuntimeError(text)

  tokenizer.decode = decode
  with pytest.raises(error, match="fewer or smaller|INTERNAL"):
    list(frames_lib.reconstruct_frames(tokenizer, iter(_clip(3, 4, 4))))


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("pieces", [1, 3])
def test_ids_alone_give_the_frames_that_reconstruction_gives(temporal, pieces):
  config = tiny.tokenizer(temporal)
  net = describe.define_tokenizer(config)
  tokenizer = loaded.LoadedTokenizer(config, net, tiny.trained_like(net))
  clip = _clip(8, 5, 7)
  ids = np.concatenate(list(frames_lib.encode_frames(tokenizer, clip)))
  cut = np.array_split(ids, pieces)
  decoded = list(frames_lib.decode_frames(tokenizer, cut, clip.shape[:3]))
  pairs = frames_lib.reconstruct_frames(tokenizer, iter(clip))
  np.testing.assert_array_equal(decoded, [output for _, output in pairs])


def test_clips_of_too_many_pixels_and_of_no_frames_are_refused(monkeypatch):
  tokenizer = Exact(tiny.tokenizer())
  tokenizer.config.tokenizer.norm_statistics = "clip"
  monkeypatch.setattr(frames_lib, "MAX_PIXELS", 3 * 16)
  list(frames_lib.encode_frames(tokenizer, _clip(3, 4, 4)))
  with pytest.raises(ValueError, match="more than the 48 pixels .*cut it"):
    list(frames_lib.encode_frames(tokenizer, _clip(4, 4, 4)))
  with pytest.raises(ValueError, match="more than the 48 pixels .*cut it"):
    list(frames_lib.decode_frames(tokenizer, iter(()), (4, 4, 4)))
  for temporal in (True, False):
    tokenizer = Exact(tiny.tokenizer(temporal))
    with pytest.raises(ValueError, match="no frames"):
      list(frames_lib.encode_frames(tokenizer, iter(())))
