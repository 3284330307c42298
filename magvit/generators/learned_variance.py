"""Diffusion that predicts noise and learns the variance of its steps.

IDDPM (arXiv 2102.09672) in the form of DiT's code, which MAR's head trains
with: cosine schedule of 1000 steps, squared error of the noise plus the
variational bound of the variance, whose gradient does not reach the mean;
sampling in fewer steps of the same chain.
"""

from collections.abc import Callable
import dataclasses
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

NUM_STEPS = 1000
_OFFSET = 0.008  # IDDPM eq. 17: keeps the first steps from being too small
_LARGEST_BETA = 0.999
_BIN = 1.0 / 255.0  # half the width of a value in the first step's likelihood


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
  """Steps of diffusion, from clean to noise; arrays are over the S steps."""

  time_S: np.ndarray  # int32: the step of the 1000, which the network is told
  share_S: np.ndarray  # float64: alpha-bar, the share of x0 in the variance

  @classmethod
  def cosine(cls, steps: int = NUM_STEPS) -> "Chain":
    """The cosine schedule, respaced to this many steps, the last included.

    Raises:
      ValueError: fewer than two steps, or more than the schedule has.
    """
    if not 2 <= steps <= NUM_STEPS:
      raise ValueError(
        f"sampling.diffusion_steps={steps} must be from 2 to {NUM_STEPS}, the"
        " steps of the diffusion"
      )
    angle = np.linspace(0, 1, NUM_STEPS + 1) + _OFFSET
    level = np.cos(angle / (1 + _OFFSET) * math.pi / 2) ** 2
    beta = np.minimum(1 - level[1:] / level[:-1], _LARGEST_BETA)
    time_S = np.round(np.linspace(0, NUM_STEPS - 1, steps)).astype(np.int32)
    return cls(time_S, np.cumprod(1 - beta)[time_S])

  def add(self, x0: jax.Array, noise: jax.Array, step: jax.Array) -> jax.Array:
    """Noisy latents (..., C) after steps (...)."""
    share = self.share_S
    signal = _at(np.sqrt(share), step)
    return signal * x0 + _at(np.sqrt(1 - share), step) * noise

  def loss(
    self, output: jax.Array, x0: jax.Array, noise: jax.Array, step: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """(squared error, bound in bits), (...): means over channels.

    Args:
      output: a head's at `add(x0, noise, step)`, float32 (..., 2C).
      x0: clean latents (..., C).
      noise: standard normal, (..., C).
      step: int32 (...).
    """
    predicted, place = jnp.split(output, 2, axis=-1)
    x_t = self.add(x0, noise, step)
    # The bound trains the variance alone.
    clean = self.clean(x_t, lax.stop_gradient(predicted), step)
    mean, log_variance = self._towards(clean, x_t, step), self._log_variance
    true_mean = self._towards(x0, x_t, step)
    apart = log_variance(place, step) - log_variance(-1.0, step)
    distance = true_mean - mean
    kl = 0.5 * (
      apart
      + jnp.exp(-apart)
      - 1
      + distance**2 * jnp.exp(-log_variance(place, step))
    )
    first = -_log_likelihood(x0, mean, 0.5 * log_variance(place, step))
    bound = jnp.where((step == 0)[..., None], first, kl).mean(-1)
    return ((noise - predicted) ** 2).mean(-1), bound / math.log(2)

  def clean(
    self, x_t: jax.Array, predicted: jax.Array, step: jax.Array
  ) -> jax.Array:
    """The x0 (..., C) that a predicted noise stands for."""
    share = self.share_S
    noise = _at(np.sqrt(1 / share - 1), step) * predicted
    return _at(np.sqrt(1 / share), step) * x_t - noise

  def back(
    self,
    x_t: jax.Array,
    output: jax.Array,
    step: jax.Array,
    fresh: jax.Array,
    limit: float,
  ) -> jax.Array:
    """Latents one step less noisy, (..., C); step 0 gives clean ones.

    Args:
      x_t: noisy latents.
      output: the head's, (..., 2C).
      step: int32 (...).
      fresh: standard normal noise, perhaps times a temperature.
      limit: largest absolute value of x0. At the last steps a small error of
        the noise is an error of x0 thousands of times as large.
    """
    predicted, place = jnp.split(output, 2, axis=-1)
    clean = jnp.clip(self.clean(x_t, predicted, step), -limit, limit)
    mean = self._towards(clean, x_t, step)
    sigma = jnp.exp(0.5 * self._log_variance(place, step))
    return mean + jnp.where((step > 0)[..., None], sigma * fresh, 0)

  def denoise(
    self,
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    noise: jax.Array,
    temperature: float | jax.Array,
    limit: float,
  ) -> jax.Array:
    """Draws x0 (..., C) from the noise that it starts as, by all steps.

    Args:
      predict: function of (x_t, time int32 ()) to a head's output.
      key: draws the noise that each step adds.
      noise: standard normal, (..., C).
      temperature: factor of the noise that is added.
      limit: as for `back`.
    """
    last = len(self.time_S) - 1

    def one_step(x_t, k):
      step = last - k
      fresh = jax.random.normal(jax.random.fold_in(key, k), x_t.shape)
      output = predict(x_t, jnp.asarray(self.time_S)[step])
      step = jnp.broadcast_to(step, x_t.shape[:-1])
      return self.back(x_t, output, step, temperature * fresh, limit), None

    return lax.scan(one_step, noise, jnp.arange(last + 1))[0]

  def _towards(self, x0, x_t, step):
    """Mean of the true step back, given x0."""
    before = np.append(1.0, self.share_S[:-1])
    beta = self._beta
    of_x0 = beta * np.sqrt(before) / (1 - self.share_S)
    of_x_t = (1 - before) * np.sqrt(1 - beta) / (1 - self.share_S)
    return _at(of_x0, step) * x0 + _at(of_x_t, step) * x_t

  def _log_variance(self, place, step):
    """Between that of the true step back, at -1, and that of beta, at 1."""
    before = np.append(1.0, self.share_S[:-1])
    true = self._beta * (1 - before) / (1 - self.share_S)
    low = _at(np.log(np.append(true[1], true[1:])), step)  # that of step 0 is 0
    high = _at(np.log(self._beta), step)
    share = (place + 1) / 2
    return share * high + (1 - share) * low

  @property
  def _beta(self) -> np.ndarray:
    return 1 - self.share_S / np.append(1.0, self.share_S[:-1])


def _at(table_S: np.ndarray, step: jax.Array) -> jax.Array:
  """Values of steps (...), float32 (..., 1)."""
  return jnp.asarray(table_S.astype(np.float32))[step][..., None]


def _log_likelihood(x, mean, log_sigma):
  """Logarithm of a normal law's interval around x; +-1 have no far end."""
  inverse = jnp.exp(-log_sigma)
  above = jax.scipy.stats.norm.cdf((x - mean + _BIN) * inverse)
  below = jax.scipy.stats.norm.cdf((x - mean - _BIN) * inverse)
  above = jnp.where(x > 0.999, 1.0, above)
  below = jnp.where(x < -0.999, 0.0, below)
  return jnp.log(jnp.maximum(above - below, 1e-12))
