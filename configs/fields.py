"""What the values of fields can be: ranges of numbers, and which are paths.

A value that is no number, or out of its range, is refused here before anything
is loaded, in a line that names the field. What depends on other fields or on
the machine is checked where it is used.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import math
import numbers
import typing
from typing import Any

import ml_collections

# Largest whole number of a range without an end: steps are counted in int32.
_LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Range:
  """Finite numbers from `low` to `high`; each end belongs to it unless open."""

  low: float
  high: float = math.inf
  whole: bool = False  # whether only whole numbers belong to it
  low_open: bool = False
  high_open: bool = False

  def check(self, name: str, value: Any) -> None:
    """Raises ValueError "NAME=VALUE must be ..." for what is not in it."""
    kind = numbers.Integral if self.whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
      raise ValueError(f"{name}={value!r} must be {self}")
    value = typing.cast(float, value)
    low = self.low < value if self.low_open else self.low <= value
    high = value < self.high if self.high_open else value <= self.high
    endless = _LARGEST if self.whole else math.nextafter(math.inf, 0)
    # Comparisons with NaN are false.
    if not (low and high and (value <= endless or self.high < math.inf)):
      raise ValueError(f"{name}={value} must be {self}")

  def __str__(self) -> str:
    low = f"{'above' if self.low_open else 'at least'} {self.low}"
    high = f"{'below' if self.high_open else 'at most'} {self.high}"
    if self.high == math.inf:
      high = f"at most {_LARGEST}" if self.whole else "finite"
    end = ", a whole number" if self.whole else ""
    return f"{low} and {high}{end}"


def whole(low: int, high: float = math.inf) -> Range:
  return Range(low, high, whole=True)


COUNT = whole(1)
SEED = whole(0, 2**32 - 1)  # what numpy and JAX take alike
GUIDANCE = Range(-1)  # -1: the unconditional model alone
_AMOUNT = Range(0)
_POSITIVE = Range(0, low_open=True)
_SHARE = Range(0, 1)
_NONE_OR_MORE = whole(0)
_DECAY = Range(0, 1, high_open=True)  # at 1 an average would never change

_TRANSFORMER = {
  "num_layers": COUNT,
  "width": COUNT,
  "mlp_width": COUNT,
  "num_heads": COUNT,
  "factor_bits": COUNT,
  "dropout": _DECAY,
  "num_classes": _NONE_OR_MORE,
}
# The range of every number of configs/base.py and job.py, by section; of a
# tuple, that of each of its numbers.
RANGES: dict[str, dict[str, Range]] = {
  "": {
    "seed": SEED,
    "num_steps": _NONE_OR_MORE,
    "batch_size": _NONE_OR_MORE,
    "microbatches": COUNT,
    "log_every": COUNT,
    "checkpoint_every": COUNT,
    "checkpoints_to_keep": COUNT,
    "eval_every": _NONE_OR_MORE,
    "profile_steps": _NONE_OR_MORE,
    "health_every": COUNT,
    "ema_decay": _DECAY,
    "condition_frames": COUNT,
    "label_drop": _SHARE,
    "label_smoothing": _DECAY,
    "masks_per_clip": COUNT,
    "draws_per_token": COUNT,
    "later_start": _SHARE,
    "loss_chunks": COUNT,
  },
  "dataset": {
    "frames": COUNT,
    "size": COUNT,
    "seed": SEED,
    "train_examples": _NONE_OR_MORE,
    "eval_examples": _NONE_OR_MORE,
    "held_out_share": Range(0, 1, low_open=True, high_open=True),
    "joint_images": _NONE_OR_MORE,
    "fold": whole(1, 3),
    "stride": COUNT,
    "short_side": _NONE_OR_MORE,
    "scale": Range(0, 1, low_open=True),
    "workers": _NONE_OR_MORE,
  },
  "automatic": {
    "epochs": _NONE_OR_MORE,
    "least_steps": COUNT,
    "most_steps": COUNT,
    "batch_size": _NONE_OR_MORE,
    "eval_examples": _NONE_OR_MORE,
  },
  "mesh": {
    "slices": whole(-1),
    "data": whole(-1),
    "fsdp": COUNT,
    "tensor": COUNT,
  },
  "watch": {
    "heartbeat_seconds": _POSITIVE,
    "hang_seconds": _AMOUNT,
    "skips": _NONE_OR_MORE,
    "spike": _AMOUNT,
  },
  "evaluation": {"num": _NONE_OR_MORE},
  "optimizer": {
    "peak_learning_rate": _AMOUNT,
    "warmup_steps": _NONE_OR_MORE,
    "b1": _DECAY,
    "b2": _DECAY,
    "weight_decay": _AMOUNT,
    "clip_norm": _AMOUNT,
  },
  "tokenizer": {
    "base_channels": COUNT,
    "channel_multipliers": COUNT,
    "num_res_blocks": _NONE_OR_MORE,
    "norm_groups": COUNT,
  },
  "tokenizer.transformer": {
    "width": COUNT,
    "mlp_width": COUNT,
    "num_heads": COUNT,
    "spatial_layers": _NONE_OR_MORE,
    "temporal_layers": _NONE_OR_MORE,
    "latent_size": COUNT,
    "max_latent_frames": COUNT,
  },
  "quantizer": {
    "bits": COUNT,
    "entropy_temperature": _POSITIVE,
    "entropy_groups": _NONE_OR_MORE,
    "codebook_size": COUNT,
    "embedding_dim": COUNT,
    "levels": whole(2),
  },
  "discriminator": {"base_channels": COUNT, "channel_multipliers": COUNT},
  "loss": {
    "reconstruction": _AMOUNT,
    "perceptual": _AMOUNT,
    "adversarial": _AMOUNT,
    "adversarial_start": _NONE_OR_MORE,
    "pixel_share": _SHARE,
    "r1": _AMOUNT,
    "r1_interval": COUNT,
    "lecam": _AMOUNT,
    "lecam_decay": _DECAY,
    "commitment": _AMOUNT,
    "codebook": _AMOUNT,
    "joint_images": _AMOUNT,
    "entropy": _AMOUNT,
    "entropy_start_factor": _AMOUNT,
    "entropy_annealing_steps": _NONE_OR_MORE,
  },
  "transformer": _TRANSFORMER,
  "recognizer": {
    "patch": COUNT,
    "spatial_layers": _NONE_OR_MORE,
    "temporal_layers": _NONE_OR_MORE,
    "width": COUNT,
    "mlp_width": COUNT,
    "num_heads": COUNT,
    "dropout": _DECAY,
    "num_classes": COUNT,
  },
  "pretraining": {
    "factor_bits": COUNT,
    "share": Range(0, 1, low_open=True),
    "least_span": _SHARE,
  },
  "denoiser": {
    "dropout": _DECAY,
    "head_blocks": COUNT,
    "head_width": COUNT,
    "num_layers": COUNT,
    "width": COUNT,
    "mlp_width": COUNT,
    "num_heads": COUNT,
    "num_classes": _NONE_OR_MORE,
    "patch": COUNT,
    "spatial_window": COUNT,
    "space_time_window": COUNT,
    "lora_rank": _NONE_OR_MORE,
    "text_width": _NONE_OR_MORE,
  },
  "noise": {"self_conditioning": _SHARE, "low_most": _SHARE},
  "tasks": dict.fromkeys(
    (
      "class_conditional",
      "frame_prediction",
      "class_conditional_frame_prediction",
      "interpolation",
      "central_outpainting",
      "vertical_outpainting",
      "horizontal_outpainting",
      "dynamic_outpainting",
      "central_inpainting",
      "dynamic_inpainting",
    ),
    _AMOUNT,
  ),
  "sampling": {
    "steps": COUNT,
    "diffusion_steps": whole(2),
    "choice_temperature": _AMOUNT,
    "guidance": GUIDANCE,
    "guidance_power": _POSITIVE,
    "temperature": _AMOUNT,
    "top_k": _NONE_OR_MORE,
    "top_p": Range(0, 1, low_open=True),
    "samples_per_class": COUNT,
    "eta": _SHARE,
    "low_noise": _SHARE,
  },
}

# Fields whose value 0 says that training chooses a number by the data, which
# config.json then has; and the field that has to be above 0 for that.
AUTOMATIC = {
  "num_steps": "automatic.epochs",
  "batch_size": "automatic.batch_size",
  "dataset.eval_examples": "automatic.eval_examples",
  "transformer.num_classes": None,
  "denoiser.num_classes": None,
}

# Choices of `tokenizer.remat`, from the least recomputation to the most, and
# the one that leaves it to the device.
REMAT = ("off", "dots", "all")
AUTO = "auto"

# Fields that hold the path of a file or folder, or "" or "none" for no path.
PATHS = (
  "init_from",
  "inflate_from",
  "tokenizer_workdir",
  "dataset.tokens",
  "dataset.joint_path",
  "dataset.path",
  "dataset.lists",
  "loss.perceptual_weights",
  "evaluation.inception_weights",
  "evaluation.i3d_weights",
  "evaluation.c3d_weights",
  "evaluation.efficientnet_lite0_weights",
  "evaluation.squeezenet_weights",
  "evaluation.lpips_weights",
)
# Fields that hold several, each "WEIGHT:FOLDER".
WEIGHTED_PATHS = ("dataset.mixture",)


def check(config: Mapping[str, Any] | ml_collections.ConfigDict) -> None:
  """Checks every number of a config, whichever of the fields it has.

  Raises:
    ValueError: a value that is not in the range of its field, a number that is
      not finite in a field that has none, or an unknown `tokenizer.remat`.
  """
  values = dict(leaves(config))
  for name in automatic(config):
    rule = AUTOMATIC[name]
    if rule and not values.get(rule):
      raise ValueError(f"{name}=0 must be {COUNT}; 0 needs {rule} above 0")
  for name, value in values.items():
    section, _, field = name.rpartition(".")
    allowed = RANGES.get(section, {}).get(field)
    for part in value if isinstance(value, (tuple, list)) else (value,):
      if allowed is not None:
        allowed.check(name, part)
      elif isinstance(part, float) and not math.isfinite(part):
        raise ValueError(f"{name}={part} must be a finite number")
  remat = values.get("tokenizer.remat", AUTO)
  if remat != AUTO:
    split_remat(remat, len(values["tokenizer.channel_multipliers"]))


def split_remat(remat: str, levels: int) -> tuple[str, ...]:
  """The choice of each level of a `tokenizer.remat` other than "auto".

  Raises:
    ValueError: neither one choice nor one for each level.
  """
  choices = tuple(str(remat).split(","))
  if len(choices) == 1:
    choices *= levels
  if len(choices) != levels or not set(choices) <= set(REMAT):
    example = ",".join((REMAT[-1], *REMAT[:1] * (levels - 1)))
    raise ValueError(
      f"tokenizer.remat={remat!r} must be {AUTO!r}, one of {REMAT}, or one of"
      f" these for each entry of tokenizer.channel_multipliers ({levels}), fine"
      f" to coarse, like {example!r}"
    )
  return choices


def automatic(
  config: Mapping[str, Any] | ml_collections.ConfigDict,
) -> list[str]:
  """The fields of a config that are left to the data, as AUTOMATIC says."""
  values = dict(leaves(config))
  return [name for name in AUTOMATIC if values.get(name) == 0]


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """(name with dots, value) of all fields; sections are no fields."""
  for key, value in node.items():
    if hasattr(value, "items"):
      yield from leaves(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value
