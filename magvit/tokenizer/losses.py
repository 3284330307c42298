"""Losses of the tokenizer; weights are applied by the caller.

MAGVIT-v2 (arXiv 2310.05737, appendix) with the details of Google's code
(google-research/magvit `losses.py`, praxis `layers/video/losses.py`). Scalars
in float32, means over the global batch. Pixels are in [0, 1].
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp
import ml_collections


def reconstruction(
  video_BTHWC: jax.Array, output_BTHWC: jax.Array
) -> jax.Array:
  """Mean squared error per pixel and channel."""
  return jnp.square(video_BTHWC - output_BTHWC).mean()


def perceptual(
  distance: Callable[[jax.Array, jax.Array], jax.Array],
  video_BTHWC: jax.Array,
  output_BTHWC: jax.Array,
) -> jax.Array:
  """Mean over every frame of its distance from the target, which is fixed.

  `distance` takes frames (B * T, H, W, 3), the target's and the output's, and
  gives (B * T,).
  """
  frames = lambda x: x.reshape(-1, *x.shape[2:])
  target = lax.stop_gradient(frames(video_BTHWC))
  return distance(target, frames(output_BTHWC)).mean()


def non_saturating_generator(fake_logits_B: jax.Array) -> jax.Array:
  """Mean of softplus(-D(fake))."""
  return jax.nn.softplus(-fake_logits_B).mean()


def non_saturating_discriminator(
  real_logits_B: jax.Array, fake_logits_B: jax.Array
) -> jax.Array:
  """Mean of softplus(-D(real)) plus mean of softplus(D(fake))."""
  real_loss = jax.nn.softplus(-real_logits_B).mean()
  return real_loss + jax.nn.softplus(fake_logits_B).mean()


def hinge_generator(fake_logits_B: jax.Array) -> jax.Array:
  """Mean of -D(fake)."""
  return -fake_logits_B.mean()


def hinge_discriminator(
  real_logits_B: jax.Array, fake_logits_B: jax.Array
) -> jax.Array:
  """Mean of relu(1 - D(real)) plus mean of relu(1 + D(fake))."""
  real_loss = jax.nn.relu(1.0 - real_logits_B).mean()
  return real_loss + jax.nn.relu(1.0 + fake_logits_B).mean()


# Keys are values of the config's field loss.gan.
GENERATOR_ADVERSARIAL = {
  "non_saturating": non_saturating_generator,
  "hinge": hinge_generator,
}
DISCRIMINATOR_ADVERSARIAL = {
  "non_saturating": non_saturating_discriminator,
  "hinge": hinge_discriminator,
}


def check_settings(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for loss settings that cannot work."""
  c = config.loss
  if c.gan not in GENERATOR_ADVERSARIAL:
    raise ValueError(
      f"loss.gan={c.gan!r} must be one of {sorted(GENERATOR_ADVERSARIAL)}"
    )
  if c.adversarial and c.adversarial_start >= first_pixel_step(config):
    raise ValueError(
      f"loss.adversarial_start={c.adversarial_start} must be below"
      f" {first_pixel_step(config)}, which num_steps={config.num_steps} and"
      f" loss.pixel_share={c.pixel_share:g} leave, or the generator never has"
      " the GAN loss: lower it, or set loss.adversarial to 0"
    )
  if c.r1_interval < 1:
    raise ValueError(f"loss.r1_interval={c.r1_interval} must be at least 1")
  if config.health_every < 1:
    raise ValueError(f"health_every={config.health_every} must be at least 1")


def lazy_r1(
  with_r1: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
  without_r1: Callable[[jax.Array], jax.Array],
  video_BTHWC: jax.Array,
  step: jax.Array,
  interval: int,
) -> tuple[jax.Array, jax.Array]:
  """Logits of real clips, and R1 times `interval` every `interval` steps.

  Between those steps R1 is 0, so that its mean over the steps is the same
  (StyleGAN2, arXiv 1912.04958, appendix B), and only logits are computed.
  """
  if interval == 1:
    return with_r1(video_BTHWC)

  def scaled(video):
    logits_B, r1 = with_r1(video)
    return logits_B, interval * r1

  alone = lambda video: (without_r1(video), jnp.zeros(()))
  return lax.cond(step % interval == 0, scaled, alone, video_BTHWC)


