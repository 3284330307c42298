"""Compiled programs are kept for the next run, in the user's cache folder."""

import hashlib
import os
import pathlib
import platform
import sys

from storage import paths

_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def keep() -> None:
  """Lets JAX keep compiled programs, unless its own variable names a folder.

  JAX reads its variable when it is imported, and a config of one's own may have
  done that; it is told of the folder then. The folder is below $XDG_CACHE_HOME
  or ~/.cache; where it cannot be written JAX warns and goes on.
  """
  if _VARIABLE in os.environ:
    return
  cache = paths.user_cache()
  if not os.path.isabs(cache):
    return
  folder = os.path.join(cache, "magvit", "xla", _processor())
  os.environ[_VARIABLE] = folder
  if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_compilation_cache_dir", folder)


def keep_in(folder: str) -> None:
  """Keeps the programs that are compiled from now on in this folder instead.

  Whoever can write there can run code in the programs that read it.
  """
  import jax  # `keep` comes before it
  from jax.experimental.compilation_cache import compilation_cache

  jax.config.update(
    "jax_compilation_cache_dir", os.path.join(folder, _processor())
  )
  compilation_cache.reset_cache()  # it stays with the first folder it has used


def _processor() -> str:
  """Name of a kind of processor.

  Machines that share a home may have other instructions: a program compiled
  for one of them could end another by an illegal one.
  """
  flags = ""
  path = pathlib.Path("/proc/cpuinfo")
  if path.exists():
    lines = path.read_text(errors="replace").splitlines()
    flags = next((x for x in lines if x.startswith(("flags", "Features"))), "")
  text = f"{platform.machine()} {flags}"
  return hashlib.sha256(text.encode()).hexdigest()[:12]
