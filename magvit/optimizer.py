"""The learning-rate schedule and the optax chain."""

import itertools

import jax
import ml_collections
import optax
from optax import contrib


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
  """Makes the optimizer of a config's section `optimizer`.

  "adam" is Adam with decoupled weight decay of kernels. "muon" (Jordan et al.,
  2024) makes the average gradient of each kernel orthogonal, as a matrix from
  all that an output reads to the outputs, so that directions with a small
  gradient are learned as fast as those with a large one; other parameters have
  Adam. Its steps are scaled to the root mean square of Adam's (arXiv
  2502.16982, eq. 4), so that learning rates of both compare. Each of stacked
  layers, and each of queries, keys and values, is a matrix of its own.

  Raises:
    ValueError: an unknown name, or a warm-up that is not shorter than the
      training.
  """
  makers = {"adam": _adam, "muon": _muon}
  if config.name not in makers:
    raise ValueError(
      f"optimizer.name={config.name!r}: expected one of {sorted(makers)}"
    )
  clip = (
    optax.clip_by_global_norm(config.clip_norm)
    if config.clip_norm
    else optax.identity()
  )
  schedule = make_schedule(config, num_steps)
  return optax.chain(clip, *makers[config.name](config, schedule))


# Ratio of the root mean square of Adam's steps to the learning rate, as
# measured in arXiv 2502.16982.
_ADAM_RMS = 0.2


def _adam(
  config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> list[optax.GradientTransformation]:
  return [
    optax.scale_by_adam(b1=config.b1, b2=config.b2),
    optax.add_decayed_weights(config.weight_decay, mask=_is_kernel),
    optax.scale_by_learning_rate(schedule),
  ]


def _muon(
  config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> list[optax.GradientTransformation]:
  muon = contrib.muon(
    schedule,
    weight_decay=config.weight_decay,
    weight_decay_mask=_is_kernel,
    adam_b1=config.b1,
    adam_b2=config.b2,
    muon_weight_dimension_numbers=_matrices,
    consistent_rms=_ADAM_RMS,
  )
  return [muon]


def _is_kernel(params):
  """True at leaves named `kernel`: other parameters do not decay."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == "kernel", params
  )


# Modules of layers that are stacked along the first axis of each parameter.
_STACKS = ("blocks", "layers", "pairs")


def _matrices(params):
  """How each kernel is matrices, inputs by outputs; None at other leaves.

  Axes that are neither inputs nor outputs count matrices.
  """

  def matrices(path, is_kernel: bool, x) -> contrib.MuonDimensionNumbers | None:
    names = [str(key.key) for key in path]
    # Layers in a list have a number after the list's name.
    pairs = itertools.pairwise(names)
    stacked = any(a in _STACKS and not b.isdigit() for a, b in pairs)
    axes = range(stacked, x.ndim)
    if not is_kernel or len(axes) < 2:
      return None
    if "qkv" in names[-2:]:  # (inputs, 3, heads, channels of a head)
      return contrib.MuonDimensionNumbers(axes[0], tuple(axes[2:]))
    return contrib.MuonDimensionNumbers(tuple(axes[:-1]), axes[-1])

  is_kernel = _is_kernel(params)
  return jax.tree_util.tree_map_with_path(matrices, is_kernel, params)
