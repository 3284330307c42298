"""One backward pass for two gradients that differ by a factor of each clip.

A discriminator sees each clip alone. The gradient of a loss with respect to a
layer's output is therefore that of the clip's logit, times a number of the
clip. So one pass back through the layers, from cotangents of 1, serves every
loss of the logits: the gradient of the clips is scaled behind it, and each
layer scales what its weights get.

`Shares` carries these numbers. They go through every layer as an array beside
the activations, unchanged; in the backward pass its cotangent has the clips'
shares in the gradient of the weights. R1 differentiates that backward pass
once more, and the shares go through it likewise, so that a layer's weights get
the gradients of R1 and of the other losses as one product.
"""

from collections.abc import Callable
import functools
import typing

import jax
from jax import lax
import jax.numpy as jnp

# (kernel, bias or None) of a layer.
Weights = tuple[jax.Array, jax.Array | None]
# (input, weights) of a layer to its output: linear in both but for the bias.
Layer = Callable[[jax.Array, Weights], jax.Array]


class Shares:
  """What passes through the layers of a network in turn, beside activations."""

  def __init__(self, shares_B: jax.Array):
    self.shares_B = shares_B

  def run(self, layer: Layer, x: jax.Array, weights: Weights) -> jax.Array:
    y, self.shares_B = typing.cast(
      tuple[jax.Array, jax.Array], _run(layer, x, weights, self.shares_B)
    )
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(layer: Layer, x, weights: Weights, shares_B):
  return layer(x, weights), shares_B


def _run_forward(layer, x, weights, shares_B):
  return _run(layer, x, weights, shares_B), (x, weights)


def _run_backward(layer, kept, cotangents):
  (x, weights), (g, shares_B) = kept, cotangents
  _, to_weights = jax.vjp(lambda weights: layer(x, weights), weights)
  (weights_gradient,) = to_weights(_scale(g, shares_B))
  to_input = _to_input(layer, g, lax.stop_gradient(x), weights, shares_B)
  g_x, shares_B = typing.cast(tuple[jax.Array, jax.Array], to_input)
  return g_x, weights_gradient, shares_B


_run.defvjp(_run_forward, _run_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _to_input(layer: Layer, g, x, weights: Weights, shares_B):
  """Gradient of the input `x` for that of the output, `g`; and the shares."""
  _, to_input = jax.vjp(lambda x: layer(x, weights), x)
  return to_input(g)[0], shares_B


def _to_input_forward(layer, g, x, weights, shares_B):
  return _to_input(layer, g, x, weights, shares_B), (g, x, weights)


def _to_input_backward(layer, kept, cotangents):
  (g, x, (kernel, bias)), (along, shares_B) = kept, cotangents
  # The gradient of the input is linear in `g`: its transpose is the layer.
  along_y = layer(along, (kernel, None))
  _, to_kernel = jax.vjp(
    lambda kernel: layer(along + _scale(x, shares_B), (kernel, None)), kernel
  )
  if bias is not None:
    bias = _scale(g, shares_B).sum(tuple(range(g.ndim - 1)))
  return along_y, None, (to_kernel(g)[0], bias), shares_B


_to_input.defvjp(_to_input_forward, _to_input_backward)


def _scale(x, shares_B):
  return x * shares_B.reshape(-1, *[1] * (x.ndim - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def logits_for_both(
  discriminate: Callable, params, video_BTHWC: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Logits (B,) twice: their gradients reach the clips, and the weights, alone.

  `discriminate(params, video, shares)` gives logits and shares.
  """
  logits_B, _ = discriminate(params, video_BTHWC, _zeros(video_BTHWC))
  return logits_B, logits_B


def _for_both_forward(discriminate, params, video_BTHWC):
  zeros_B = _zeros(video_BTHWC)
  (logits_B, _), pullback = jax.vjp(
    lambda params, video: discriminate(params, video, zeros_B),
    params,
    video_BTHWC,
  )
  return (logits_B, logits_B), pullback


def _for_both_backward(discriminate, pullback, cotangents):
  del discriminate
  to_clips_B, to_weights_B = cotangents
  g_params, g_video = pullback((jnp.ones_like(to_clips_B), to_weights_B))
  return g_params, _scale(g_video, to_clips_B)


logits_for_both.defvjp(_for_both_forward, _for_both_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def logits_and_r1(
  discriminate: Callable, params, video_BTHWC: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Logits (B,) and R1 of real clips, whose gradients reach the weights alone.

  R1 is the mean over clips of the squared norm of dD/dx, summed over the whole
  clip and without the usual 1/2 (google-research/magvit `losses.py:207`).
  `discriminate` is that of `logits_for_both`.
  """
  (slope_BTHWC, _), logits_B = _slopes(discriminate, params, video_BTHWC)
  return logits_B, _penalty(slope_BTHWC)


def _slopes(discriminate, params, video_BTHWC):
  """((gradient of each clip's logit, shares), logits)."""
  zeros_B = _zeros(video_BTHWC)
  (logits_B, _), pullback = jax.vjp(
    lambda video, shares_B: discriminate(params, video, shares_B),
    video_BTHWC,
    zeros_B,
  )
  return pullback((jnp.ones_like(logits_B), zeros_B)), logits_B


def _penalty(slope_BTHWC):
  return jnp.square(slope_BTHWC).sum((1, 2, 3, 4)).mean()


def _with_r1_forward(discriminate, params, video_BTHWC):
  (slope_BTHWC, _), pullback, logits_B = jax.vjp(
    lambda params: _slopes(discriminate, params, video_BTHWC),
    params,
    has_aux=True,
  )
  return (logits_B, _penalty(slope_BTHWC)), (pullback, slope_BTHWC)


def _with_r1_backward(discriminate, kept, cotangents):
  del discriminate
  (pullback, slope_BTHWC), (to_weights_B, g_r1) = kept, cotangents
  (along_BTHWC,) = jax.vjp(_penalty, slope_BTHWC)[1](g_r1)
  (g_params,) = pullback((along_BTHWC, to_weights_B))
  return g_params, None


logits_and_r1.defvjp(_with_r1_forward, _with_r1_backward)


def _zeros(video_BTHWC):
  return jnp.zeros(len(video_BTHWC))
