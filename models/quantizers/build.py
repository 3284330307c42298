"""The quantizers by name, and the one of a config."""

from typing import Any

from flax import nnx

from models.quantizers import binary
from models.quantizers import common
from models.quantizers import finite_scalar
from models.quantizers import vector

QUANTIZERS: dict[str, type[common.Quantizer]] = {
  "lfq": binary.LookupFreeQuantizer,
  "bsq": binary.BinarySphericalQuantizer,
  "vq": vector.VectorQuantizer,
  "fsq": finite_scalar.FiniteScalarQuantizer,
}


def kind(name: str) -> type[common.Quantizer]:
  """The class of a quantizer, which has the facts about all of them.

  Raises:
    ValueError: an unknown name.
  """
  common.require(
    name in QUANTIZERS, "name", name, f"one of {', '.join(QUANTIZERS)}"
  )
  return QUANTIZERS[name]


def names(fact: str) -> list[str]:
  """Names of the quantizers whose class attribute `fact` is true."""
  return [name for name, each in QUANTIZERS.items() if getattr(each, fact)]


def build(name: str, *, rngs: nnx.Rngs, **settings: Any) -> common.Quantizer:
  """The quantizer of config section `quantizer`; each reads its own fields.

  Raises:
    ValueError: an unknown name, or a value that this quantizer cannot take.
  """
  return kind(name).from_config(settings, rngs=rngs)