def lecam(
  real_logits_B: jax.Array,
  fake_logits_B: jax.Array,
  ema_real: jax.Array,
  ema_fake: jax.Array,
) -> jax.Array:
  """LeCAM regulariser on per-clip logits, anchors held fixed as in praxis."""
  real_loss = jnp.square(jax.nn.relu(real_logits_B - ema_fake)).mean()
  return real_loss + jnp.square(jax.nn.relu(ema_real - fake_logits_B)).mean()


def move_anchors(
  anchors: dict[str, jax.Array],
  real_logits_B: jax.Array,
  fake_logits_B: jax.Array,
  decay: float,
) -> dict[str, jax.Array]:
  """LeCAM's moving averages, updated before their use as in praxis."""
  average = lambda old, logits_B: (
    decay * old + (1.0 - decay) * lax.stop_gradient(logits_B.mean())
  )
  return {
    "real": average(anchors["real"], real_logits_B),
    "fake": average(anchors["fake"], fake_logits_B),
  }


def discriminator(
  config: ml_collections.ConfigDict,
  real_logits_B: jax.Array,
  fake_logits_B: jax.Array,
  r1: jax.Array,
  anchors: dict[str, jax.Array],
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The discriminator's loss by the section `loss`, and terms as metrics."""
  adversarial = DISCRIMINATOR_ADVERSARIAL[config.gan](
    real_logits_B, fake_logits_B
  )
  anchored = lecam(
    real_logits_B, fake_logits_B, anchors["real"], anchors["fake"]
  )
  loss = adversarial + config.r1 * r1 + config.lecam * anchored
  right = (real_logits_B > 0).mean() + (fake_logits_B < 0).mean()
  return loss, {
    "loss": loss,
    "adversarial": adversarial,
    "r1": r1,
    "lecam": anchored,
    "lecam_real": anchors["real"],
    "lecam_fake": anchors["fake"],
    "accuracy": 0.5 * right,
    "real_logit": real_logits_B.mean(),
    "fake_logit": fake_logits_B.mean(),
  }


def first_pixel_step(config: ml_collections.ConfigDict) -> int:
  """The step, counted from 0, from which `loss.pixel_share` holds."""
  return config.num_steps - round(config.loss.pixel_share * config.num_steps)


def weights(
  config: ml_collections.ConfigDict, step: jax.Array
) -> dict[str, float | jax.Array]:
  """Weights of the generator's terms at a step, counted from 0.

  That of the entropy is annealed; that of the GAN loss is 0 before its start.
  In the last steps, `loss.pixel_share` of all, the output is compared by its
  pixels alone.
  """
  c = config.loss
  entropy = entropy_weight(
    step, c.entropy, c.entropy_start_factor, c.entropy_annealing_steps
  )
  names = ("reconstruction", "commitment", "codebook")
  more_than_pixels = step < first_pixel_step(config)
  adversarial = more_than_pixels & (step >= c.adversarial_start)
  return {
    **{name: c[name] for name in names},
    "perceptual": jnp.where(more_than_pixels, c.perceptual, 0.0),
    "adversarial": jnp.where(adversarial, c.adversarial, 0.0),
    "entropy": entropy,
  }


def entropy_weight(
  step: jax.Array, weight: float, start_factor: float, annealing_steps: int
) -> jax.Array:
  """Falls linearly from start_factor * weight at step 0, then stays weight."""
  remaining = jnp.maximum(0.0, 1.0 - step / annealing_steps)
  return weight * (1.0 + (start_factor - 1.0) * remaining)
