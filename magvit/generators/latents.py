"""The latents that a generator models, and the tokenizer that makes them.

`bits` are the signs of an LFQ or BSQ tokenizer: ids written as vectors of +-1
(analog bits, arXiv 2208.04202). Whatever a generator makes of them, the signs
are taken before they are decoded: the decoder has never seen anything else.

`continuous` are the real latents of a tokenizer without a quantizer, normalised
by the mean and deviation of each channel (W.A.L.T, arXiv 2312.06662, table 3e).
These are measured once, on training clips, before step 0, and stored with the
weights (magvit/workdir/latent_statistics.py).
"""

from collections.abc import Mapping
import dataclasses
import itertools
import math
from typing import Any
from typing import Self

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np

from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit.generators import tokens as tokens_lib
from magvit.tokenizer import describe
from magvit.workdir import folder as workdir_lib
from magvit.workdir import latent_statistics
from models.quantizers import bits as bits_lib
from models.quantizers import build as quantizer_build
from models.tokenizer import tokenizer as tokenizer_network
from storage import progress as progress_lib

BITS, CONTINUOUS = "bits", "continuous"
KINDS = (BITS, CONTINUOUS)
_LATENTS = 10_000  # latents whose statistics are measured, at the least
_CLIPS = 64  # training clips that they are of, at the least
_STILL = 1e-6  # share of its size by which a channel varies that says nothing
# Fields that decide, beside the weights, what a generator of latents computes.
DEFINING = ("algorithm", "latents", "denoiser", "tasks", "condition_frames")


