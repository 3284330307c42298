"""SqueezeNet's perceptual distance in torch, the twin of ours in JAX.

It stands where Open-MAGVIT2 has LPIPS, so that both sides of the duel train
with one network (models/features/squeezenet.py, models/features/taps.py).
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.features import perceptual
from models.features import squeezenet
from models.weights import safetensors_file

_EPSILON = 1e-10
_TOLERANCE = 1e-4  # largest difference between the frameworks' distances


class SqueezeNetDistance(nn.Module):
  """Distances (N, 1, 1, 1) of images (N, 3, H, W) in [-1, 1], as of LPIPS."""

  def __init__(self, params: Any):
    """`params` are the weights of `models.features.perceptual.load`."""
    super().__init__()
    for name, leaf in safetensors_file.by_name(params).items():
      tensor = torch.from_numpy(np.array(leaf))
      if tensor.ndim == 4:
        tensor = tensor.permute(3, 2, 0, 1).contiguous()
      # Buffers: the peer's moving average takes every parameter.
      self.register_buffer(name.replace(".", "_"), tensor, persistent=False)
    mean = torch.tensor(squeezenet.MEAN).reshape(1, 3, 1, 1)
    self.register_buffer("mean", mean, persistent=False)

  def forward(self, target: torch.Tensor, output: torch.Tensor):
    layers = [
      (_unit_length(x) - _unit_length(y)).square().sum(1, keepdim=True)
      for x, y in zip(self._taps(target), self._taps(output), strict=True)
    ]
    means = [layer.mean((2, 3), keepdim=True) for layer in layers]
    return sum(means) / len(means)

  def _taps(self, x: torch.Tensor) -> list[torch.Tensor]:
    x = (127.5 * (x + 1.0)).flip(1) - self.mean
    kept = []
    for name in ("conv1", *squeezenet.FIRES):
      x = self._fire(name, x) if name in squeezenet.FIRES else self._conv1(x)
      if name in squeezenet.TAPS:
        kept.append(x)
      if name in squeezenet.POOLED_AFTER:
        x = functional.max_pool2d(x, 3, 2)
    return kept

  def _conv1(self, x: torch.Tensor) -> torch.Tensor:
    # TensorFlow's "SAME" with stride 2 pads the end of an even side alone.
    ends = []
    for size in (x.shape[3], x.shape[2]):
      total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
      ends += [total // 2, total - total // 2]
    return self._conv("conv1", functional.pad(x, ends), stride=2)

  def _fire(self, name: str, x: torch.Tensor) -> torch.Tensor:
    x = self._conv(f"{name}_squeeze1x1", x)
    expanded = [
      self._conv(f"{name}_expand1x1", x),
      self._conv(f"{name}_expand3x3", x, padding=1),
    ]
    return torch.cat(expanded, 1)

  def _conv(self, name: str, x: torch.Tensor, **settings) -> torch.Tensor:
    kernel, bias = (getattr(self, f"{name}_{k}") for k in ("kernel", "bias"))
    return functional.relu(functional.conv2d(x, kernel, bias, **settings))


def _unit_length(x: torch.Tensor) -> torch.Tensor:
  square = x.square().sum(1, keepdim=True)
  # As in taps.py: the slope of the root is infinite at 0.
  positive = square > 0.0
  root = torch.where(positive, square, 1.0).sqrt()
  return x / (torch.where(positive, root, 0.0) + _EPSILON)


def load(weights: str, frames_BHWC: np.ndarray) -> SqueezeNetDistance:
  """The distance of a file of weights, compared with that in JAX.

  Args:
    weights: file of `python -m models.weights.fetch --network=squeezenet`.
    frames_BHWC: float32 in [0, 1]; each is compared with the next one, and with
      a noisy copy.

  Raises:
    ValueError: the two distances differ by more than 1e-4, or no weights.
  """
  compare, params = perceptual.load("squeezenet", weights)
  distance = SqueezeNetDistance(params).eval()
  noise = np.random.default_rng(0).normal(0.0, 0.1, frames_BHWC.shape)
  noisy = np.clip(frames_BHWC + noise, 0.0, 1.0).astype(np.float32)
  others = np.concatenate([np.roll(frames_BHWC, 1, 0), noisy])
  frames = np.concatenate([frames_BHWC, frames_BHWC])
  expected = np.asarray(compare(params, frames, others))
  tensor = lambda x: torch.from_numpy(2.0 * np.moveaxis(x, -1, 1) - 1.0)
  with torch.no_grad():
    computed = distance(tensor(frames), tensor(others)).numpy()[:, 0, 0, 0]
  difference = float(np.abs(computed - expected).max())
  if not difference <= _TOLERANCE:
    raise ValueError(
      f"the perceptual distances in torch and JAX differ by {difference:.1e},"
      f" more than {_TOLERANCE:g}: the sides would not train on one loss"
    )
  return distance
