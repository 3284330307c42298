"""The quantizer of a config."""

from collections.abc import Sequence

from flax import nnx

from models.quantizers import binary
from models.quantizers import common
from models.quantizers import finite_scalar
from models.quantizers import vector


def build(
  name: str,
  bits: int,
  entropy_temperature: float,
  entropy_groups: int,
  codebook_size: int,
  embedding_dim: int,
  normalize: bool,
  levels: Sequence[int],
  *,
  rngs: nnx.Rngs,
) -> nnx.Module:
  """The quantizer of config section `quantizer`; each reads its own fields.

  Raises:
    ValueError: an unknown name, or a value that this quantizer cannot take.
  """
  makers = {
    "lfq": lambda: binary.LookupFreeQuantizer(
      bits, entropy_temperature, entropy_groups=entropy_groups
    ),
    "bsq": lambda: binary.BinarySphericalQuantizer(
      bits, entropy_temperature, entropy_groups=entropy_groups
    ),
    "vq": lambda: vector.VectorQuantizer(
      codebook_size,
      embedding_dim,
      entropy_temperature,
      normalize=normalize,
      rngs=rngs,
    ),
    "fsq": lambda: finite_scalar.FiniteScalarQuantizer(levels),
  }
  common.require(name in makers, "name", name, f"one of {', '.join(makers)}")
  return makers[name]()