@dataclasses.dataclass(frozen=True)
class Latents:
  """A trained tokenizer, and the grid of latents of a generator's clips.

  `params` of the functions are a dict with the entries of `frozen`; others in
  it are left alone, so `TrainState.frozen` and `predict_params()` serve.
  """

  tokens: tokens_lib.Tokens
  workdir: str  # folder of the tokenizer, for messages
  kind: str  # one of KINDS
  channels: int  # C of a latent
  # For `continuous` "mean" and "std", float32 (C,); None until they are known.
  statistics: dict[str, Any] | None = None

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
    """What `TrainState.frozen` holds for a generator of these latents.

    Raises:
      ValueError: latents whose statistics are lost.
    """
    if self.kind == BITS:
      return {"tokenizer": self.tokens.params}
    if self.statistics is None:
      raise ValueError(
        f"tokenizer_workdir={self.workdir} lacks {latent_statistics.FILE}, by"
        " which the generator's latents were normalised: copy the whole folder"
        " of the generator again"
      )
    return {"tokenizer": self.tokens.params, "latents": self.statistics}

  def encode(self, params: Any, video_BTHWC: jax.Array) -> jax.Array:
    """Encodes float clips in [0, 1] to latents, float32 (B, t, h, w, C)."""
    if self.kind == BITS:
      return self.from_ids(self.tokens.encode(params["tokenizer"], video_BTHWC))
    z_BthwC = self.tokens.network(
      params["tokenizer"], video_BTHWC, method="encode"
    )
    mean, std = self._moments(params, z_BthwC.ndim)
    return (z_BthwC - mean) / std

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

    There may be more latent frames than a clip has, where the tokenizer is
    causal. The signs of `bits` are decoded, and their "ids", int32
    (B, t, h, w), are beside the video.
    """
    if self.kind == CONTINUOUS:
      mean, std = self._moments(params, z_BthwC.ndim)
      video_BTHWC = self.tokens.network(
        params["tokenizer"], z_BthwC * std + mean, method="decode"
      )
      return {"video": jnp.clip(video_BTHWC, 0.0, 1.0)}
    # As the quantizer does, zero counts as positive.
    ids_Bthw = bits_lib.codes_to_ids(jnp.where(z_BthwC >= 0, 1.0, -1.0))
    ids_BN = ids_Bthw.reshape(ids_Bthw.shape[0], -1)
    video_BTHWC = self.tokens.decode(params["tokenizer"], ids_BN)
    return {"video": video_BTHWC, "ids": ids_Bthw}

  def _moments(self, params: Any, ndim: int) -> tuple[Any, Any]:
    """(mean, deviation) along the last of `ndim` axes."""
    wide = lambda name: lax.broadcast_to_rank(params["latents"][name], ndim)
    return wide("mean"), wide("std")

  def measured(self, config: ml_collections.ConfigDict, mesh: Mesh) -> Self:
    """The latents with the statistics that a new run of `config` fixes.

    A run that starts from another's weights keeps the statistics that those
    were trained with.

    Raises:
      ValueError: a channel that does not vary.
    """
    if self.kind == BITS:
      return self
    if config.init_from != "none":
      source = workdir_lib.own_tokenizer(config.init_from) or config.init_from
      statistics = latent_statistics.read(source, self.channels)
      return dataclasses.replace(self, statistics=statistics, workdir=source)
    z_NC = self._training_latents(config, mesh)
    statistics = {"mean": z_NC.mean(0), "std": z_NC.std(0)}
    # The deviation of equal numbers is rounding, not always 0.
    least = _STILL * (np.abs(statistics["mean"]) + statistics["std"].max())
    still = np.flatnonzero(statistics["std"] <= least)
    if still.size:
      raise ValueError(
        f"channel {still[0]} of the latents of tokenizer_workdir={self.workdir}"
        f" has one value in {len(z_NC)} latents: train that tokenizer for"
        " longer, or with a lower quantizer.embedding_dim"
      )
    return dataclasses.replace(
      self,
      statistics={k: x.astype(np.float32) for k, x in statistics.items()},
    )

  def _training_latents(
    self, config: ml_collections.ConfigDict, mesh: Mesh
  ) -> np.ndarray:
    """Latents of the first batches, not normalised, float64 (N, C)."""
    size = config.batch_size
    count = -(-max(_CLIPS, -(-_LATENTS // self.num)) // size)
    encode = jax.jit(
      lambda params, video: self.tokens.network(
        params, tokenizer_network.to_float(video), method="encode"
      ),
      out_shardings=mesh_lib.replicated(mesh),
    )
    latents = []
    with progress_lib.phase(f"measuring latents of {count * size} clips"):
      batches = pipeline.train_batches(config.dataset, size)
      for batch in itertools.islice(batches, count):
        video = mesh_lib.place_global(batch["video"], mesh)
        z_BthwC = jax.device_get(encode(self.tokens.params, video))
        latents.append(z_BthwC.reshape(-1, self.channels))
    return np.concatenate(latents).astype(np.float64)


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
  if kind == CONTINUOUS and config.dataset.tokens:
    raise ValueError(
      f"dataset.tokens={config.dataset.tokens} holds ids, and latents.kind="
      f"{kind} has none: set dataset.tokens='', to train from pixels"
    )
  tokens = tokens_lib.open_tokenizer(config, mesh, abstract)
  workdir, settings = config.tokenizer_workdir, tokens.made_by.quantizer
  quantizer = quantizer_build.kind(settings.name)
  if kind == BITS and not quantizer.signs:
    raise ValueError(
      f"latents.kind={kind} needs a tokenizer whose codes are signs"
      f" ({', '.join(quantizer_build.names('signs'))}), and that in"
      f" tokenizer_workdir={workdir} has quantizer.name={settings.name!r}: name"
      " another"
      + ("" if quantizer.has_ids else f", or set latents.kind={CONTINUOUS}")
    )
  if kind == CONTINUOUS and quantizer.has_ids:
    raise ValueError(
      f"latents.kind={kind} needs a tokenizer without a quantizer, and that in"
      f" tokenizer_workdir={workdir} has quantizer.name={settings.name!r}, and"
      " a decoder that has seen codes alone: name one of quantizer.name=none"
      + (f", or set latents.kind={BITS}" if quantizer.signs else "")
    )
  channels = describe.latent_channels(tokens.made_by)
  latents = Latents(tokens, workdir, kind, channels)
  if kind == BITS:
    return latents
  number = jax.ShapeDtypeStruct((channels,), np.float32)
  statistics = {"mean": number, "std": number}
  if not abstract:
    statistics = latent_statistics.read(workdir, channels)
  return dataclasses.replace(latents, statistics=statistics)
