"""Tests that a new quantizer takes one class and one line in the registry.

The registry is models/quantizers/build.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evaluation import evaluators
from magvit import mesh as mesh_lib
from magvit.scoring import model as scored_model
from magvit.tokenizer import describe
from magvit.tokenizer import gan
from models.quantizers import build as quantizer_build
from models.quantizers import common
from models.quantizers import entropy as entropy_lib
from tests import tiny


class TernaryQuantizer(common.Quantizer):
  """Each channel of a code is -1, 0 or 1."""

  id_convention = "channel k is the digit of 3^k"

  def __init__(self, channels: int):
    self.latent_channels = channels
    self.vocabulary = 3**channels

  @classmethod
  def from_config(cls, settings, *, rngs):
    del rngs
    return cls(settings["ternary_channels"])

  def __call__(self, z_BTHWK):
    bounded = jnp.tanh(z_BTHWK.astype(jnp.float32))
    codes = jnp.round(bounded)
    entropy = entropy_lib.histogram_entropy(self.ids(codes))
    return common.Quantized(
      z=common.straight_through(codes, bounded).astype(z_BTHWK.dtype),
      ids=self.ids(codes),
      commitment=jnp.square(jax.lax.stop_gradient(codes) - bounded).mean(),
      codebook=jnp.zeros(()),
      sample_entropy=jnp.zeros(()),
      batch_entropy=entropy,
      codebook_entropy=entropy,
    )

  def codes(self, coded):
    digits = coded[..., None] // self._radix_1111K() % 3
    return digits.astype(jnp.float32) - 1.0

  def ids(self, codes_BthwK):
    digits = codes_BthwK.astype(jnp.int32) + 1
    return (digits * self._radix_1111K()).sum(-1)

  def _radix_1111K(self):
    radix_K = [3**k for k in range(self.latent_channels)]
    return np.array(radix_K, np.int32)[None, None, None, None]


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(quantizer_build.QUANTIZERS, "ternary", TernaryQuantizer)
  config = tiny.tokenizer(temporal=False)
  config.quantizer.name = "ternary"
  config.quantizer.ternary_channels = 4
  return config


def test_it_trains_and_is_evaluated(config):
  mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
  algorithm = gan.TokenizerGan.build(config, mesh)
  clips = np.random.default_rng(0).integers(
    0, 256, (2, 1, 16, 16, 3), dtype=np.uint8
  )
  state, metrics = jax.jit(algorithm.step)(
    tiny.drawn_state(algorithm), {"video": clips}, jax.random.key(0)
  )
  assert all(np.isfinite(value).all() for value in metrics.values())
  assert metrics["generator/gradient_norm"] > 0
  reconstruct = jax.jit(algorithm.predict["reconstruct"])
  results = evaluators.evaluate_reconstruction(
    lambda video: reconstruct(state.ema, {"video": video}, None),
    [(clips, 2)],
    describe.vocabulary(config),
    {},
  )
  scores, use = (result.metrics for result in results)
  assert np.isfinite(scores["psnr"])
  assert use["codes"] == 81 and use["tokens"] == 2 * 8 * 8


def test_its_facts_are_on_its_class(config):
  meaning = "in raster order (t, h, w); channel k is the digit of 3^k"
  assert describe.id_convention(config) == meaning
  config.codebook_from_data = True
  with pytest.raises(ValueError, match="from_data=True .*'vq'.*'ternary'"):
    gan.TokenizerGan.build(config, mesh_lib.local_mesh())
  model = scored_model.Model.__new__(scored_model.Model)  # no weights needed
  model.config = config
  with pytest.raises(ValueError, match="protocol=pfid .*lfq and bsq.* ternary"):
    model.bits()


@pytest.mark.parametrize("name", ["lfq", "bsq", "vq", "fsq", "none"])
def test_only_codes_of_signs_have_bits_and_only_vq_has_a_codebook(name):
  each = quantizer_build.kind(name)
  assert each.has_ids == (name != "none")
  assert each.signs == (name in ("lfq", "bsq"))
  assert each.has_codebook == (name == "vq")
