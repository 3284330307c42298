"""Networks only. This package imports nothing else of the project.

Importing it, before the first computation, also keeps XLA's CPU backend from
handing convolutions to YNNPACK, as jaxlib 0.10.2 does: a training step spends
most of its time in their gradients, which are several times slower there
(`benchmarks/convolution.py` measures both). Other platforms ignore the flag,
and a value the user sets in XLA_FLAGS wins.
"""

import os

_YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"

if _YNN_FLAG not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = " ".join(
    [
      os.environ.get("XLA_FLAGS", ""),
      f"{_YNN_FLAG}=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION",
    ]
  ).strip()
