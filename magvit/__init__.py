"""MAGVIT-v2: algorithms, the training loop, and trained models for Python.

The functions are imported when they are first named: a program of this package
imports it before its own first line, and would take seconds to get there.
"""

import importlib
import typing

import models  # noqa: F401  It sets flags of XLA, before anything computes.
from storage.version import VERSION as __version__  # noqa: F401

if typing.TYPE_CHECKING:
  from magvit.api import load_generator as load_generator
  from magvit.tokenizer.loaded import load_tokenizer as load_tokenizer
  from magvit.workdir.stablehlo import load_program as load_program

_MODULES = {
  "load_generator": "magvit.api",
  "load_program": "magvit.workdir.stablehlo",
  "load_tokenizer": "magvit.tokenizer.loaded",
}


def __getattr__(name: str):
  if name not in _MODULES:
    raise AttributeError(f"module 'magvit' has no attribute {name!r}")
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *_MODULES})
