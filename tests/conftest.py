"""Test settings, made before JAX starts."""

from importlib import metadata
import os
import pathlib

_JAXLIB = tuple(map(int, metadata.version("jaxlib").split(".")[:2]))
os.environ["JAX_PLATFORMS"] = "cpu"
# An array of fewer dimensions is given the missing ones by name, where one
# reads it; the processes that tests start are held to this, too.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",  # for tests of sharding
    # Tests spend more time compiling than running.
    "--xla_backend_optimization_level=0",
    # It halves the time of compiling. XLA ends a process by a flag that it does
    # not know, and jaxlib 0.12 has this one no more.
    *(["--xla_cpu_use_fusion_emitters=false"] if _JAXLIB < (0, 12) else []),
  ]
)
# Compiled programs are shared by the tests, the processes they start and the
# next run: compiling is most of the suite's time. `make clean` empties it.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(pathlib.Path(__file__).parents[1] / ".xla_cache"),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import gc  # noqa: E402

import jax  # noqa: E402
from orbax.checkpoint import type_handlers  # noqa: E402
import pytest  # noqa: E402

import models  # noqa: E402, F401  adds the flag that the project runs with
from tests import tiny  # noqa: E402
from tests import untrained  # noqa: E402

# orbax lets replicas write parts of an array: for that it compiles a slice of
# each array for each device, hundreds of programs for a tiny run. Processes
# that tests start still do (tests/magvit/training/distributed_test.py).
_ARRAYS = type_handlers.get_type_handler(jax.Array)
_ARRAYS._min_slice_bytes_for_replica_parallel = 2**20
# Tracing makes many objects that stay: looking for garbage among what was
# imported, and often, takes a tenth of it.
gc.freeze()
gc.set_threshold(100_000, 20, 100)


@pytest.fixture(scope="session")
def tiny_tokenizer_workdir(tmp_path_factory):
  """A workdir with an untrained tiny tokenizer, as training leaves it."""
  workdir = str(tmp_path_factory.mktemp("tokenizer"))
  untrained.write(workdir, tiny.tokenizer())
  return workdir


@pytest.fixture(scope="session")
def tiny_generator_workdir(tiny_tokenizer_workdir, tmp_path_factory):
  """A workdir with an untrained tiny masked generator."""
  workdir = str(tmp_path_factory.mktemp("generator"))
  untrained.write(workdir, tiny.masked(tiny_tokenizer_workdir))
  return workdir
