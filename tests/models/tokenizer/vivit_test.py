"""Tests of models/tokenizer/vivit.py: causality, first frames, sizes."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import network
from models.tokenizer import cnn
from models.tokenizer import layers
from models.tokenizer import vivit
from models.transformers import attention
from tests import tiny

_FULL = attention.TransformerSize(
  num_layers=7, width=512, mlp_width=2048, num_heads=8, remat="all"
)
_NARROW = attention.TransformerSize(
  num_layers=2, width=8, mlp_width=16, num_heads=2, remat="all"
)
_FULL_VIVIT = dict(
  latent_channels=18,
  block=(4, 8, 8),
  latent_shape=(5, 16, 16),
  space=_FULL,
  time=_FULL,
)
_FULL_HYBRID = dict(
  size=cnn.CnnSize(
    base_channels=64,
    channel_multipliers=(1, 2, 2, 4),
    temporal_downsample=(True, True, False),
    num_res_blocks=2,
    remat="all",
  ),
  latent_channels=18,
  norm_groups=32,
  time=attention.TransformerSize(
    num_layers=8, width=256, mlp_width=1024, num_heads=8, remat="all"
  ),
  max_latent_frames=5,
)
# Settings with blocks of 4 x 4 x 4 pixels, and at most 5 x 2 x 3 latents.
_SMALL_VIVIT = dict(
  latent_channels=6,
  block=(4, 4, 4),
  latent_shape=(5, 2, 3),
  space=_NARROW,
  time=_NARROW,
)
_SMALL_HYBRID = dict(
  size=cnn.CnnSize(
    base_channels=4,
    channel_multipliers=(1, 1, 2),
    temporal_downsample=(True, True),
    num_res_blocks=1,
    remat="all",
  ),
  latent_channels=6,
  norm_groups=2,
  time=_NARROW,
  max_latent_frames=5,
)


class _Autoencoder(nnx.Module):
  def __init__(self, encoder, decoder, settings, rngs):
    self.encoder = encoder(**settings, rngs=rngs)
    self.decoder = decoder(**settings, rngs=rngs)

  def encode(self, video_BTHWC):
    return self.encoder(video_BTHWC)

  def decode(self, z_BthwK):
    return self.decoder(z_BthwK)

  def __call__(self, video_BTHWC):
    return self.decoder(self.encoder(video_BTHWC))


def _define_vivit(settings):
  return network.define(
    lambda rngs: _Autoencoder(
      vivit.VivitEncoder, vivit.VivitDecoder, settings, rngs
    )
  )


def _define_hybrid(settings):
  return network.define(
    lambda rngs: _Autoencoder(
      vivit.HybridEncoder, vivit.HybridDecoder, settings, rngs
    )
  )


# The hybrid's CNN has the same tests in tokenizer_test.py.
@pytest.fixture(
  scope="module",
  params=["vivit", pytest.param("hybrid", marks=pytest.mark.rows)],
)
def small(request):
  net = {
    "vivit": lambda: _define_vivit(_SMALL_VIVIT),
    "hybrid": lambda: _define_hybrid(_SMALL_HYBRID),
  }[request.param]()
  return net, tiny.trained_like(net)


@pytest.fixture(scope="module")
def clip():
  return jax.random.uniform(jax.random.key(2), (1, 9, 8, 12, 3))


def _reach(function, x):
  """Largest gradient of each frame of function(x) by each frame of x."""
  y = jax.eval_shape(function, x)
  pullback = jax.jit(lambda cotangent: jax.vjp(function, x)[1](cotangent)[0])
  rows = []
  for frame in range(y.shape[1]):
    weights = jax.random.normal(
      jax.random.key(frame), (*y.shape[:1], *y.shape[2:])
    )
    gradient = pullback(jnp.zeros(y.shape).at[:, frame].set(weights))
    rows.append(np.abs(gradient).max((0, 2, 3, 4)))
  return np.stack(rows)


def test_a_latent_sees_all_frames_of_its_block_and_before_and_no_later(
  small, clip
):
  net, params = small
  reach_tT = _reach(lambda v: net(params, v, method="encode"), clip)
  for latent, reach_T in enumerate(reach_tT):
    assert (reach_T[4 * latent + 1 :] == 0).all()
    assert (reach_T[: 4 * latent + 1] > 0).all()


def test_a_frame_sees_its_latent_and_those_before_and_no_later(small):
  net, params = small
  z = jax.random.normal(jax.random.key(3), (1, 3, 2, 3, 6))
  reach_Tt = _reach(lambda z: net(params, z, method="decode"), z)
  for frame, reach_t in enumerate(reach_Tt):
    newest = -(-frame // 4)  # frames 1-4 are latent 1, 5-8 latent 2
    assert (reach_t[newest + 1 :] == 0).all()
    assert (reach_t[: newest + 1] > 0).all()


def test_only_attention_in_time_joins_blocks(small, clip):
  """Without that attention, a latent sees its own block and nothing before."""
  net, params = small
  apart = jax.tree.map(lambda x: x, params)  # new dicts around the arrays
  blocks = apart["encoder"]["time"]["stack"]["layers"]
  blocks["out"] = jax.tree.map(jnp.zeros_like, blocks["out"])
  reach_tT = _reach(lambda v: net(apart, v, method="encode"), clip)
  block_T = np.array([0, 1, 1, 1, 1, 2, 2, 2, 2])
  np.testing.assert_array_equal(reach_tT > 0, np.arange(3)[:, None] == block_T)


def _reach_thwthw(net):
  """Largest gradient of each latent by each latent, (3, 2, 3) of both."""
  params = tiny.trained_like(net)
  x = jax.random.normal(jax.random.key(4), (1, 3, 2, 3, 8))
  jacobian = jax.jit(jax.jacobian(lambda x: net(params, x).sum(-1)[0]))
  return np.abs(jacobian(x)[:, :, :, 0]).max(-1)


def test_attention_in_space_joins_all_of_a_frame_and_no_two_frames():
  net = network.define(
    lambda rngs: vivit.SpatialTransformer((2, 3), _NARROW, rngs=rngs)
  )
  t, _, _, t2, _, _ = np.indices((3, 2, 3, 3, 2, 3))
  np.testing.assert_array_equal(_reach_thwthw(net) > 0, t == t2)


def test_attention_in_time_joins_a_position_with_its_past_alone():
  net = network.define(
    lambda rngs: vivit.TemporalTransformer(5, _NARROW, rngs=rngs)
  )
  t, h, w, t2, h2, w2 = np.indices((3, 2, 3, 3, 2, 3))
  np.testing.assert_array_equal(
    _reach_thwthw(net) > 0, (t2 <= t) & (h == h2) & (w == w2)
  )


def test_an_image_is_the_first_latent_and_frame_of_a_clip(small, clip):
  net, params = small
  run = jax.jit(lambda v: (net(params, v, method="encode"), net(params, v)))
  for image, whole in zip(run(clip[:, :1]), run(clip), strict=True):
    assert image.shape[1] == 1
    np.testing.assert_allclose(image[:, 0], whole[:, 0], atol=1e-5)


@pytest.mark.parametrize("frames, latents", [(1, 1), (5, 2), (9, 3), (17, 5)])
def test_1_plus_4n_frames_are_1_plus_n_latents(small, frames, latents):
  net, params = small
  video = jax.ShapeDtypeStruct((2, frames, 8, 12, 3), jnp.float32)
  z = jax.eval_shape(lambda v: net(params, v, method="encode"), video)
  assert z.shape == (2, latents, 2, 3, 6)
  assert jax.eval_shape(net, params, video).shape == video.shape


def test_space_to_depth_inverts_depth_to_space():
  x = jax.random.normal(jax.random.key(6), (2, 4, 6, 8, 3))
  patches = vivit.space_to_depth(x, (4, 2, 4))
  assert patches.shape == (2, 1, 3, 2, 96)
  np.testing.assert_array_equal(layers.depth_to_space(patches, (4, 2, 4)), x)


@pytest.mark.slow  # compiles
@pytest.mark.parametrize(
  "small, frames",
  [
    ("hybrid", 5),  # it has all layers of both
    pytest.param("hybrid", 1, marks=pytest.mark.rows),
    pytest.param("vivit", 1, marks=pytest.mark.rows),
    pytest.param("vivit", 5, marks=pytest.mark.rows),
  ],
  indirect=["small"],
)
def test_gradients_are_finite(small, frames):
  net, params = small
  video = jax.random.uniform(jax.random.key(7), (1, frames, 8, 12, 3))
  loss = lambda p: jnp.mean(jnp.square(net(p, video) - video))
  for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
  "define, settings, low, high",
  [
    (_define_vivit, _FULL_VIVIT, 89.5e6, 90.5e6),
    (_define_hybrid, _FULL_HYBRID, 66.5e6, 67.5e6),
  ],
)
def test_sizes_and_shapes_of_the_table(define, settings, low, high):
  """MAGVIT-v2's table of joint architectures prints 90M and 67M."""
  net = define(settings)
  params = jax.eval_shape(net.init, jax.random.key(0))
  assert low < network.count(params) < high
  clip = jax.ShapeDtypeStruct((2, 17, 128, 128, 3), jnp.float32)
  z = jax.eval_shape(lambda p, v: net(p, v, method="encode"), params, clip)
  assert z.shape == (2, 5, 16, 16, 18)
  assert jax.eval_shape(net, params, clip).shape == clip.shape


