"""Memory and time of a training step on a mesh, estimated without compiling.

What is exact: bytes of the state by its shardings, and products. The rest is
proportional to what the program's text says, by factors that each compiled
step corrects.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from magvit.cost import chips
from magvit.cost import links as links_lib

_GIB = 2**30
# Traffic of the state of training, as a multiple of its bytes: it is read and
# written, and so are its gradients (MAGVIT-L on v5e:16x16, mesh.fsdp=1 and 16).
STATE_TRAFFIC = 3.4
_WEIGHT_READS = 3  # forward, recomputed, and in the backward pass


@dataclasses.dataclass(frozen=True)
class Shape:
  """How a step is spread: devices of each axis, parts in turn, and remat.

  data: devices of the axis in one slice.
  slices: number of slices.
  """

  data: int
  fsdp: int
  tensor: int
  microbatches: int
  remat: str
  slices: int = 1

  @property
  def parts(self) -> int:
    return self.slices * self.data * self.fsdp


@dataclasses.dataclass(frozen=True)
class Estimate:
  memory_gib: float
  seconds: dict[str, float]  # by what takes them, as in the report

  @property
  def least(self) -> float:
    return max(self.seconds.values())


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a config's step is made of, for all devices together.

  flops: products, by remat.
  activations: bytes of intermediate arrays at the worst moment, by remat.
  weights: bytes of the trained parameters in the dtype that it computes in.
  gradients: bytes of the gradients as the optimizer reads them.
  state: bytes of the state on one device, of a shape.
  padding: bytes of the pieces of parameters that fsdp makes, in whole tiles,
    over those of the pieces themselves, of a shape.
  """

  flops: dict[str, int]
  activations: dict[str, int]
  weights: int
  gradients: int
  state: Callable[[Shape], int]
  padding: Callable[[Shape], float]

  @property
  def passing(self) -> int:
    """Bytes of activations that no choice of remat does without."""
    return min(self.activations.values())


class Estimator:
  """Estimates steps, the better the more of them were compiled."""

  def __init__(
    self,
    facts: Facts,
    chip: chips.Chip,
    links: links_lib.Links,
    devices: int,
  ):
    self._facts, self._chip, self._links = facts, chip, links
    self._devices = devices
    # Factors of what a step holds and moves beside its state, and of what it
    # sends, by mesh.fsdp: a compiler may do badly with one size alone.
    self._held, self._moved = 1.0, 4.0
    self._seen_moved: list[float] = []
    self._sent: dict[int, float] = {}

  def estimate(self, shape: Shape) -> Estimate:
    """Memory and times of a device."""
    facts, chip = self._facts, self._chip
    sent, network = self._send(shape)
    moved = self._state_traffic(shape) + self._moved * self._passing(shape)
    fixed, held = self._fixed(shape), self._holding(shape)
    return Estimate(
      memory_gib=(fixed + self._held * held) / _GIB,
      seconds={
        "compute": facts.flops[shape.remat] / self._devices / chip.peak,
        "memory": moved / chip.bandwidth,
        "links": self._sent.get(shape.fsdp, 1.0) * sent,
        "network": network,
      },
    )

  def learn(self, shape: Shape, figures: dict[str, Any]) -> None:
    """Corrects the factors by what the compiler says of a shape."""
    held = self._holding(shape)
    if figures.get("used_gib"):
      used = figures["used_gib"] * _GIB
      self._held = max(0.0, used - self._fixed(shape)) / held
    if not figures["fits"]:
      return
    moved = figures["bytes"] - self._state_traffic(shape)
    self._seen_moved.append(max(0.0, moved) / self._passing(shape))
    self._moved = min(self._seen_moved)
    sent, _ = self._send(shape)
    if sent:
      self._sent[shape.fsdp] = figures["seconds"]["links"] / sent

  def _holding(self, shape: Shape) -> float:
    """Bytes of activations that a device holds."""
    parts = shape.parts * shape.tensor * shape.microbatches
    return self._facts.activations[shape.remat] / parts

  def _passing(self, shape: Shape) -> float:
    """Bytes of activations that pass through a device's memory in a step."""
    return self._facts.passing / (shape.parts * shape.tensor)

  def _fixed(self, shape: Shape) -> float:
    """Bytes of a device whatever the activations: state and gradients."""
    split = shape.fsdp * shape.tensor
    return self._facts.state(shape) + self._facts.gradients / split

  def _state_traffic(self, shape: Shape) -> float:
    reads = _WEIGHT_READS * shape.microbatches
    weights = reads * self._facts.weights / shape.tensor
    return STATE_TRAFFIC * self._facts.state(shape) + weights

  def _send(self, shape: Shape) -> tuple[float, float]:
    """Seconds in which a device sends to its slice, and to other slices."""
    facts, each = self._facts, shape.fsdp * shape.tensor
    groups = {
      "tensor": range(shape.tensor),
      "fsdp": range(0, each, shape.tensor),
      "data": range(0, each * shape.data, each),
    }
    share = links_lib.share_sent
    sums = facts.weights / each  # gradients, one part of which a device has
    passing = facts.passing / shape.parts
    sent = {
      # Weights come twice for each part of the batch, gradients go once.
      "fsdp": facts.weights
      / shape.tensor
      * facts.padding(shape)
      * (2 * shape.microbatches + 1)
      * share("all-gather", shape.fsdp),
      "data": sums * share("all-reduce", shape.data),
      # Each layer sums twice in each direction.
      "tensor": 4 * passing * share("all-reduce", shape.tensor),
    }
    seconds = sum(
      size / self._links.rate(groups[axis])
      for axis, size in sent.items()
      if size
    )
    several = shape.slices > 1
    network = several * facts.weights / (self._devices // shape.slices)
    return seconds, network / self._chip.network


def shapes(
  devices: int,
  slices: int,
  batch_size: int,
  tensors: Sequence[int],
  remats: Sequence[str],
) -> list[Shape]:
  """Every way to spread a step of a batch; fsdp and parts are powers of two."""
  made = []
  in_slice = devices // slices
  for tensor in tensors:
    for fsdp in _powers(in_slice // tensor):
      data = in_slice // (fsdp * tensor)
      if fsdp * tensor * data * slices != devices:
        continue
      clips, rest = divmod(batch_size, slices * data * fsdp)
      if rest or not clips:
        continue
      made += [
        Shape(data, fsdp, tensor, parts, remat, slices)
        for parts in _powers(clips)
        if clips % parts == 0
        for remat in remats
      ]
  return made


def _powers(most: int) -> list[int]:
  """Powers of two up to a number."""
  return [2**n for n in range(int(math.log2(most)) + 1)] if most > 0 else []
