"""Attention on a device: its forms against the plain one, and their times.

Part of `benchmarks/accelerator.py`. Differences are ||a - b|| / ||b|| of the
output and of the gradients of queries, keys and values, products of float32
in full precision. Times are of a forward and a backward pass, in bfloat16.
"""

from collections.abc import Iterator
from concurrent import futures
import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.transformers import attend
from models.transformers import cuda_attention
from models.transformers import dropout as dropout_lib
from models.transformers import kernels

_RATE = 0.1  # share of the weights of attention that is dropped
# Name -> (queries in a block, warps, stages) of each kernel.
TILES = {
  "forward": [(64, 4, 2), (64, 4, 3), (128, 8, 2), (128, 8, 3), (128, 4, 2)],
  "keys": [(32, 4, 2), (32, 4, 3), (32, 4, 4), (64, 4, 2), (64, 4, 3)],
  "queries": [(64, 4, 2), (64, 4, 3), (32, 4, 3), (128, 8, 2), (128, 8, 3)],
}


def measure(shape, tiny: bool) -> Iterator[tuple[str, Any]]:
  """(name, what was measured), one after another; shape is (B, N, A, d)."""
  few = (2, min(shape[1], 321), *shape[2:])
  for dtype, rate, causal in (
    ("bfloat16", 0.0, False),
    ("bfloat16", _RATE, True),
    ("float32", 0.0, True),
    ("float32", _RATE, False),
  ):
    with jax.default_matmul_precision(
      "highest" if dtype == "float32" else None
    ):
      name = f"kernel_{dtype}_rate{rate}_{'causal' if causal else 'all'}"
      yield name, _differences(few, dtype, rate, causal)
  yield "dropout", _dropout(few)
  yield "seconds", _seconds(shape, tiny)
  if jax.default_backend() == "gpu":
    yield from _tuned(shape)


def _arrays(shape, dtype):
  keys = jax.random.split(jax.random.key(0), 4)
  return [jax.random.normal(key, shape).astype(dtype) for key in keys]


def _run(form: str, rate: float, causal: bool):
  """Makes (q, k, v, g, key) -> output and three gradients."""

  def run(q, k, v, g, key):
    drop = attend.Drop(rate, key) if rate else None
    layout = attend.Layout() if causal else None
    y, pull = jax.vjp(
      lambda q, k, v: attend.attend(
        *(q, k, v), layout, drop, attend.Form(form)
      ),
      *(q, k, v),
    )
    return y, *pull(g)

  return run


def _differences(shape, dtype, rate, causal) -> list[float]:
  arrays, key = _arrays(shape, dtype), jax.random.key(1)
  results = [
    [
      np.asarray(x, np.float64)
      for x in jax.jit(_run(form, rate, causal))(*arrays, key)
    ]
    for form in ("kernel", "plain")
  ]
  return [
    float(np.linalg.norm(a - b) / np.linalg.norm(b))
    for a, b in zip(*results, strict=True)
  ]


def _dropout(shape) -> dict[str, float]:
  """Mean and spread over 64 seeds of one output of constant values.

  With all values 1 an output is the sum of the weights that are kept, whose
  mean is 1 and whose variance is rate / (1 - rate) times the sum of squares.
  """
  q, k, v, _ = _arrays(shape, "float32")
  v = jnp.ones_like(v)
  run = jax.jit(
    lambda key: attend.attend(
      *(q, k, v), None, attend.Drop(_RATE, key), attend.Form("kernel")
    )[..., 0]
  )
  y_SBNA = np.stack([np.asarray(run(jax.random.key(s))) for s in range(64)])
  scores = jnp.einsum("bqad,bkad->baqk", q, k) / shape[-1] ** 0.5
  squares = (jax.nn.softmax(scores) ** 2).sum(-1)
  expected = float(squares.mean()) * _RATE / (1 - _RATE)
  return {
    "mean": float(y_SBNA.mean()),
    "variance_over_expected": float(y_SBNA.var(0, ddof=1).mean() / expected),
  }


def _seconds(shape, tiny: bool) -> dict[str, Any]:
  arrays, key = _arrays(shape, "bfloat16"), jax.random.key(1)
  runs = {
    f"{form}_{name}": _run(form, rate, causal)
    for form in ("kernel", "blocks")
    for name, rate, causal in (
      ("all", 0.0, False),
      ("all_dropout", _RATE, False),
      ("causal_dropout", _RATE, True),
    )
  }
  runs |= _cudnn(shape)
  result = {}
  for name, run in runs.items():
    try:
      result[name] = _time(jax.jit(run), (*arrays, key), 2 if tiny else 5)
    except Exception as error:  # a library may refuse the shape
      result[name] = f"not run: {str(error)[:200]}"
  return result


def _cudnn(shape):
  """cuDNN's attention without dropout, with the sequence padded."""
  if jax.default_backend() != "gpu":
    return {}
  batch, tokens, *_ = shape
  more = -tokens % 64
  lengths = jnp.full((batch,), tokens, jnp.int32)

  def run(q, k, v, g, key):
    del key
    pad = lambda x: jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)))
    y, pull = jax.vjp(
      lambda q, k, v: jax.nn.dot_product_attention(
        *(pad(q), pad(k), pad(v)),
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
      )[:, :tokens],
      *(q, k, v),
    )
    return y, *pull(g)

  return {"cudnn_all": run}


def _tuned(shape) -> Iterator[tuple[str, Any]]:
  """Seconds of each kernel alone, by its tiles; compiled side by side."""
  q, k, v, g = _arrays(shape, "bfloat16")
  seeds = dropout_lib.draw_seeds(jax.random.key(1), (shape[0], shape[2]))
  prefix = jnp.zeros((1,), jnp.int32)
  lse = jnp.full((shape[0], shape[2], shape[1]), 12.0, jnp.float32)
  for rate in (_RATE, 0.0):
    jobs = {}
    for kernel, choices in TILES.items():
      for tile in choices if rate else choices[:1]:
        tiles = dataclasses.replace(cuda_attention.Tiles(), **{kernel: tile})
        how = kernels.How(shape[1], causal=False, rate=rate)
        jobs[kernel, tile] = _kernel(kernel, how, tiles)
    arguments = (q, k, v, seeds, prefix, g, lse)

    def compile_one(run, arguments=arguments):
      try:
        return jax.jit(run).lower(*arguments).compile()
      except Exception as error:  # tiles that do not fit the chip
        return str(error)[:150]

    with futures.ThreadPoolExecutor(12) as pool:
      programs = list(pool.map(compile_one, jobs.values()))
    for (kernel, tile), program in zip(jobs, programs, strict=True):
      name = f"{kernel}_{'_'.join(map(str, tile))}_rate{rate}"
      if isinstance(program, str):
        yield name, program
      else:
        yield name, _time(program, arguments, 5)


def _kernel(kernel: str, how: kernels.How, tiles: cuda_attention.Tiles):
  def forward(q, k, v, seeds, prefix, g, lse):
    return cuda_attention.forward(q, k, v, seeds, prefix, how, tiles)

  def backward(q, k, v, seeds, prefix, g, lse):
    outputs = cuda_attention.backward(
      *(q, k, v, seeds, prefix, q, lse, g, how, tiles)
    )
    # What is not returned is not computed.
    return outputs[0] if kernel == "queries" else outputs[1:]

  return forward if kernel == "forward" else backward


def _time(run, arguments, repeats: int) -> float:
  jax.block_until_ready(run(*arguments))
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds)
