"""What the kernels of attention for GPUs and TPUs share."""

import dataclasses

HIDDEN = -1e30  # score of a hidden key; infinity would give nan in a first row


@dataclasses.dataclass(frozen=True)
class How:
  """Facts that a kernel is compiled for.

  tokens: length of the sequence, N.
  causal: whether a query sees only keys up to its place, and the prefix.
  rate: share of the weights that is dropped.
  interpret: whether Pallas runs the kernel step by step, on any device.
  """

  tokens: int
  causal: bool
  rate: float
  interpret: bool = False
