"""Quantizers behind one interface: LFQ, VQ, FSQ, BSQ and none."""

from models.quantizers.binary import (
  BinarySphericalQuantizer as BinarySphericalQuantizer,
)
from models.quantizers.binary import LookupFreeQuantizer as LookupFreeQuantizer
from models.quantizers.bits import codes_to_ids as codes_to_ids
from models.quantizers.bits import defactorize as defactorize
from models.quantizers.bits import factorize as factorize
from models.quantizers.bits import ids_to_codes as ids_to_codes
from models.quantizers.common import Quantized as Quantized
from models.quantizers.finite_scalar import (
  FiniteScalarQuantizer as FiniteScalarQuantizer,
)
from models.quantizers.identity import NoQuantizer as NoQuantizer
from models.quantizers.vector import VectorQuantizer as VectorQuantizer
from models.quantizers.vector import initialize_codebook as initialize_codebook
