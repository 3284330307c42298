"""Quantizers by name, and the one that a config chooses."""

from typing import Any

from flax import nnx

from models.quantizers import binary
from models.quantizers import common
from models.quantizers import finite_scalar
from models.quantizers import identity
from models.quantizers import vector

QUANTIZERS: dict[str, type[common.Quantizer]] = {
  "lfq": binary.LookupFreeQuantizer,
  "bsq": binary.BinarySphericalQuantizer,
  "vq": vector.VectorQuantizer,
  "fsq": finite_scalar.FiniteScalarQuantizer,
  "none": identity.NoQuantizer,
}


def kind(name: str) -> type[common.Quantizer]:
  """Class of the quantizer with this name; class attributes are facts on it.

  Raises:
    ValueError: the name is unknown.
  """
  common.require(
    name in QUANTIZERS, "name", name, f"one of {', '.join(QUANTIZERS)}"
  )
  return QUANTIZERS[name]


def names(fact: str) -> list[str]:
  """Names of the quantizers whose class attribute `fact` is true."""
  return [name for name, each in QUANTIZERS.items() if getattr(each, fact)]


def build(name: str, *, rngs: nnx.Rngs, **settings: Any) -> common.Quantizer:
  """Builds the quantizer of config section `quantizer`, from its own fields.

  Raises:
    ValueError: the name is unknown, or the quantizer cannot take a value.
  """
  return kind(name).from_config(settings, rngs=rngs)
