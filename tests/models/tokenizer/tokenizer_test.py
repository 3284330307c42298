"""Tests of the tokenizer: causality, first frames, sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from magvit.cost import flops
from models import network
from models.tokenizer import discriminators
from models.tokenizer import geometry
from models.tokenizer import tokenizer as tokenizer_network
from tests import tiny


def _define(bits=18, quantizer="lfq", **changes):
  """Describes the final architecture with changes to its settings."""
  c = base.tokenizer()
  c.tokenizer.update(changes)
  c.quantizer.name = quantizer
  c.quantizer.bits = c.quantizer.embedding_dim = bits
  return network.define(
    lambda rngs: tokenizer_network.build(c.tokenizer, c.quantizer, rngs=rngs)
  )


def _millions(net):
  abstract = jax.eval_shape(net.init, jax.random.key(0))
  return round(network.count(abstract) / 1e6, 1)


@pytest.fixture(
  scope="module", params=["lfq", pytest.param("none", marks=pytest.mark.rows)]
)
def small(request):
  """The final architecture with few channels; levels and strides are kept."""
  net = _define(
    *(6, request.param), base_channels=4, num_res_blocks=1, norm_groups=2
  )
  return net, tiny.trained_like(net)


@pytest.fixture(scope="module")
def clip():
  return jax.random.uniform(jax.random.key(2), (1, 9, 16, 16, 3))


def _latents(net, params):
  return jax.jit(lambda v: net(params, v, method="encode_latents"))


def test_no_latent_depends_on_a_later_frame(small, clip):
  net, params = small
  latents = lambda v: net(params, v, method="encode_latents")
  z = jax.eval_shape(latents, clip)
  pullback = jax.jit(lambda cotangent: jax.vjp(latents, clip)[1](cotangent))
  for j in range(z.shape[1]):
    weights = jax.random.normal(jax.random.key(j), z.shape[:1] + z.shape[2:])
    (gradient,) = pullback(jnp.zeros(z.shape).at[:, j].set(weights))
    reach_T = np.abs(gradient).max((0, 2, 3, 4))
    assert (reach_T[4 * j + 1 :] == 0).all()
    assert (reach_T[: 4 * j + 1] > 0).all()


def test_no_pixel_depends_on_a_later_latent(small):
  net, params = small
  z = jax.random.normal(jax.random.key(3), (1, 3, 2, 2, 6))
  decode = lambda z: net(params, z, method="decode_latents")
  video = jax.eval_shape(decode, z)
  pullback = jax.jit(lambda cotangent: jax.vjp(decode, z)[1](cotangent))
  for frame in range(video.shape[1]):
    weights = jax.random.normal(jax.random.key(frame), (1, 16, 16, 3))
    (gradient,) = pullback(jnp.zeros(video.shape).at[:, frame].set(weights))
    reach_t = np.abs(gradient).max((0, 2, 3, 4))
    newest = -(-frame // 4)  # frames 1-4 are latent 1, 5-8 latent 2
    assert (reach_t[newest + 1 :] == 0).all()
    assert (reach_t[: newest + 1] > 0).all()


def test_an_image_is_encoded_as_the_first_frame_of_a_clip(small, clip):
  latents = _latents(*small)
  z_clip, z_image = latents(clip), latents(clip[:, :1])
  np.testing.assert_allclose(z_image[:, 0], z_clip[:, 0], atol=1e-5)


def test_an_image_is_decoded_as_the_first_frame_of_a_clip(small, clip):
  net, params = small
  reconstruct = jax.jit(lambda v: net(params, v)[0])
  whole, image = reconstruct(clip), reconstruct(clip[:, :1])
  np.testing.assert_allclose(image[:, 0], whole[:, 0], atol=1e-5)


def test_a_still_clip_has_constant_latents(small, clip):
  still = jnp.repeat(clip[:, :1], 9, axis=1)
  z = _latents(*small)(still)
  np.testing.assert_allclose(z, jnp.repeat(z[:, :1], 3, axis=1), atol=1e-5)


def test_ids_or_latents_decode_to_the_reconstruction(small, clip):
  net, params = small
  output, quantized, _ = jax.jit(lambda v: net(params, v))(clip)
  decoded = jax.jit(lambda i: net(params, i, method="decode"))(quantized.coded)
  np.testing.assert_allclose(decoded, output, atol=1e-5)


@pytest.mark.parametrize(
  "millions, changes",
  [
    (376.0, {}),
    (57.8, dict(base_channels=64, num_res_blocks=2)),
    (57.8, dict(base_channels=64, num_res_blocks=2, adaptive_norm="off")),
    (113.1, dict(temporal=False, temporal_downsample=(False,) * 3)),
    (
      116.3,
      dict(
        temporal=False,
        channel_multipliers=(1, 1, 2, 2, 4),
        temporal_downsample=(False,) * 4,
      ),
    ),
  ],
)
def test_production_sizes(millions, changes):
  assert _millions(_define(**changes)) == millions


@pytest.mark.parametrize(
  "millions, video_shape", [(61.3, (17, 128, 128)), (23.9, (1, 128, 128))]
)
def test_discriminator_sizes(millions, video_shape):
  net = network.define(
    lambda rngs: discriminators.Discriminator(
      video_shape, 128, (2, 4, 4, 4, 4), rngs=rngs
    )
  )
  assert _millions(net) == millions


def test_production_shapes():
  net = _define()
  params = jax.eval_shape(net.init, jax.random.key(0))
  clip = jax.ShapeDtypeStruct((2, 17, 128, 128, 3), jnp.float32)
  output, quantized, latents = jax.eval_shape(net, params, clip)
  assert output.shape == (2, 17, 128, 128, 3)
  assert quantized.ids.shape == (2, 5, 16, 16)
  assert quantized.ids.dtype == jnp.int32
  assert latents.shape == (2, 5, 16, 16, 18)


def test_uint8_becomes_float_in_0_1():
  x = tokenizer_network.to_float(jnp.array([0, 51, 255], jnp.uint8))
  np.testing.assert_allclose(x, [0.0, 0.2, 1.0], rtol=1e-6)
  assert x.dtype == jnp.float32


@pytest.mark.parametrize(
  "shape, message",
  [
    ((16, 16, 16), "clip length 16 .* 13 and 17"),
    ((4, 16, 16), "clip length 4 .* 1 and 5"),
    ((5, 20, 16), "frame height 20 .* 16 and 24"),
    ((5, 16, 9), "frame width 9 .* 8 and 16"),
  ],
)
def test_sizes_that_the_strides_reject_are_errors(small, shape, message):
  net, params = small
  with pytest.raises(ValueError, match=message):
    net(params, jnp.zeros((1, *shape, 3)), method="encode")


def test_other_conventions_reach_every_layer(clip):
  """MAGVIT v1's network mixes frames both ways; the final one does not."""
  net = _define(
    base_channels=4,
    num_res_blocks=1,
    bits=6,
    norm_groups=2,
    temporal_downsample=(True, True, False),
    downsample="average",
    upsample="nearest",
    adaptive_norm="off",
    causal=False,
    padding="zero",
    norm_statistics="clip",
  )
  params = tiny.trained_like(net)
  clip = clip[:, :8]
  latents = lambda v: net(params, v, method="encode_latents")
  first = lambda v: latents(v)[:, 0].sum()
  reach_T = np.abs(jax.jit(jax.grad(first))(clip)).max((0, 2, 3, 4))
  assert (reach_T > 0).all()
  output, quantized, _ = jax.jit(lambda v: net(params, v))(clip)
  assert quantized.ids.shape == (1, 2, 2, 2) and output.shape == clip.shape
  with pytest.raises(ValueError, match="clip length 9 .* 8 and 12"):
    net(params, jnp.zeros((1, 9, 16, 16, 3)), method="encode")


