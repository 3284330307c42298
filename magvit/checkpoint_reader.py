"""Whether a checkpoint on disk can be read, before any process relies on it."""

import json
import os

import jax
from jax.experimental import multihost_utils
import tensorstore as ts


def problem(path: str) -> str | None:
  """What is wrong with the checkpoint directory `path`; None if it is good.

  Every array and every file beside them is read once, by one of the processes;
  all of them get an answer, and the same one whether there is a problem.
  """
  try:
    found = None
    _read_json_files(path)
    _read_arrays(os.path.join(path, "state"))
  except (OSError, ValueError) as error:
    found = " ".join(str(error).split())
  if jax.process_count() > 1:
    bad = multihost_utils.process_allgather(found is not None)
    if bad.any() and found is None:
      found = f"process {int(bad.argmax())} cannot read it"
  return found


def _read_json_files(path: str) -> None:
  for name in ("_CHECKPOINT_METADATA", "state/_METADATA", "data/metadata"):
    with open(os.path.join(path, name)) as f:
      try:
        json.load(f)
      except ValueError as error:
        raise ValueError(f"{name} is damaged ({error})") from error


def _read_arrays(path: str) -> None:
  """Reads this process's share of the arrays, one at a time.

  They are zarr arrays in one OCDBT database, orbax's default layout.

  Raises:
    ValueError: one of them cannot be read.
  """
  store = {"driver": "ocdbt", "base": f"file://{path}/"}
  database = ts.KvStore.open(store).result()
  keys = [key.decode() for key in database.list().result()]
  names = sorted(k.removesuffix("/.zarray") for k in keys if "/.zarray" in k)
  if not names:
    raise ValueError("state holds no arrays")
  for name in names[jax.process_index() :: jax.process_count()]:
    spec = {"driver": "zarr", "kvstore": {**store, "path": f"{name}/"}}
    try:
      ts.open(spec, open=True).result().read().result()
    except ValueError as error:
      raise ValueError(f"array {name}: {error}") from error
