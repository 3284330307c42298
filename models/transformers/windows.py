"""Windows of grids of tokens (B, t, h, w, ...), which are never shifted."""

from collections.abc import Sequence
import math

import jax
import numpy as np

Window = tuple[int, int, int]  # latent frames, rows and columns


def to_windows(x: jax.Array, window: Window) -> jax.Array:
  """Windows (B * windows, N, ...) of an array (B, t, h, w, ...)."""
  batch, t, h, w, *rest = x.shape
  a, b, c = window
  x = x.reshape(batch, t // a, a, h // b, b, w // c, c, *rest)
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, *range(7, x.ndim))
  return x.reshape(-1, a * b * c, *rest)


def from_windows(
  x: jax.Array, window: Window, shape: Sequence[int]
) -> jax.Array:
  """The array (B, t, h, w, ...) of which `to_windows` made these."""
  batch, t, h, w = shape
  a, b, c = window
  x = x.reshape(batch, t // a, h // b, w // c, a, b, c, *x.shape[2:])
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, *range(7, x.ndim))
  return x.reshape(batch, t, h, w, *x.shape[7:])


def relative_places(window: Window) -> np.ndarray:
  """Rows of the table of biases, int32 (N, N), for each query and key."""
  places = np.stack(np.unravel_index(np.arange(math.prod(window)), window))
  apart = places[:, :, None] - places[:, None, :]  # (3, N, N)
  sides = np.array(window)[:, None, None]
  table = tuple(2 * side - 1 for side in window)
  rows = np.ravel_multi_index(tuple(apart + sides - 1), table)
  return np.asarray(rows, np.int32)


def to_patches(x_BthwC: jax.Array, patch: int) -> jax.Array:
  """Squares of latents as one token, (B, t, h / p, w / p, p * p * C)."""
  batch, t, h, w, _ = x_BthwC.shape
  squares = to_windows(x_BthwC, (1, patch, patch))
  return squares.reshape(batch, t, h // patch, w // patch, -1)


def from_patches(x_BthwK: jax.Array, patch: int) -> jax.Array:
  """The inverse of `to_patches`: (B, t, h * p, w * p, K / (p * p))."""
  batch, t, h, w, _ = x_BthwK.shape
  squares = x_BthwK.reshape(batch * t * h * w, patch**2, -1)
  shape = (batch, t, h * patch, w * patch)
  return from_windows(squares, (1, patch, patch), shape)
