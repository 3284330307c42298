"""Programs of an export as StableHLO, for any platform and batch size.

`--mode=export --stablehlo` writes encode and decode of a tokenizer and sample
of a generator, each as NAME.stablehlo: StableHLO in the container of
`jax.export`, for CPU, CUDA and TPU at once. programs.json describes inputs and
outputs. Weights are arguments, read from the .safetensors files. Running a
program needs jax, and none of the networks' code.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import os
from typing import Annotated
from typing import Any

import jax
from jax import export as jax_export
import jax.numpy as jnp
import numpy as np

from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from storage import files
from storage import paths
from storage import schema
from storage import stores

MANIFEST = "programs.json"
PLATFORMS = ("cpu", "cuda", "tpu")
_BATCH = "batch"  # name of the size that stays open
_FORMAT = "StableHLO in a container of jax.export"


@dataclasses.dataclass(frozen=True)
class Argument:
  """An input of a program; "batch" in its shape is any number of clips."""

  shape: tuple[int | str, ...]
  dtype: str
  meaning: str
  low: int | None = None  # smallest value, where that is no matter of the type
  high: int | None = None  # largest value, likewise


@dataclasses.dataclass(frozen=True)
class _Output:
  """An output of a program, as the manifest describes it."""

  shape: tuple[int | str, ...]
  dtype: str


@dataclasses.dataclass(frozen=True)
class _Described:
  """A program, as the manifest describes it."""

  file: Annotated[str, schema.FILE_NAME]
  sha256: Annotated[str, schema.SHA256]
  platforms: tuple[str, ...]
  calling_convention: int
  weights: dict[str, str]
  inputs: dict[str, Argument]
  outputs: dict[str, _Output]


@dataclasses.dataclass(frozen=True)
class _Manifest:
  """Contents of programs.json."""

  format: str
  jax: str
  programs: dict[str, _Described]


@dataclasses.dataclass(frozen=True)
class Definition:
  """A program to write."""

  function: Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]
  # First argument: network -> name -> shape of an array.
  weights: dict[str, dict[str, jax.ShapeDtypeStruct]]
  inputs: dict[str, Argument]  # second argument


def write(folder: str, definitions: Mapping[str, Definition]) -> None:
  """Lowers the programs, and writes them and the manifest."""
  programs = {}
  for name, definition in definitions.items():
    (batch,) = jax_export.symbolic_shape(_BATCH)
    inputs = {
      key: jax.ShapeDtypeStruct(
        tuple(batch if n == _BATCH else n for n in argument.shape),
        argument.dtype,
      )
      for key, argument in definition.inputs.items()
    }
    lowered = jax_export.export(
      jax.jit(definition.function), platforms=PLATFORMS
    )(definition.weights, inputs)
    data = bytes(lowered.serialize())
    path = os.path.join(folder, f"{name}.stablehlo")
    files.write_atomically(path, data)
    outputs = jax.tree.unflatten(lowered.out_tree, lowered.out_avals)
    programs[name] = {
      "file": os.path.basename(path),
      "sha256": files.sha256(path),
      "platforms": list(lowered.platforms),
      "calling_convention": lowered.calling_convention_version,
      "weights": {
        network: _weights_file(network, definition.weights)
        for network in definition.weights
      },
      "inputs": {
        key: dataclasses.asdict(argument)
        for key, argument in definition.inputs.items()
      },
      "outputs": {
        key: {
          "shape": [n if isinstance(n, int) else str(n) for n in aval.shape],
          "dtype": aval.dtype.name,
        }
        for key, aval in outputs.items()
      },
    }
  manifest = {"format": _FORMAT, "jax": jax.__version__, "programs": programs}
  files.write_json(os.path.join(folder, MANIFEST), manifest)


class Program:
  """A program and its weights. Make one with `load_program`.

  Attributes:
    name: "encode", "decode" or "sample".
    path: the export that it is of.
    step: training steps behind the weights of that export.
    parameters: number of parameters of all networks that it runs.
    inputs: shape, dtype and meaning of each input, by name.
    outputs: shape and dtype of each output, by name.
    platforms: names of the platforms that it is for.
  """

  def __init__(
    self,
    name: str,
    path: str,
    described: Mapping[str, Any],
    call: Callable[[Any, Any], Any],
    weights: Any,
  ):
    self.name, self.path = name, path
    self.step = exports.step(path)
    self.parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
    self.inputs = described["inputs"]
    self.outputs = described["outputs"]
    self.platforms = tuple(described["platforms"])
    self._run = lambda inputs: call(weights, inputs)

  def __repr__(self) -> str:
    return (
      f"<Program {self.name!r} for {', '.join(self.platforms)}\n"
      f"  takes {_signature(self.inputs)}\n"
      f"  gives {_signature(self.outputs)}\n"
      f"  {self.parameters:,} parameters\n"
      f"  step {self.step:,}\n"
      f"  {self.path}>"
    )

  def __call__(self, **inputs: np.ndarray) -> dict[str, jax.Array]:
    """Runs the program; compiles once for each batch size.

    Raises:
      ValueError: an input that is missing, unknown, of another shape or type,
        or with values that it cannot have.
    """
    if inputs.keys() != self.inputs.keys():
      raise ValueError(
        f"program {self.name} takes {sorted(self.inputs)}, not {sorted(inputs)}"
      )
    sizes = set()
    for key, x in inputs.items():
      wanted = self.inputs[key]
      if not isinstance(x, (np.ndarray, np.generic, jax.Array)):
        raise ValueError(
          f"{key} is a {type(x).__name__}: give an array {wanted['dtype']}"
          f" {tuple(wanted['shape'])}: {wanted['meaning']}"
        )
      shape, dtype = tuple(np.shape(x)), wanted["dtype"]
      pairs = list(zip(wanted["shape"], shape, strict=False))
      sizes |= {size for name, size in pairs if name == _BATCH}
      fits = len(shape) == len(wanted["shape"]) and all(
        name in (_BATCH, size) for name, size in pairs
      )
      if not fits or jnp.result_type(x) != dtype:
        raise ValueError(
          f"{key} of shape {shape} and type {jnp.result_type(x)} must be"
          f" {dtype} {tuple(wanted['shape'])}: {wanted['meaning']}"
        )
      _check_values(key, x, wanted)
    if len(sizes) > 1 or 0 in sizes:
      raise ValueError(
        f"inputs of {sorted(sizes)} clips: all must have the same number, at"
        " least 1"
      )
    return self._run(inputs)


def _check_values(key: str, x: Any, wanted: Mapping[str, Any]) -> None:
  """Raises ValueError for values that an input cannot have."""
  if jnp.issubdtype(x.dtype, jnp.floating) and not np.isfinite(x).all():
    raise ValueError(f"{key} has values that are not finite")
  low, high = wanted.get("low"), wanted.get("high")  # older exports have none
  if np.size(x) and low is not None and high is not None:
    if x.min() < low or x.max() > high:
      raise ValueError(
        f"{key} has values in [{x.min()}, {x.max()}], and must be"
        f" {wanted['meaning']}"
      )


def load_program(folder: str | os.PathLike, name: str) -> Program:
  """Loads a program of an export folder, e.g. "encode", and its weights.

  `folder` may begin with ~ and have $VARIABLES. Encode and decode of a
  generator's tokenizer lie in its folder `tokenizer`.

  Raises:
    ValueError: no such program, or a file that is not as it was exported.
  """
  folder = paths.expand(folder, urls=True)
  path = os.path.join(folder, MANIFEST)
  if not stores.is_file(path):
    raise ValueError(
      f"folder={folder} holds no {MANIFEST}: export with --mode=export"
      " --stablehlo"
    )
  # The fields stay as JSON: what a program says of itself is public.
  remedy = "export with --stablehlo again"
  manifest = schema.read(path, remedy)
  schema.convert(manifest, _Manifest, f"{path} lists no programs", remedy)
  described = manifest["programs"]
  known = sorted(described)
  if name not in known:
    raise ValueError(f"{path} has no program {name!r}: it has {known}")
  workdir_lib.read_config(folder)  # raises if files of models are mixed
  try:
    entry = described[name]
    path = os.path.join(folder, f"{name}.stablehlo")
    if files.sha256(path) != entry["sha256"]:
      raise ValueError(f"its sha256 is not that of {MANIFEST}")
    data = stores.read(path)
    networks = list(entry["weights"])
  except (KeyError, OSError, TypeError, ValueError) as error:
    raise ValueError(
      f"{folder}: {name}.stablehlo is not as it was exported ({error}): copy or"
      " export it again"
    ) from error
  program = jax_export.deserialize(bytearray(data))
  weights = {
    network: exports.tensors(
      os.path.dirname(os.path.join(folder, _weights_file(network, networks)))
    )
    for network in networks
  }
  weights = jax.device_put(weights)
  return Program(name, folder, entry, jax.jit(program.call), weights)


def _signature(arrays: Mapping[str, Mapping[str, Any]]) -> str:
  """Names, dtypes and shapes, like "ids int32 (batch, 3, 8, 8)"."""
  return ", ".join(
    f"{name} {array['dtype']} ({', '.join(map(str, array['shape']))})"
    for name, array in arrays.items()
  )


def _weights_file(network: str, networks) -> str:
  """Path of a network's weights below the export's folder.

  The tokenizer of a generator has a folder of its own.
  """
  nested = network == "tokenizer" and len(networks) > 1
  return os.path.join(*([exports.TOKENIZER] if nested else []), exports.WEIGHTS)
