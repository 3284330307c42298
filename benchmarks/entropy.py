"""Time and peak memory of the exact LFQ entropy, against a direct softmax.

  python -m benchmarks.entropy [--bits=18] [--tokens=4096] [--output=FILE]

Each row of the table is a fresh process, whose memory no earlier program has
touched. It makes the input, compiles ahead of time, returns freed memory to the
system, resets the kernel's peak counter (VmHWM), and only then executes for the
first time. "Rise" is the peak less the resident size before. It includes memory
that malloc keeps between executions; the column "first" does not. It runs on
CPUs only, as a process does not see the peak of an accelerator's memory.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import pathlib
import resource
import statistics
import sys
import time

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from models.quantizers import binary
from models.quantizers import bits as bits_lib

# Target for the gradient at 18 bits and 4096 tokens on two cores.
TARGET_MS, TARGET_MB = 300, 100
COMPARED_BITS = 12  # number of bits at which the direct form still fits
SOFT = 2.0  # temperature at which many codes have probability, and gradients
COLUMNS = {
  "ms": "ms",
  "floor ms": "floor_ms",  # time of the matrix products alone
  "x floor": "floor_ratio",
  "rise MB": "rise_mb",
  "first MB": "first_rise_mb",
  "temp MB": "temp_mb",  # temporary memory that XLA plans
  "floor GF": "floor_gflop",
  "traffic": "traffic_mb",  # least memory traffic possible, in MB
}


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--bits", type=int, default=18, help="bits of an id")
  parser.add_argument("--tokens", type=int, default=4096, help="tokens coded")
  parser.add_argument("--repeats", type=int, default=5, help="timed runs")
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  size, few = (args.tokens, args.repeats), min(args.bits, COMPARED_BITS)
  rows = {
    "exact, forward": _measure(_exact, False, args.bits, 0.01, *size),
    "exact, gradient": _measure(_exact, True, args.bits, 0.01, *size),
    f"exact, gradient, {few} bits": _measure(_exact, True, few, SOFT, *size),
    f"direct, gradient, {few} bits": _measure(_direct, True, few, SOFT, *size),
  }
  gradients = [row.pop("gradient") for row in rows.values()]
  _, gradient, exact, direct = rows.values()
  gap = np.abs(gradients[2] - gradients[3]).max() / np.abs(gradients[3]).max()
  met = gradient["ms"] <= TARGET_MS and gradient["rise_mb"] <= TARGET_MB
  machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
  print(
    f"LFQ entropy: {args.bits} bits, {args.tokens} tokens, median of"
    f" {args.repeats}; {machine}; peak from {gradient['source']}\n\n{'':26}"
    + "".join(f"{title:>9}" for title in COLUMNS)
  )
  for name, row in rows.items():
    print(f"{name:26}" + "".join(f"{row[k]:9.1f}" for k in COLUMNS.values()))
  print(
    f"\nDirect form at {args.bits} bits:"
    f" {args.tokens * 2**args.bits * 4e-6:.0f} MB per array."
    f"\nDirect / exact at {few} bits: {direct['ms'] / exact['ms']:.1f}x time,"
    f" {direct['temp_mb'] / exact['temp_mb']:.0f}x temporaries; values"
    f" {direct['value']:.6f} and {exact['value']:.6f}, gradients differ by"
    f" {gap:.1e} of the largest.\nGradient within {TARGET_MS} ms and"
    f" {TARGET_MB} MB (the target of 18 bits, 4096 tokens, two cores):"
    f" {'yes' if met else 'NO'}"
  )
  if args.output:
    report = {"machine": machine, **vars(args), "rows": rows, "met": met}
    args.output.write_text(json.dumps(report, indent=2, default=str))


def _measure(*args) -> dict:
  os.environ["JAX_PLATFORMS"] = "cpu"
  with multiprocessing.get_context("spawn").Pool(1) as pool:
    return pool.apply(_measure_here, args)


def _measure_here(loss, with_gradient, bits, temperature, tokens, repeats):
  z = jax.random.normal(jax.random.key(0), (1, 1, 1, tokens, bits))
  step = lambda z: loss(z, temperature)
  step = jax.value_and_grad(step) if with_gradient else step
  step = jax.jit(step).lower(z).compile()
  before, source = _reset_peak()
  out = jax.block_until_ready(step(z))
  first = _peak()
  ms = _median_ms(step, [z], repeats)
  value, gradient = out if with_gradient else (out, 0.0)
  rises = {"rise_mb": _peak() - before, "first_rise_mb": first - before}

  product = lambda a, b: jnp.matmul(a.T, b, precision=lax.Precision.HIGHEST)
  widths = [2 ** (bits - bits // 2), 2 ** (bits // 2)]
  product_ms = _median_ms(
    jax.jit(product), [jnp.ones((tokens, width)) for width in widths], repeats
  )
  products = 3 if with_gradient else 1  # forward, then one per factor
  # Factors and product are written, then read; with the gradient the factors
  # are read once more, and the cotangents of all are written and read.
  passes = 5 if with_gradient else 2
  return {
    "ms": ms,
    "floor_ms": products * product_ms,
    "floor_ratio": ms / (products * product_ms),
    **{name: rise / 1e6 for name, rise in rises.items()},
    "temp_mb": step.memory_analysis().temp_size_in_bytes / 1e6,
    "floor_gflop": products * 2e-9 * tokens * 2**bits,
    "traffic_mb": passes * 4e-6 * (tokens * sum(widths) + 2**bits),
    "source": source,
    "value": float(value),
    "gradient": np.asarray(gradient),
  }


def _exact(z_BTHWK, temperature):
  bits = z_BTHWK.shape[-1]
  q = binary.LookupFreeQuantizer(bits, temperature)(z_BTHWK)
  return q.sample_entropy - q.batch_entropy


def _direct(z_BTHWK, temperature, epsilon=1e-5):
  """Computes the same by a softmax over all codes."""
  bits = z_BTHWK.shape[-1]
  z_NK = z_BTHWK.reshape(-1, bits)
  codes_VK = bits_lib.ids_to_codes(jnp.arange(2**bits), bits)
  inner_NV = jnp.matmul(z_NK, codes_VK.T, precision=lax.Precision.HIGHEST)
  log_p_NV = jax.nn.log_softmax(2.0 * inner_NV / temperature)
  p_NV = jnp.exp(log_p_NV)
  mean_V = p_NV.mean(0)
  batch_entropy = -(mean_V * jnp.log(mean_V + epsilon)).sum()
  return -(p_NV * log_p_NV).sum(-1).mean() - batch_entropy


def _median_ms(fn, args, repeats):
  jax.block_until_ready(fn(*args))
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(fn(*args))
    times.append(time.perf_counter() - start)
  return 1e3 * statistics.median(times)


def _reset_peak() -> tuple[int, str]:
  """Resets the peak to the present size; returns it and how it was read."""
  try:
    # Otherwise the run would reuse memory that the compiler freed, and the peak
    # would not rise.
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
  except (AttributeError, OSError):
    return _peak(), "the whole life of the process: rises are lower bounds"
  return _peak(), "VmHWM, reset before the run"


def _peak() -> int:
  """Largest resident size in bytes."""
  status = pathlib.Path("/proc/self/status")
  if status.exists():
    return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
  unit = 1 if sys.platform == "darwin" else 1024
  return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
  main()
