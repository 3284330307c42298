"""The latents that a generator models, and the tokenizer that makes them.

`bits` are the signs of an LFQ or BSQ tokenizer: ids written as vectors of +-1
(analog bits, arXiv 2208.04202). Whatever a generator makes of them, the signs
are taken before they are decoded: the decoder has never seen anything else.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections

from magvit.generators import tokens as tokens_lib
from models.quantizers import bits as bits_lib
from models.quantizers import build as quantizer_build
from models.tokenizer import tokenizer as tokenizer_network

BITS = "bits"
KINDS = (BITS,)
# Fields that decide, beside the weights, what a generator of latents computes.
DEFINING = ("algorithm", "latents", "denoiser", "tasks", "condition_frames")


@dataclasses.dataclass(frozen=True)
class Latents:
  """A trained tokenizer, and the grid of latents of a generator's clips.

  `params` of the functions are a dict with the entries of `frozen`; others in
  it are left alone, so `TrainState.frozen` and `predict_params()` serve.
  """

  tokens: tokens_lib.Tokens
  kind: str  # one of KINDS
  channels: int  # C of a latent

  @property
  def shape(self) -> tuple[int, int, int]:
    """(t, h, w)."""
    return self.tokens.latent_shape

  @property
  def num(self) -> int:
    """N, the number of latents of a clip."""
    return math.prod(self.shape)

  @property
  def frozen(self) -> dict[str, Any]:
    """What `TrainState.frozen` holds for a generator of these latents."""
    return {"tokenizer": self.tokens.params}

  def encode(self, params: Any, video_BTHWC: jax.Array) -> jax.Array:
    """Encodes float clips in [0, 1] to latents, float32 (B, t, h, w, C)."""
    ids_BN = self.tokens.encode(params["tokenizer"], video_BTHWC)
    return self.from_ids(ids_BN)

  def encode_batch(
    self, params: Any, batch: Mapping[str, jax.Array]
  ) -> jax.Array:
    """Latents (B, t, h, w, C) of a batch's "ids" if stored, else "video"."""
    if "ids" in batch:
      return self.from_ids(batch["ids"])
    return self.encode(params, tokenizer_network.to_float(batch["video"]))

  def from_ids(self, ids: jax.Array) -> jax.Array:
    """Latents +-1, float32 (B, t, h, w, C), of ids (B, N) or (B, t, h, w)."""
    ids_Bthw = ids.reshape(-1, *self.shape)
    return bits_lib.ids_to_codes(ids_Bthw, self.channels)

  def decode(self, params: Any, z_BthwC: jax.Array) -> dict[str, jax.Array]:
    """Decodes latents to {"video": float32 (B, T, H, W, 3) in [0, 1]}.

    Of `bits` the signs are decoded, and their "ids", int32 (B, t, h, w), are
    beside the video.
    """
    # As the quantizer does, zero counts as positive.
    ids_Bthw = bits_lib.codes_to_ids(jnp.where(z_BthwC >= 0, 1.0, -1.0))
    ids_BN = ids_Bthw.reshape(-1, self.num)
    video_BTHWC = self.tokens.decode(params["tokenizer"], ids_BN)
    return {"video": video_BTHWC, "ids": ids_Bthw}


def open_latents(
  config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
) -> Latents:
  """The latents of a generator's config; `abstract` as in `open_tokenizer`.

  Raises:
    ValueError: no tokenizer there, clips that it rejects, or a kind of latents
      that it does not have.
  """
  kind = config.latents.kind
  if kind not in KINDS:
    raise ValueError(f"latents.kind={kind!r} must be one of {KINDS}")
  tokens = tokens_lib.open_tokenizer(config, mesh, abstract)
  settings = tokens.made_by.quantizer
  if not quantizer_build.kind(settings.name).signs:
    raise ValueError(
      f"latents.kind={kind} needs a tokenizer whose codes are signs"
      f" ({', '.join(quantizer_build.names('signs'))}), and that in"
      f" tokenizer_workdir={config.tokenizer_workdir} has"
      f" quantizer.name={settings.name!r}: name another"
    )
  channels = tokenizer_network.describe_quantizer(**settings).latent_channels
  return Latents(tokens, kind, channels)
