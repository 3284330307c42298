"""The learning-rate schedule and the optax chain."""

import jax
import ml_collections
import optax


def make_schedule(
  config: ml_collections.ConfigDict, num_steps: int
) -> optax.Schedule:
  """Makes a linear warm-up to the peak, then one cosine that ends at 0.

  Raises:
    ValueError: a warm-up that is not shorter than the training.
  """
  if config.warmup_steps >= num_steps:
    raise ValueError(
      f"optimizer.warmup_steps={config.warmup_steps} must be below"
      f" num_steps={num_steps}: lower it, or train for longer"
    )
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.peak_learning_rate,
    warmup_steps=config.warmup_steps,
    decay_steps=num_steps,
  )


def make_optimizer(
  config: ml_collections.ConfigDict, num_steps: int
) -> optax.GradientTransformation:
  """Makes Adam with decoupled weight decay of kernels, and clipping."""
  clip = (
    optax.clip_by_global_norm(config.clip_norm)
    if config.clip_norm
    else optax.identity()
  )
  return optax.chain(
    clip,
    optax.scale_by_adam(b1=config.b1, b2=config.b2),
    optax.add_decayed_weights(config.weight_decay, mask=_is_kernel),
    optax.scale_by_learning_rate(make_schedule(config, num_steps)),
  )


def _is_kernel(params):
  """True at leaves named `kernel`: other parameters do not decay."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == "kernel", params
  )
