"""Tests of magvit/tokenizer/inflation.py: both models agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from magvit.tokenizer import describe
from magvit.tokenizer import inflation
from tests import tiny


def _define(temporal, temporal_downsample, quantizer="lfq", **changes):
  c = tiny.tokenizer()
  c.tokenizer.channel_multipliers = (1, 2, 2, 4)
  c.tokenizer.temporal = temporal
  c.tokenizer.temporal_downsample = temporal_downsample
  c.tokenizer.update(changes)
  c.quantizer.name, c.quantizer.embedding_dim = quantizer, 6
  return describe.define_tokenizer(c)


@pytest.fixture(
  scope="module", params=["lfq", pytest.param("none", marks=pytest.mark.rows)]
)
def models(request):
  """(image network, its weights, video network, inflated weights)."""
  image, video = (
    _define(False, (False,) * 3, request.param),
    _define(True, (False, True, True), request.param),
  )
  params = tiny.trained_like(image)
  target = jax.eval_shape(video.init, jax.random.key(0))
  return image, params, video, inflation.inflate(params, target)


def _outputs(net, params, clip):
  """Latents, and the decoding of latents that the signs do not disturb."""
  latents = jax.jit(lambda v: net(params, v, method="encode_latents"))(clip)
  decode = jax.jit(lambda z: net(params, z, method="decode_latents"))
  return latents, decode(latents)


def test_one_frame_gives_what_the_image_model_gives(models):
  image, image_params, video, video_params = models
  frame = jax.random.uniform(jax.random.key(2), (2, 1, 16, 16, 3))
  for a, b in zip(
    _outputs(image, image_params, frame),
    _outputs(video, video_params, frame),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_still_clip_gives_it_at_every_frame(models):
  image, image_params, video, video_params = models
  frame = jax.random.uniform(jax.random.key(2), (2, 1, 16, 16, 3))
  still = jnp.repeat(frame, 9, axis=1)
  for a, b in zip(
    _outputs(image, image_params, frame),
    _outputs(video, video_params, still),
    strict=True,
  ):
    expected = jnp.broadcast_to(a, b.shape)
    np.testing.assert_allclose(b, expected, atol=1e-5)


def test_an_array_that_does_not_fit_is_named(models):
  _, params, video, _ = models
  target = jax.eval_shape(video.init, jax.random.key(0))
  params = jax.tree.map(lambda x: x, params)
  params["encoder"]["norm_out"]["scale"] = jnp.zeros(5)
  with pytest.raises(ValueError, match="norm_out.*scale.*shape"):
    inflation.inflate(params, target)
  del params["encoder"]["norm_out"]["scale"]
  with pytest.raises(ValueError, match="norm_out.*scale.* 0 more"):
    inflation.inflate(params, target)


def test_kernels_that_see_both_ways_get_the_central_slice():
  """MAGVIT v1: each frame of a still clip has the image model's latents."""
  changes = dict(
    downsample="average", upsample="nearest", causal=False, adaptive_norm="off"
  )
  image = _define(False, (False,) * 3, **changes)
  video = _define(True, (False,) * 3, **changes)
  params = tiny.trained_like(image)
  target = jax.eval_shape(video.init, jax.random.key(0))
  inflated = inflation.inflate(params, target, causal=False)
  frame = jax.random.uniform(jax.random.key(2), (1, 1, 16, 16, 3))
  z, _ = _outputs(image, params, frame)
  z_clip, _ = _outputs(video, inflated, jnp.repeat(frame, 3, axis=1))
  np.testing.assert_allclose(z_clip, jnp.repeat(z, 3, axis=1), atol=1e-5)


def test_models_that_differ_in_more_than_time_are_refused():
  image, video = tiny.tokenizer(temporal=False), tiny.tokenizer()
  video.inflate_from = "DIR"
  inflation.check_compatible(image, video)
  video.quantizer.bits = 7
  match = "^quantizer.bits=7 .* 6 .*inflate_from=DIR"
  with pytest.raises(ValueError, match=match):
    inflation.check_compatible(image, video)
  with pytest.raises(ValueError, match="^inflate_from=DIR .*'tiny"):
    inflation.check_compatible(video, video)
