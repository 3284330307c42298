"""What a recognizer sees of clips: tokens, latents, or as many pixels."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections

from magvit.generators import tokens as tokens_lib
from magvit.tokenizer import describe
from models.tokenizer import geometry
from models.tokenizer import tokenizer as tokenizer_network

TOKENS, LATENTS, PIXELS = "tokens", "latents", "pixels"
KINDS = (TOKENS, LATENTS, PIXELS)
OFF = "off"  # value of pretraining.targets


@dataclasses.dataclass(frozen=True)
class Inputs:
  """The input of a recognizer, and the grid of its tokens."""

  kind: str  # one of KINDS
  tokens: tokens_lib.Tokens | None  # None where nothing is tokenized
  latent_shape: tuple[int, int, int]  # (t, h, w)
  patch: tuple[int, int, int]  # (frames, height, width) that become a token
  channels: int

  def __call__(
    self, frozen: Mapping[str, Any], batch: Mapping[str, jax.Array]
  ) -> jax.Array:
    """Pixels in [-1, 1], codes or latents of a batch, float32 (B, T, H, W, C).

    Args:
      frozen: the tokenizer's weights under "tokenizer", if there is one.
      batch: with "video", or with "ids" where tokens are stored.
    """
    if self.kind == PIXELS:
      return 2.0 * tokenizer_network.to_float(batch["video"]) - 1.0
    tokens = self._tokenizer()
    if self.kind == LATENTS:
      return tokens.latents(frozen["tokenizer"], batch["video"])
    return tokens.codes(frozen["tokenizer"], self.ids(frozen, batch))

  def ids(
    self, frozen: Mapping[str, Any], batch: Mapping[str, jax.Array]
  ) -> jax.Array:
    """Tokens of a batch, int32 (B, N)."""
    return self._tokenizer().tokenize_batch(frozen["tokenizer"], batch)

  def _tokenizer(self) -> tokens_lib.Tokens:
    if self.tokens is None:
      raise ValueError("a recognizer of pixels has no tokens: name a tokenizer")
    return self.tokens


def open_inputs(
  config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
) -> Inputs:
  """The input of a config, and its tokenizer if it needs one.

  Raises:
    ValueError: an unknown kind, no tokenizer or one that nothing reads, or
      clips that do not fit.
  """
  kind = config.recognizer.input
  if kind not in KINDS:
    raise ValueError(f"recognizer.input={kind!r} must be one of {KINDS}")
  if config.dataset.joint_images:
    raise ValueError(
      f"dataset.joint_images={config.dataset.joint_images} is for tokenizers:"
      " set it to 0"
    )
  if kind != TOKENS and config.dataset.tokens:
    raise ValueError(
      f"dataset.tokens={config.dataset.tokens} has no pixels, which"
      f" recognizer.input={kind!r} reads: set it to ''"
    )
  tokens = None
  if kind != PIXELS or config.pretraining.targets != OFF:
    tokens = tokens_lib.open_tokenizer(config, mesh, abstract)
    reader = f"recognizer.input={kind!r}"
    if config.pretraining.targets != OFF:
      reader = f"pretraining.targets={config.pretraining.targets!r}"
    if kind == TOKENS or config.pretraining.targets != OFF:
      describe.require_ids(tokens.made_by, reader)
  elif config.tokenizer_workdir:
    raise ValueError(
      f"tokenizer_workdir={config.tokenizer_workdir} is not read: recognizer."
      "input='pixels' has no tokens, and pretraining.targets='off' predicts"
      " none: leave it out"
    )
  if kind == PIXELS or tokens is None:
    return _pixels(config, tokens)
  shape = tokens.latent_shape
  return Inputs(kind, tokens, shape, (1, 1, 1), tokens.code_channels)


def _pixels(
  config: ml_collections.ConfigDict, tokens: tokens_lib.Tokens | None
) -> Inputs:
  frames, side, width = patch = tuple(config.recognizer.patch)
  if side != width:
    raise ValueError(
      f"recognizer.patch={patch} must be (frames, side, side): patches are"
      " square"
    )
  clip = describe.clip_shape(config)
  shape = geometry.Sizes(frames, side).latent(clip)
  if tokens is not None and tokens.latent_shape != shape:
    raise ValueError(
      f"recognizer.patch={patch} makes {describe.by(shape)} tokens of a clip,"
      f" and the tokenizer whose tokens are predicted makes"
      f" {describe.by(tokens.latent_shape)}: set it to the tokenizer's strides,"
      f" {tokens.sizes.strides}"
    )
  return Inputs(PIXELS, tokens, shape, patch, 3)