def test_centred_pixels_are_the_same_network_on_another_range(small, clip):
  net, params = small
  centred = _define(
    base_channels=4,
    num_res_blocks=1,
    bits=6,
    norm_groups=2,
    centred_pixels=True,
  )

  def both_ways(net):
    return lambda v: (
      net(params, v, method="encode_latents"),
      net(params, jnp.ones((1, 3, 2, 2, 6)), method="decode_latents"),
    )

  z, video = jax.jit(both_ways(centred))(0.5 * (clip + 1.0))
  z_expected, video_expected = jax.jit(both_ways(net))(clip)
  np.testing.assert_allclose(z, z_expected, atol=1e-4)
  np.testing.assert_allclose(2.0 * video - 1.0, video_expected, atol=1e-4)


def test_bfloat16_computes_in_bfloat16_and_quantizes_in_float32(small, clip):
  net, params = small
  low = _define(
    base_channels=4, num_res_blocks=1, bits=6, norm_groups=2, dtype="bfloat16"
  )
  jaxpr = str(jax.make_jaxpr(lambda v: low(params, v))(clip))
  convolutions = [x for x in jaxpr.splitlines() if "conv_general" in x]
  assert convolutions and all("bf16" in x.split("=")[0] for x in convolutions)
  output, quantized, latents = jax.jit(low)(params, clip)
  assert {output.dtype, latents.dtype, quantized.commitment.dtype} == {
    jnp.dtype("float32")
  }
  expected = _latents(net, params)(clip)
  # bfloat16 has 8 bits of mantissa; these are 20 layers of outputs of size 1.
  np.testing.assert_allclose(latents, expected, atol=0.3)
  loss = lambda p: jnp.square(low(p, clip)[0]).sum()
  gradient = jax.eval_shape(jax.grad(loss), params)
  assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


