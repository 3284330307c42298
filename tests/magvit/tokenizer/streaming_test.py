"""Tests of clips in chunks: no id and no pixel tells where a clip was cut."""

import jax
import numpy as np
import pytest

from magvit.tokenizer import describe
from magvit.tokenizer import loaded
from magvit.tokenizer import streaming
from tests import tiny

_FRAMES = 257


def _load(quantizer="lfq", **changes):
  """A tokenizer with the levels and strides of the final one, narrow."""
  config = tiny.tokenizer()
  config.tokenizer.channel_multipliers = (1, 2, 2)
  config.tokenizer.temporal_downsample = (True, True)
  with config.ignore_type():
    config.tokenizer.update(changes)
  config.quantizer.name, config.quantizer.embedding_dim = quantizer, 6
  net = describe.define_tokenizer(config)
  return loaded.LoadedTokenizer(config, net, tiny.trained_like(net))


@pytest.fixture(scope="module")
def tokenizer():
  return _load()


@pytest.fixture(scope="module")
def clip():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (1, _FRAMES, 8, 12, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def whole(tokenizer, clip):
  ids = np.asarray(tokenizer.encode(clip))
  return ids, np.asarray(tokenizer.decode(ids))


def _cut(array, seed):
  """Cuts into chunks of random lengths, empty ones among them."""
  rng = np.random.default_rng(seed)
  cuts = np.sort(rng.integers(0, array.shape[1] + 1, rng.integers(1, 40)))
  return np.split(array, cuts, axis=1)


def _joined(chunks):
  return np.concatenate(list(chunks), axis=1)


@pytest.mark.parametrize("seed", range(20))
def test_no_chunking_leaves_a_trace(tokenizer, clip, whole, seed):
  ids, video = whole
  assert ids.shape == (1, 65, 2, 3)
  streamed = _joined(tokenizer.encode_stream(_cut(clip, seed)))
  np.testing.assert_array_equal(streamed, ids)
  decoded = _joined(tokenizer.decode_stream(_cut(ids, seed)))
  # Arrays of other shapes sum the same float32 products in another order.
  np.testing.assert_allclose(decoded, video, atol=1e-5)


def test_ids_come_as_soon_as_their_frames_are_there(tokenizer, clip):
  given = 0

  def frames():
    nonlocal given
    for t in range(41):
      given = t + 1
      yield clip[:, t : t + 1]

  seen = [(given, ids.shape[1]) for ids in tokenizer.encode_stream(frames())]
  group = 4 * streaming.LATENTS_AT_ONCE
  assert seen == [(1, 1), (1 + group, 4), (1 + 2 * group, 4), (41, 2)]


@pytest.mark.parametrize(
  "changes",
  [
    pytest.param(
      dict(kept_frame="first", upsample="nearest", adaptive_norm="off"),
      marks=pytest.mark.rows,
    ),
    pytest.param(
      dict(padding="zero", centred_pixels=True, downsample="conv3"),
      marks=pytest.mark.rows,
    ),
    pytest.param(
      dict(temporal=False, temporal_downsample=(False, False)),
      marks=pytest.mark.rows,
    ),
    dict(quantizer="none"),
  ],
  ids=str,
)
def test_every_causal_cnn_streams(changes, clip):
  tokenizer, clip = _load(**changes), clip[:, :25]
  ids = np.asarray(tokenizer.encode(clip))
  streamed = _joined(tokenizer.encode_stream(_cut(clip, 0)))
  # Latents without ids sum the same products in another order.
  assert ids.dtype == (np.float32 if "quantizer" in changes else np.int32)
  np.testing.assert_allclose(streamed, ids, atol=1e-5)
  decoded = _joined(tokenizer.decode_stream(_cut(ids, 0)))
  np.testing.assert_allclose(decoded, tokenizer.decode(ids), atol=1e-5)


def test_what_is_remembered_does_not_grow(tokenizer, clip):
  net = describe.define_tokenizer(tokenizer.config)
  params = jax.eval_shape(net.init, jax.random.key(0))
  encode = lambda video, before: jax.eval_shape(
    lambda p, v, b: net(p, v, b, method="encode_chunk"), params, video, before
  )[1]
  video = clip.astype(np.float32)
  first = encode(video[:, :1], None)
  later = encode(video[:, :16], first)
  assert [x.shape for x in first] == [x.shape for x in later]
  assert max(x.shape[1] for x in first) == 2  # number of frames


@pytest.mark.parametrize(
  "changes",
  [
    dict(causal=False, temporal_downsample=(True, True)),
    dict(norm_statistics="clip"),
  ],
  ids=str,
)
def test_tokenizers_that_need_whole_clips_say_so(changes, clip):
  tokenizer = _load(**changes)
  with pytest.raises(ValueError, match="needs whole clips"):
    next(tokenizer.encode_stream([clip]))
  with pytest.raises(ValueError, match="needs whole clips"):
    next(tokenizer.decode_stream([np.zeros((1, 3, 2, 3), np.int32)]))


def test_a_clip_that_the_stride_does_not_divide_is_refused(tokenizer, clip):
  with pytest.raises(ValueError, match=" 16 frames, .* 13 frames or 17$"):
    list(tokenizer.encode_stream([clip[:, :10], clip[:, 10:16]]))
  match = r" \(1, 3, 4, 12, 3\) .* \(1, 8, 12, 3\)"
  with pytest.raises(ValueError, match=match):
    list(tokenizer.encode_stream([clip[:, :10], clip[:, :3, :4]]))
  with pytest.raises(ValueError, match=r"^ids in \[64, 64\] .* 0\.\.63$"):
    list(tokenizer.decode_stream([np.full((1, 1, 2, 3), 64)]))
