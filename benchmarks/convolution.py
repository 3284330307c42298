"""Speed of the two forms of a causal convolution, and of XLA's default one.

  python -m benchmarks.convolution [--repeats=5] [--output=FILE]

Compares the two forms of models/tokenizer/convolution.py under the project's
XLA flags, and the taps under jaxlib's defaults, which give 2-D convolutions to
YNNPACK; models/__init__.py turns that off. XLA reads flags once per process, so
each set of flags has a process. The two take turns layer by layer: on a shared
machine both compete with the same work. Read ratios, not times.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp

from models.tokenizer import convolution

# (B, T, H, W, I) of the input before padding, O, kernel, strides.
LAYERS = [
  ((8, 17, 32, 32, 16), 16, (3, 3, 3), (1, 1, 1)),
  ((8, 17, 16, 16, 32), 128, (3, 3, 3), (1, 1, 1)),
  ((8, 9, 8, 8, 64), 64, (3, 3, 3), (1, 1, 1)),
  ((8, 17, 16, 16, 32), 32, (4, 4, 4), (2, 2, 2)),
  ((8, 17, 16, 16, 32), 32, (4, 4, 4), (1, 2, 2)),
]
BUDGET_SECONDS = 2  # time for each form: a native strided gradient takes long
_YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
# This sets the flag to its default: "+" adds a type that the list has already.
# models/__init__.py leaves a flag alone that is set.
_DEFAULT = f"{_YNN_FLAG}=+LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--repeats", type=int, default=5, help="timed runs")
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
  print(
    f"Causal convolutions: median of {args.repeats}; {machine}\n\n{'':52}"
    f"{'ms':^26}{'GFLOP/s':^24}{'taps over':>14}\n{'':52}"
    + f"{'native':>8}{'taps':>8}{'default':>9} " * 2
    + f"{'native':>8}{'default':>9}"
  )
  kept = [
    flag
    for flag in os.environ.get("XLA_FLAGS", "").split()
    if not flag.startswith(_YNN_FLAG)
  ]
  rows = []
  with _process(kept) as project, _process([*kept, _DEFAULT]) as default:
    for layer in LAYERS:
      for backward in (False, True):
        job = (*layer, backward, args.repeats)
        row = project.apply(_measure, (("native", "taps"), *job))
        row["default"] = default.apply(_measure, (("taps",), *job))["taps"]
        print(_line(layer, backward, row))
        rows.append({"layer": layer, "backward": backward, **row})
  print(
    f"\nNative and taps differ by at most {max(r['gap'] for r in rows):.1e} of"
    " the largest entry."
  )
  if args.output:
    report = {"machine": machine, **vars(args), "rows": rows}
    args.output.write_text(json.dumps(report, indent=2, default=str))


def _line(layer, backward, row):
  shape, out_channels, kernel, strides = layer
  name = f"{shape}->{out_channels} k{kernel[0]} s{strides}".replace(", ", ",")
  forms = [row[form] for form in ("native", "taps", "default")]
  return (
    f"{name:40}{'fwd+bwd' if backward else 'forward':>12}"
    + "{:8.1f}{:8.1f}{:9.1f} ".format(*forms)
    + "{:8.0f}{:8.0f}{:9.0f} ".format(
      *(row["gflop"] / ms * 1e3 for ms in forms)
    )
    + f"{row['native'] / row['taps']:7.1f}x{row['default'] / row['taps']:8.1f}x"
  )


def _process(flags):
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["XLA_FLAGS"] = " ".join(flags)
  return multiprocessing.get_context("spawn").Pool(1)


def _measure(
  forms, shape, out_channels, kernel_size, strides, backward, repeats
):
  """Median milliseconds of each form, run in turn; operations; difference."""
  kt, kh, kw = kernel_size
  keys = jax.random.split(jax.random.key(0), 3)
  padding = ((kt - 1, 0), ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2))
  x = convolution.pad_with_edge(jax.random.normal(keys[0], shape), padding)
  kernel_shape = (*kernel_size, shape[-1], out_channels)
  kernel = jax.random.normal(keys[1], kernel_shape)
  out = jax.eval_shape(
    lambda x, k: convolution.conv_native(x, k, strides), x, kernel
  )
  cotangent = jax.random.normal(keys[2], out.shape)

  def step(form, x, kernel, cotangent):
    conv = {
      "native": convolution.conv_native,
      "taps": convolution.conv_as_taps,
    }[form]
    y, pull = jax.vjp(lambda x, k: conv(x, k, strides), x, kernel)
    return (y, *pull(cotangent)) if backward else (y,)

  step = jax.jit(step, static_argnums=0)
  results = [step(form, x, kernel, cotangent) for form in forms]
  times = {form: [] for form in forms}
  for _ in range(repeats):
    for form in forms:
      if sum(times[form]) > BUDGET_SECONDS:
        continue
      start = time.perf_counter()
      jax.block_until_ready(step(form, x, kernel, cotangent))
      times[form].append(time.perf_counter() - start)
  flop = 2 * out.size * kt * kh * kw * shape[-1] * (3 if backward else 1)
  return {
    **{form: 1e3 * statistics.median(t) for form, t in times.items()},
    "gflop": flop / 1e9,
    "gap": max(
      float(jnp.abs(a - b).max() / jnp.abs(a).max())
      for a, b in zip(results[0], results[-1], strict=True)
    ),
  }


if __name__ == "__main__":
  main()
