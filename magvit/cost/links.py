"""Links between chips: who is in a group of devices, and how fast it sends.

A chip has two links along each axis of its slice, a torus. A group along one
axis of two has half of them; a group whose members are not neighbours shares
its links with the groups between.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math
import re

import numpy as np

COLLECTIVES = (
  *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
  *("collective-permute", "ragged-all-to-all"),
)
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")
_IOTA = re.compile(
  r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
)
_AXES = re.compile(r"replica_groups=mesh\[([^\]]+)\] ?\{([^}]*)\}")
_SIZE = re.compile(r"'(\w+)'=(\d+)")
_RING = 4  # chips of an axis from which it closes to a ring


def group(text: str) -> tuple[int, ...]:
  """The first group of devices that an instruction's text names.

  All groups of an instruction are alike. Empty: all devices in one group.
  """
  if listed := _LISTED.search(text):
    return _numbers(listed[1])
  if iota := _IOTA.search(text):
    shape, sizes = _numbers(iota[1]), _numbers(iota[2])
    order = _numbers(iota[3]) if iota[3] else range(len(sizes))
    devices = np.arange(math.prod(sizes)).reshape(sizes).transpose(order)
    return tuple(devices.reshape(shape)[0].tolist())
  if axes := _AXES.search(text):
    sizes = {name: int(size) for name, size in _SIZE.findall(axes[1])}
    devices = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
    first = tuple(slice(None) if f"'{x}'" in axes[2] else 0 for x in sizes)
    return tuple(devices[first].ravel().tolist())
  return ()


def _numbers(text: str) -> tuple[int, ...]:
  return tuple(int(x) for x in text.split(","))


def share_sent(kind: str, members: int) -> float:
  """Bytes that each of a group sends, of those of the whole array."""
  if kind == "collective-permute":
    return 1.0
  share = (members - 1) / members if members else 1.0
  return 2 * share if kind == "all-reduce" else share


@dataclasses.dataclass(frozen=True)
class Links:
  """The chips of a slice and their links.

  places: coordinates of each device, in the order of the program's devices.
  per_chip: bytes/s that a chip sends over all of its links.
  """

  places: tuple[tuple[int, ...], ...]
  per_chip: float

  def rate(self, members: Sequence[int]) -> float:
    """Most bytes/s that each member of a group can send to the others."""
    members = tuple(members) or tuple(range(len(self.places)))
    return self.per_chip * self._share(members)

  @functools.cached_property
  def _extents(self) -> np.ndarray:
    return np.asarray(self.places).max(0) + 1

  @functools.lru_cache(maxsize=1024)  # noqa: B019 - a report has few
  def _share(self, members: tuple[int, ...]) -> float:
    """Share of a chip's links that the group can use."""
    places = np.asarray([self.places[i] for i in members])
    axes = int((self._extents > 1).sum())
    steps = np.abs(places[:, None] - places[None])
    # Only an axis of some length closes to a ring.
    rings = self._extents >= _RING
    steps = np.where(rings, np.minimum(steps, self._extents - steps), steps)
    distance = steps.sum(-1)
    if len(members) == 1 or not axes:
      return 1.0
    if (distance == 1).any(1).all():
      fewest = int((distance == 1).sum(1).min())
      return min(1.0, fewest / (2 * axes))
    spanned = int((np.ptp(places, axis=0) > 0).sum())
    return spanned / axes / int(distance[distance > 0].min(initial=10**6))