@pytest.mark.parametrize(
  "shape, message",
  [
    ((8, 8, 12), "clip length 8 .* 5 and 9"),
    ((5, 10, 12), "frame height 10 .* 8 and 12"),
    ((5, 8, 9), "frame width 9 .* 8 and 12"),
    ((21, 8, 12), "6 latent .*max_latent_frames=5.*max_latent_frames=6"),
  ],
)
def test_clips_that_do_not_fit_are_errors(small, shape, message):
  net, params = small
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(net, params, jnp.zeros((1, *shape, 3)))


def test_latents_that_do_not_fit_are_errors(small):
  net, params = small
  with pytest.raises(ValueError, match="6 latent .*max_latent_frames=6"):
    jax.eval_shape(
      lambda z: net(params, z, method="decode"), jnp.zeros((1, 6, 2, 3, 6))
    )


def test_another_frame_size_than_the_positions_is_an_error():
  net = _define_vivit(_SMALL_VIVIT)
  params = jax.eval_shape(net.init, jax.random.key(0))
  video = jax.ShapeDtypeStruct((1, 5, 12, 8, 3), jnp.float32)
  with pytest.raises(
    ValueError, match=r"3 x 2 .*latent_size=\(2, 3\).*latent_size=\(3, 2\)"
  ):
    jax.eval_shape(net, params, video)
