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
  """softplus(-D(fake))."""
  return jax.nn.softplus(-fake_logits_B).mean()


def non_saturating_discriminator(
  real_logits_B: jax.Array, fake_logits_B: jax.Array
) -> jax.Array:
  """softplus(-D(real)) + softplus(D(fake)); the two means are added."""
  real_loss = jax.nn.softplus(-real_logits_B).mean()
  return real_loss + jax.nn.softplus(fake_logits_B).mean()


def hinge_generator(fake_logits_B: jax.Array) -> jax.Array:
  """-D(fake)."""
  return -fake_logits_B.mean()


def hinge_discriminator(
  real_logits_B: jax.Array, fake_logits_B: jax.Array
) -> jax.Array:
  """relu(1 - D(real)) + relu(1 + D(fake)); the two means are added."""
  real_loss = jax.nn.relu(1.0 - real_logits_B).mean()
  return real_loss + jax.nn.relu(1.0 + fake_logits_B).mean()


# By the config's field loss.gan.
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
  if c.r1_interval < 1:
    raise ValueError(f"loss.r1_interval={c.r1_interval} must be at least 1")
  if config.health_every < 1:
    raise ValueError(f"health_every={config.health_every} must be at least 1")


def logits_and_lazy_r1(
  discriminator: Callable[[jax.Array], jax.Array],
  video_BTHWC: jax.Array,
  step: jax.Array,
  interval: int,
) -> tuple[jax.Array, jax.Array]:
  """Logits of real clips, and R1 times `interval` every `interval` steps.

  Between those steps R1 is 0, so that its mean over the steps is the same
  (StyleGAN2, arXiv 1912.04958, appendix B).
  """
  if interval == 1:
    return logits_and_r1(discriminator, video_BTHWC)

  def with_r1(video):
    logits_B, r1 = logits_and_r1(discriminator, video)
    return logits_B, interval * r1

  without_r1 = lambda video: (discriminator(video), jnp.zeros(()))
  return lax.cond(step % interval == 0, with_r1, without_r1, video_BTHWC)


def logits_and_r1(
  discriminator: Callable[[jax.Array], jax.Array], video_BTHWC: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Logits of real clips and the R1 penalty, from one forward pass.

  R1 is the mean over clips of the squared norm of dD/dx, summed over the whole
  clip and without the usual 1/2 (google-research/magvit `losses.py:207`).
  """
  logits_B, pullback = jax.vjp(discriminator, video_BTHWC)
  (gradient_BTHWC,) = pullback(jnp.ones_like(logits_B))
  return logits_B, jnp.square(gradient_BTHWC).sum((1, 2, 3, 4)).mean()


def lecam(
  real_logits_B: jax.Array,
  fake_logits_B: jax.Array,
  ema_real: jax.Array,
  ema_fake: jax.Array,
) -> jax.Array:
  """LeCAM regulariser on per-clip logits, anchors held fixed (praxis)."""
  real_loss = jnp.square(jax.nn.relu(real_logits_B - ema_fake)).mean()
  return real_loss + jnp.square(jax.nn.relu(ema_real - fake_logits_B)).mean()


def entropy_weight(
  step: jax.Array, weight: float, start_factor: float, annealing_steps: int
) -> jax.Array:
  """start_factor * weight at step 0, linear down to weight, then constant."""
  remaining = jnp.maximum(0.0, 1.0 - step / annealing_steps)
  return weight * (1.0 + (start_factor - 1.0) * remaining)
