"""The TPUs that a report compiles for, which need not be there."""

from collections.abc import Sequence
import dataclasses
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from magvit import mesh as mesh_lib
from magvit.cost import links


@dataclasses.dataclass(frozen=True)
class Chip:
  """Limits of a chip (docs.cloud.google.com/tpu/docs)."""

  peak: float  # FLOP/s in bfloat16
  memory_gib: int
  bandwidth: float  # bytes/s from and to the memory
  links: float  # bytes/s to other chips of a slice, over all links
  network: float  # bytes/s to other slices, its share of the hosts' network
  clock: float  # cycles/s


# Networks, by the pages /v5e, /v5p and /v6e there: 6.4 Tbit/s of a v5e Pod of
# 256 chips (two cards of 100 Gbit/s for the eight of a host), 50 Gbit/s of a
# v5p chip, 25.6 Tbit/s of a v6e Pod of 256 (four cards of 200 Gbit/s a host).
# That of a v4 host is not published; it is taken to be a v5e's.
CHIPS = {
  "TPU v4": Chip(275e12, 32, 1.2e12, 300e9, 3.125e9, 1.05e9),
  "TPU v5 lite": Chip(197e12, 16, 819e9, 200e9, 3.125e9, 1.5e9),
  "TPU v5": Chip(459e12, 95, 2.765e12, 600e9, 6.25e9, 1.75e9),
  "TPU v6 lite": Chip(918e12, 32, 1.64e12, 448e9, 12.5e9, 1.75e9),
}
_SLICES = re.compile(r"(\d+)x(?=[a-z])")


def devices(topology: str) -> list[Any]:
  """Devices of a topology: libtpu's name of a slice, or like "2xv5e:16x16".

  Raises:
    ValueError: no libtpu, or a name that it does not know.
  """
  # libtpu reads this: there is no machine to ask about its TPUs.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  # Compiling takes no TPU from others, so that any number may do it at once.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  jax.config.update("jax_platforms", "cpu")
  # A cached program would hide the time that the report gives.
  jax.config.update("jax_enable_compilation_cache", False)
  number, name = split(topology)
  several = {"num_slices": number} if number > 1 else {}
  try:
    return topologies.get_topology_desc(
      platform="tpu", topology_name=name, **several
    ).devices
  except Exception as error:  # errors of plugins share no class
    if "lockfile" in str(error):
      raise ValueError(
        f"another process uses libtpu ({error}): set"
        " ALLOW_MULTIPLE_LIBTPU_LOAD=1, which lets several compile at once, or"
        " wait for that process to end"
      ) from error
    raise ValueError(
      f"--topology={topology} cannot be compiled for ({error}): it needs libtpu"
      " (pip install libtpu==0.0.52) and a name that libtpu knows, like"
      " v5e:16x16, v5p:4x4x4 or v6e:16x16; 2xv5e:16x16 is two slices"
    ) from error


def split(topology: str) -> tuple[int, str]:
  """(number of slices, libtpu's name of one) of a topology.

  Raises:
    ValueError: no slice at all.
  """
  several = _SLICES.match(topology)
  if several is None:
    return 1, topology
  if int(several[1]) < 1:
    raise ValueError(
      f"--topology={topology} must have at least 1 slice, like"
      f" 2x{topology[several.end() :]}"
    )
  return int(several[1]), topology[several.end() :]


def chip_of(topology: str, kind: str) -> Chip:
  """The limits of a kind of chip; ValueError if they are not known."""
  if kind not in CHIPS:
    raise ValueError(
      f"--topology={topology} has chips {kind!r} of unknown peak: choose one of"
      f" {sorted(CHIPS)}"
    )
  return CHIPS[kind]


def links_of(chip: Chip, in_order: Sequence[Any]) -> links.Links:
  """Links of the first slice of devices, in the order of a program."""
  slice_of = mesh_lib.slice_of
  first = [d for d in in_order if slice_of(d) == slice_of(in_order[0])]
  return links.Links(tuple(tuple(d.coords) for d in first), chip.links)


def slices(in_order: Sequence[Any]) -> int:
  """Number of slices of some devices."""
  return len({mesh_lib.slice_of(d) for d in in_order})
