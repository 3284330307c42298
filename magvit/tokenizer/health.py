"""Signs of life of a tokenizer in training: bits, codes, discriminator.

"It does not train and I cannot see why" has few causes, and these numbers tell
them apart: bits that never change (dead), bits that change all the time (flip
rate), latents that drift away from their codes (magnitude), a codebook that is
used in part, a discriminator that always or never wins, clips in other units.
evaluation/diagnosis/ reads them and says in a line what is wrong.
"""

from jax import lax
import jax.numpy as jnp

# A bit is dead when it has one value for all but this share of the tokens, and
# a channel without bits when it varies by this share of the one that varies
# most.
_DEAD_SHARE = 0.01
_MAX_TRACKED_CODES = 2**20


def init(video_shape, latent_shape, channels: int, vocabulary: int):
  """Running statistics for TrainState.extras.

  Args:
    video_shape: (T, H, W) of a clip.
    latent_shape: (t, h, w) of its tokens.
    channels: number of channels of a latent.
    vocabulary: number of codes; above 2^20 their use is not tracked. Without
      codes, at 0, there are no running statistics.
  """
  if not vocabulary:
    return {}
  tracked = vocabulary if vocabulary <= _MAX_TRACKED_CODES else 0
  return {
    # A clip of the first batch, which is encoded at every interval.
    "probe": jnp.zeros((1, *video_shape, 3)),
    "probe_signs": jnp.zeros((1, *latent_shape, channels), bool),
    "flip_rate": jnp.zeros(channels),
    "last_seen": jnp.full(tracked, jnp.iinfo(jnp.int32).min // 2, jnp.int32),
  }


def latents(video_BTHWC, z_BthwK):
  """Metrics of one step of a tokenizer without codes.

  Per-channel vectors `mean_magnitude` and `channel_std`, `dead_channels`, and
  of the clips what `update` gives.
  """
  std_K = z_BthwK.std((0, 1, 2, 3))
  return {
    "mean_magnitude": jnp.abs(z_BthwK).mean((0, 1, 2, 3)),
    "channel_std": std_K,
    "dead_channels": (std_K <= _DEAD_SHARE * std_K.max()).sum(),
    **_clips(video_BTHWC),
  }


def _clips(video_BTHWC):
  return {
    "pixel_low": video_BTHWC.min(),
    "pixel_high": video_BTHWC.max(),
    "pixel_variance": video_BTHWC.var(),
  }


def update(health, step, interval: int, video_BTHWC, z_BthwK, ids_Bthw, encode):
  """New running statistics and metrics of one step.

  Args:
    health: from `init` or the step before.
    step: int32 (), steps done before this one.
    interval: steps between two encodings of the probe, and the window in which
      a code counts as used.
    video_BTHWC: this step's clips.
    z_BthwK: their latents before quantization.
    ids_Bthw: their tokens.
    encode: clips (1, T, H, W, 3) to latents.

  Returns:
    Metrics: per-channel vectors `mean_magnitude`, `positive_share` and
    `flip_rate` (share of the probe's signs that changed within the last whole
    interval), `dead_bits`, and `codes_used` in the window, a share of all; of
    the clips `pixel_low`, `pixel_high` and `pixel_variance`, around one mean:
    the squared error of the best clip of one colour.
  """

  def probe_again(health):
    first = step == 0
    probe = jnp.where(first, video_BTHWC[:1], health["probe"])
    signs = encode(probe) >= 0
    flips_K = (signs != health["probe_signs"]).mean((0, 1, 2, 3))
    return {
      **health,
      "probe": probe,
      "probe_signs": signs,
      "flip_rate": jnp.where(first, 0.0, flips_K),
    }

  health = lax.cond(step % interval == 0, probe_again, lambda h: h, health)
  share_K = (z_BthwK >= 0).mean((0, 1, 2, 3))
  metrics = {
    "mean_magnitude": jnp.abs(z_BthwK).mean((0, 1, 2, 3)),
    "positive_share": share_K,
    "flip_rate": health["flip_rate"],
    "dead_bits": (jnp.minimum(share_K, 1.0 - share_K) < _DEAD_SHARE).sum(),
    **_clips(video_BTHWC),
  }
  if health["last_seen"].size:
    seen = health["last_seen"].at[ids_Bthw.reshape(-1)].set(step)
    health = {**health, "last_seen": seen}
    metrics["codes_used"] = (seen > step - interval).mean()
  return health, metrics
