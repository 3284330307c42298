"""Speed of the forms of a convolution, and whether the fastest is chosen.

  python -m benchmarks.convolution [--layers=cpu] [--repeats=5] [--tiny]
    [--output=FILE]

Times each form of models/tokenizer/convolution_forms.py forward, and forward
with the gradients of input and kernel, on the device at hand. `+` joins a
forward form with the gradients of another. `*` marks what `valid_conv` runs
here.
Layers of `cpu` are in float32, those of `accelerator`, the default on a GPU or
TPU, in bfloat16 on padded inputs of the paper's tokenizer.

On a CPU the taps are also timed under jaxlib's default flags (`default`), which
give 2-D convolutions to YNNPACK; models/__init__.py turns that off. XLA reads
flags once per process, so each set of flags has a process. The two take turns
layer by layer. Times there are CPU seconds of all threads, which other work on
the machine changes less than wall time; read ratios all the same.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import multiprocessing
import os
import pathlib
import statistics
import time
from typing import Any
from typing import NamedTuple

import jax

from models.tokenizer import convolution
from models.tokenizer import convolution_forms
from models.tokenizer import winograd


class Layer(NamedTuple):
  """A causal convolution."""

  shape: tuple[int, ...]  # (B, T, H, W, I) of the input before padding
  out_channels: int
  kernel: tuple[int, int, int] = (3, 3, 3)
  strides: tuple[int, int, int] = (1, 1, 1)

  def __str__(self):
    text = f"{self.shape}->{self.out_channels} k{self.kernel[0]} {self.strides}"
    return text.replace(", ", ",")


LAYERS = {
  "cpu": [
    Layer((8, 17, 32, 32, 16), 16),
    Layer((8, 17, 16, 16, 32), 128),
    Layer((8, 9, 8, 8, 64), 64),
    Layer((1, 5, 32, 32, 128), 128),
    Layer((8, 17, 16, 16, 32), 32, (4, 4, 4), (2, 2, 2)),
    Layer((8, 17, 16, 16, 32), 32, (4, 4, 4), (1, 2, 2)),
  ],
  "accelerator": [
    Layer((4, 17, 128, 128, 128), 128),
    Layer((4, 17, 64, 64, 256), 256),
    Layer((4, 9, 32, 32, 256), 256),
    Layer((8, 5, 16, 16, 512), 512),
  ],
  "tiny": [
    Layer((1, 2, 4, 4, 2), 3),
    Layer((1, 4, 4, 4, 2), 3, (4, 4, 4), (2, 2, 2)),
  ],
}
FORWARD, STEP = "forward", "with gradients"
_BUDGET_SECONDS = 2  # for each form: a native strided gradient takes long
_YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# This sets the flag to its default: "+" adds a type that the list has already.
# models/__init__.py leaves a flag alone that is set.
_DEFAULT = f"{_YNN_FLAG}=+LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"


def main():
  parser = argparse.ArgumentParser(
    description="Speed of the forms of a convolution."
  )
  add = parser.add_argument
  add(
    "--layers", choices=sorted(LAYERS), help="those of the device if left out"
  )
  add("--repeats", type=int, default=5, help="timed runs")
  add(
    "--tiny", action="store_true", help="two tiny layers, to check the script"
  )
  add("--output", type=pathlib.Path, help="JSON to write as well")
  args = parser.parse_args()
  platform = _platform()
  layers = args.layers or ("cpu" if platform == "cpu" else "accelerator")
  layers = "tiny" if args.tiny else layers
  machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
  clock = "CPU ms" if platform == "cpu" else "ms"
  print(f"{platform}, {machine}; {clock}, median of {args.repeats}")
  rows = []
  with contextlib.ExitStack() as stack:
    run, run_default = lambda *job: measure(*job), None
    if platform == "cpu":
      kept = [
        flag
        for flag in os.environ.get("XLA_FLAGS", "").split()
        if not flag.startswith(_YNN_FLAG)
      ]
      run = _process(stack, kept)
      run_default = _process(stack, [*kept, _DEFAULT])
    for layer in LAYERS[layers]:
      for part in (FORWARD, STEP):
        row = run(layer, part, args.repeats)
        if run_default is not None:
          other = run_default(layer, part, args.repeats, ["taps"])
          row["seconds"]["default"] = other["seconds"]["taps"]
        print(_line(layer, part, row), flush=True)
        rows.append({"layer": str(layer), "part": part, **row})
  print(_verdict(rows))
  if args.output:
    report = {"platform": platform, "machine": machine, "rows": rows}
    args.output.write_text(json.dumps(report, indent=2) + "\n")


def measure(
  layer: Layer, part: str, repeats: int, names: Sequence[str] | None = None
) -> dict[str, Any]:
  """Seconds of each form of a layer, and what is said of them.

  `part` is FORWARD or STEP; without `names` all forms are run, in turn.
  `chosen` names the one of `valid_conv`, `over_fastest` is its time over the
  shortest, `gap` the largest difference from the first one's results, of their
  largest entry.
  """
  dtype = "float32" if _platform() == "cpu" else "bfloat16"
  x, kernel, cotangent = _arguments(layer, dtype)
  forward, gradient = convolution.choose(_platform(), x, kernel, layer.strides)
  backward = part == STEP
  chosen = _name(forward, gradient) if backward else forward
  if names is None:
    names = ["native", "taps", "columns", "folded"]
    if winograd.is_faster(x, kernel, layer.strides):
      names.append("winograd+taps" if backward else "winograd")
    names += [chosen] * (chosen not in names)
  programs = {name: _program(name, layer, backward) for name in names}
  results = {n: p(x, kernel, cotangent) for n, p in programs.items()}
  first, *others = jax.device_get(list(results.values()))
  times = {name: [] for name in names}
  for _ in range(repeats):
    for name, program in programs.items():
      if sum(times[name]) > _BUDGET_SECONDS:
        continue
      times[name].append(_seconds(program, (x, kernel, cotangent)))
  seconds = {name: statistics.median(t) for name, t in times.items()}
  points = 2 * cotangent.size * kernel.size // kernel.shape[-1]
  return {
    "seconds": seconds,
    "flop": points * (3 if backward else 1),
    "chosen": chosen,
    "over_fastest": seconds.get(chosen, 0.0) / min(seconds.values()),
    "gap": max(
      (
        _gap(a, b)
        for other in others
        for a, b in zip(first, other, strict=True)
      ),
      default=0.0,
    ),
  }


def rates(
  tiny: bool, repeats: int, product_rate: float
) -> Iterator[tuple[str, dict[str, Any]]]:
  """(layer and part, what was measured) for the rows of an accelerator.

  Each form's rate is given in TF/s, and as a share of a large product's FLOP/s.
  """
  for layer in LAYERS["tiny" if tiny else "accelerator"]:
    for part in (FORWARD, STEP):
      row = measure(layer, part, repeats)
      rate = {n: row["flop"] / s for n, s in row["seconds"].items()}
      row["tflops_per_second"] = {n: r / 1e12 for n, r in rate.items()}
      row["of_product_rate"] = {n: r / product_rate for n, r in rate.items()}
      yield f"{layer} {part}", row


def _platform() -> str:
  """The platform as `convolution.choose` names it."""
  platform = jax.default_backend()
  if platform != "gpu":
    return platform
  version = jax.devices()[0].client.platform_version
  return "rocm" if "rocm" in version.lower() else "cuda"


def _arguments(layer: Layer, dtype: str) -> tuple[jax.Array, ...]:
  """Padded input, kernel and gradient of the output."""
  kt, kh, kw = layer.kernel
  padding = ((kt - 1, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2))
  keys = jax.random.split(jax.random.key(0), 3)
  draw = lambda key, shape: jax.random.normal(key, shape).astype(dtype)
  x = convolution.pad_with_edge(draw(keys[0], layer.shape), padding)
  kernel = draw(keys[1], (*layer.kernel, layer.shape[-1], layer.out_channels))
  out = jax.eval_shape(
    lambda x, k: convolution_forms.conv_native(x, k, layer.strides), x, kernel
  )
  return x, kernel, draw(keys[2], out.shape)


def _program(name: str, layer: Layer, backward: bool):
  """The jitted form of a name: forward alone, or with both gradients."""
  forms = convolution_forms.FORMS
  forward, _, gradient = name.partition("+")
  gradients = forms[gradient or forward]

  @jax.jit
  def run(x, kernel, cotangent):
    y = forms[forward].forward(x, kernel, layer.strides)
    if not backward:
      return (y,)
    return (
      y,
      gradients.input_gradient(cotangent, kernel, layer.strides, x.shape[1:4]),
      gradients.kernel_gradient(x, cotangent, layer.strides, kernel.shape[:3]),
    )

  return run


def _name(forward: str, gradient: str) -> str:
  return forward if forward == gradient else f"{forward}+{gradient}"


def _seconds(program, arguments) -> float:
  """Wall seconds of a call; on a CPU, CPU seconds of all threads."""
  on_cpu = jax.default_backend() == "cpu"
  clock = time.process_time if on_cpu else time.perf_counter
  # A GPU's or TPU's calls are shorter than the start of one: they queue.
  calls = 1 if on_cpu else 10
  start = clock()
  outputs = [program(*arguments) for _ in range(calls)]
  jax.block_until_ready(outputs[-1])
  return (clock() - start) / calls


def _gap(a, b) -> float:
  a, b = a.astype("float32"), b.astype("float32")
  return float(abs(a - b).max() / abs(a).max())


def _process(stack: contextlib.ExitStack, flags: list[str]):
  """`measure` in a process that runs under other flags of XLA."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = " ".join(flags)
  pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(1))
  return lambda *job: pool.apply(measure, job)


def _line(layer: Layer, part: str, row: dict[str, Any]) -> str:
  times = "  ".join(
    f"{name}{'*' * (name == row['chosen'])} {1e3 * seconds:.2f}"
    for name, seconds in row["seconds"].items()
  )
  rate = row["flop"] / row["seconds"][row["chosen"]]
  return f"{layer!s:40}{part:>15}  {times}  ({rate / 1e9:.0f} GFLOP/s)"


def _verdict(rows: list[dict[str, Any]]) -> str:
  slowest = max(rows, key=lambda row: row["over_fastest"])
  fastest = sum(row["over_fastest"] == 1.0 for row in rows)
  return (
    f"The chosen form (*) is the fastest in {fastest} of {len(rows)} rows; at"
    f" worst it takes {slowest['over_fastest']:.2f} of the fastest one's time"
    f" ({slowest['layer']}, {slowest['part']}). Results differ by at most"
    f" {max(row['gap'] for row in rows):.1e} of the largest entry."
  )


if __name__ == "__main__":
  main()
