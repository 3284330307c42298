"""Losses of the generators, in nats and float32."""

import jax
import jax.numpy as jnp


def masked_cross_entropy(
  logits_BNV: jax.Array,
  targets_BN: jax.Array,
  weights_BN: jax.Array,
  label_smoothing: float,
) -> jax.Array:
  """Label-smoothed cross-entropy in nats: weighted mean per clip, then mean."""
  loss_BN = cross_entropy(logits_BNV, targets_BN, label_smoothing)
  total_B = (loss_BN * weights_BN).sum(-1)
  return (total_B / jnp.maximum(weights_BN.sum(-1), 1e-8)).mean()


def cross_entropy(
  logits_BNV: jax.Array, targets_BN: jax.Array, label_smoothing: float
) -> jax.Array:
  """Label-smoothed cross-entropy of each token (B, N) in nats."""
  log_p_BNV = jax.nn.log_softmax(logits_BNV.astype(jnp.float32))
  target_BN = jnp.take_along_axis(log_p_BNV, targets_BN[..., None], -1)[..., 0]
  off = label_smoothing / logits_BNV.shape[-1]
  return -(1.0 - label_smoothing) * target_BN - off * log_p_BNV.sum(-1)
