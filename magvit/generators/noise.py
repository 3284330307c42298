"""Processes that turn latents into noise, and the steps back.

Two processes of one interface, pure functions of arrays:

diffusion  W.A.L.T (arXiv 2312.06662, section 3): linear betas, rescaled so that
           the last step is noise alone (arXiv 2305.08891), v-prediction (arXiv
           2202.00512), trailing steps of DDIM (arXiv 2010.02502)
flow       flow matching on straight lines (arXiv 2210.02747), Euler's steps

Both mix x_t = signal * x0 + noise_scale * noise, and a step from t to s keeps
the x0 and the noise that the network says: of diffusion that is DDIM, of the
straight line it is Euler. A time t is (), (B,) or has more leading axes of the
latents, like (B, t, 1, 1); it broadcasts from the left.
"""

import abc
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

_FIRST_BETA, _LAST_BETA = 1e-4, 0.02  # section 3 of W.A.L.T; DDPM's


@dataclasses.dataclass(frozen=True)
class Process(abc.ABC):
  """A way from latents to noise, and what a network predicts along it."""

  @abc.abstractmethod
  def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws times of training."""

  @abc.abstractmethod
  def at(self, share: jax.Array) -> jax.Array:
    """The time at a share of the way, float32, from 0, clean, to 1, noise."""

  @abc.abstractmethod
  def times(self, steps: int) -> jax.Array:
    """Times (steps + 1,) of sampling, from pure noise to clean latents.

    Raises:
      ValueError: fewer than one step, or more than the process has.
    """

  @abc.abstractmethod
  def embedding(self, t: jax.Array) -> jax.Array:
    """The time as a network is told it, float32 in 0..1000."""

  @abc.abstractmethod
  def scales(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Factors of x0 and of the noise in x_t, float32 of the shape of t."""

  @abc.abstractmethod
  def target(self, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """The output that a perfect network has at x_t."""

  @abc.abstractmethod
  def clean(self, x_t: jax.Array, output: jax.Array, t: jax.Array) -> jax.Array:
    """The x0 that an output at x_t stands for."""

  @abc.abstractmethod
  def noise(self, x_t: jax.Array, output: jax.Array, t: jax.Array) -> jax.Array:
    """The noise that an output at x_t stands for."""

  def add(self, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """Latents x_t: x0 with this noise, standard normal, mixed in."""
    signal, scale = self._scales_like(x0, t)
    return signal * x0 + scale * noise

  def step(
    self, x_t: jax.Array, output: jax.Array, t: jax.Array, s: jax.Array
  ) -> jax.Array:
    """Latents x_s of the less noisy time s; deterministic."""
    return self.add(self.clean(x_t, output, t), self.noise(x_t, output, t), s)

  def noisy_step(
    self,
    x_t: jax.Array,
    output: jax.Array,
    t: jax.Array,
    s: jax.Array,
    fresh: jax.Array,
    eta: float = 1.0,
  ) -> jax.Array:
    """As `step`, with a part of the noise renewed; eta 1 is ancestral sampling.

    Args:
      x_t: noisy latents.
      output: the network's at x_t.
      t: the time of x_t.
      s: the less noisy time of what is returned.
      fresh: standard normal noise, perhaps times a temperature.
      eta: DDIM's (arXiv 2010.02502, eq. 16), here as a ratio of signal to
        noise, which holds for any process; 0 renews nothing.
    """
    signal_t, scale_t = self._scales_like(x_t, t)
    signal_s, scale_s = self._scales_like(x_t, s)
    ratio = signal_t * scale_s / (signal_s * scale_t)
    renewed = eta * jnp.sqrt(jnp.maximum(1.0 - ratio**2, 0.0))
    kept = jnp.sqrt(1.0 - renewed**2)
    noise = kept * self.noise(x_t, output, t) + renewed * fresh
    return signal_s * self.clean(x_t, output, t) + scale_s * noise

  def _scales_like(self, x, t):
    return tuple(_from_left(scale, x) for scale in self.scales(t))


@dataclasses.dataclass(frozen=True)
class Diffusion(Process):
  """Diffusion in `num_steps` steps, v-prediction.

  A time is an index int32 in 0..num_steps - 1, and -1 stands for x0.
  """

  num_steps: int = 1000
  zero_snr: bool = True  # whether the last step is rescaled to noise alone

  @property
  def signal_share(self) -> np.ndarray:
    """Alpha-bar, the share of x0 in the variance of x_t: float32 (num_steps,).

    The papers count from 1: their alpha-bar_1000 is at index 999.
    """
    return _signal_share(self.num_steps, self.zero_snr).astype(np.float32)

  def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.randint(key, shape, 0, self.num_steps)

  def at(self, share: jax.Array) -> jax.Array:
    return jnp.round(share * self.num_steps).astype(jnp.int32) - 1

  def times(self, steps: int) -> jax.Array:
    if not 1 <= steps <= self.num_steps:
      raise ValueError(
        f"sampling.steps={steps} must be from 1 to {self.num_steps}, the steps"
        " of the diffusion"
      )
    # Trailing: those that lead from 0 would never see the end, where sampling
    # begins.
    parts = np.arange(steps, -1, -1) * self.num_steps / steps
    return jnp.asarray(np.round(parts).astype(np.int32) - 1)

  def embedding(self, t: jax.Array) -> jax.Array:
    return t.astype(jnp.float32) * (1000 / self.num_steps)

  def scales(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    # One more row than steps, for x0. Roots are drawn in float64, because
    # float32 cannot tell the first shares from 1.
    share = np.append(1.0, _signal_share(self.num_steps, self.zero_snr))
    rows = np.stack([np.sqrt(share), np.sqrt(1.0 - share)]).astype(np.float32)
    signal, scale = jnp.asarray(rows)
    return signal[t + 1], scale[t + 1]

  def target(self, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    # Section 3 of W.A.L.T prints the two factors exchanged.
    signal, scale = self._scales_like(x0, t)
    return signal * noise - scale * x0

  def clean(self, x_t: jax.Array, output: jax.Array, t: jax.Array) -> jax.Array:
    signal, scale = self._scales_like(x_t, t)
    return signal * x_t - scale * output

  def noise(self, x_t: jax.Array, output: jax.Array, t: jax.Array) -> jax.Array:
    signal, scale = self._scales_like(x_t, t)
    return scale * x_t + signal * output


@dataclasses.dataclass(frozen=True)
class FlowMatching(Process):
  """The straight line from x0, at time 0.0, to noise, at 1.0; velocity."""

  def draw(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape)

  def at(self, share: jax.Array) -> jax.Array:
    return share

  def times(self, steps: int) -> jax.Array:
    if steps < 1:
      raise ValueError(f"sampling.steps={steps} must be at least 1")
    return jnp.linspace(1.0, 0.0, steps + 1)

  def embedding(self, t: jax.Array) -> jax.Array:
    return 1000.0 * t

  def scales(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    return 1.0 - t, t

  def target(self, x0: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    del t
    return noise - x0

  def clean(self, x_t: jax.Array, output: jax.Array, t: jax.Array) -> jax.Array:
    return x_t - self._scales_like(x_t, t)[1] * output

  def noise(self, x_t: jax.Array, output: jax.Array, t: jax.Array) -> jax.Array:
    return x_t + self._scales_like(x_t, t)[0] * output


PROCESSES: dict[str, type[Process]] = {
  "diffusion": Diffusion,
  "flow": FlowMatching,
}


def find(name: str) -> Process:
  """The process of a name; raises ValueError if PROCESSES lacks it."""
  if name not in PROCESSES:
    raise ValueError(
      f"noise.process={name!r} must be one of {sorted(PROCESSES)}"
    )
  return PROCESSES[name]()


@functools.cache
def _signal_share(num_steps: int, zero_snr: bool) -> np.ndarray:
  """Alpha-bar in float64."""
  betas = np.linspace(_FIRST_BETA, _LAST_BETA, num_steps)
  share = np.cumprod(1.0 - betas)
  if not zero_snr:
    return share
  # The roots are shifted so that the last is 0, and scaled so that the first
  # stays (arXiv 2305.08891, algorithm 1).
  root = np.sqrt(share)
  return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def _from_left(t: jax.Array, x: jax.Array) -> jax.Array:
  """The times with axes of 1 added on the right, as many as x has."""
  return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