def _two_levels(**settings):
  return _define(
    base_channels=4,
    channel_multipliers=(1, 2),
    temporal_downsample=(True,),
    num_res_blocks=1,
    bits=6,
    norm_groups=2,
    **settings,
  )


def _gradient(remat):
  clip = jax.random.uniform(jax.random.key(2), (1, 5, 8, 8, 3))
  net = _two_levels(remat=remat)
  loss = lambda p: jnp.square(net(p, clip)[0]).mean()
  params = tiny.trained_like(_two_levels())
  return jax.tree.leaves(jax.jit(jax.grad(loss))(params))


@pytest.fixture(scope="module")
def gradient_of_all_kept():
  return _gradient("off")


@pytest.mark.parametrize(
  "remat",
  [
    "dots",
    *(pytest.param(x, marks=pytest.mark.rows) for x in ("all", "all,off")),
  ],
)
def test_no_choice_of_what_is_kept_changes_a_gradient(
  remat, gradient_of_all_kept
):
  for a, b in zip(_gradient(remat), gradient_of_all_kept, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_each_choice_keeps_less_and_dots_repeats_no_convolution(clip):
  params = jax.eval_shape(_two_levels().init, jax.random.key(0))

  def kept(remat):
    run = lambda p: _two_levels(remat=remat)(p, clip)[0]
    pullback = jax.eval_shape(lambda p: jax.vjp(run, p)[1], params)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pullback))

  remats = ("off", "dots,off", "dots", "all,dots", "all")
  sizes = [kept(remat) for remat in remats]
  assert all(less < more for more, less in itertools.pairwise(sizes))

  def products(remat):
    net = _two_levels(remat=remat)
    gradient = jax.grad(lambda p: jnp.square(net(p, clip)[0]).mean())
    return flops.count(gradient, params)

  # Only adaptive norms have products that "dots" repeats.
  assert products("dots") < 1.02 * products("off")
  assert products("all") > 1.05 * products("off")


def test_an_unknown_remat_is_refused():
  for remat in ("some", "all,off,off", "auto,off"):
    match = (
      rf"tokenizer.remat={remat!r} must be 'auto', .*\(2\).*like 'all,off'"
    )
    with pytest.raises(ValueError, match=match):
      _two_levels(remat=remat)
  with pytest.raises(ValueError, match="tokenizer.remat='all,off' .*'vivit'"):
    _two_levels(remat="all,off", architecture="vivit")


def test_contradictory_settings_are_refused():
  two = r"temporal_downsample=\(True, True\) .*channel_multipliers="
  with pytest.raises(ValueError, match=two):
    _define(temporal_downsample=(True, True))
  with pytest.raises(ValueError, match="temporal_downsample=.*temporal=False"):
    _define(temporal=False)
  with pytest.raises(ValueError, match="downsample='average' .*causal=True"):
    _define(downsample="average")
  with pytest.raises(ValueError, match="'global' .*norm_statistics='clip'"):
    _define(adaptive_norm="global")
  for field in ("downsample", "upsample", "adaptive_norm", "padding", "dtype"):
    with pytest.raises(ValueError, match=f"tokenizer.{field}='x' must be one"):
      _define(**{field: "x"})


@pytest.mark.parametrize(
  "strides", [(4, 8), (2, 2), (1, 16), (4, 8, False)], ids=str
)
def test_the_padded_shape_is_the_smallest_that_fits(strides):
  rule = geometry.Sizes(*strides)

  def fits(shape):
    try:
      return bool(rule.latent(shape))
    except ValueError:
      return False

  space, least = rule.space, 1 if rule.causal else rule.time
  for size in range(1, 35):
    shape = (size, size, size + 1)
    sizes = range(size, 60)
    assert rule.padded(shape) == (
      next(n for n in sizes if fits((n, space, space))),
      next(n for n in sizes if fits((least, n, space))),
      next(n for n in sizes[1:] if fits((least, space, n))),
    )
