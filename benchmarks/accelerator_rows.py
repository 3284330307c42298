"""The rows of `benchmarks/accelerator.py`, each measured in its own process."""

import argparse
from collections.abc import Callable
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import accelerator_configs as configs
from benchmarks import accelerator_peers as peers
from benchmarks import attention_forms
from benchmarks import convolution as convolution_forms
from benchmarks.accelerator_row import REPEATS
from benchmarks.accelerator_row import Row
from benchmarks.accelerator_row import bytes_rate
from benchmarks.accelerator_row import compile_program
from benchmarks.accelerator_row import measure
from benchmarks.accelerator_row import measure_clips
from benchmarks.accelerator_row import measure_function
from benchmarks.accelerator_row import product_rate
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.cost import flops
from magvit.cost import programs as cost_programs
from magvit.generators import autoregressive
from magvit.generators import masked
from magvit.generators import sampling
from magvit.tokenizer import describe
from models import network
from models.features import networks as feature_networks
from models.quantizers import binary
from models.tokenizer import tokenizer as tokenizer_network

_FIRST_CLIPS = 4  # clips that the tokenizer's step is first compiled for


def main():
  parser = argparse.ArgumentParser()
  add = parser.add_argument
  add("row", choices=sorted(ROWS))
  add("--output", type=pathlib.Path, required=True)
  add("--tiny", action="store_true")
  add("--set", default="")
  add("--peer", type=pathlib.Path)
  add("--limit", type=float, default=float("inf"))
  args = parser.parse_args()
  row = Row(args.output, args.tiny, args.set, args.peer, args.limit)
  ROWS[args.row](row)


def products(row: Row) -> None:
  """Rates that floors and MFU refer to: products, and traffic of memory."""
  device = jax.devices()[0]
  row.add(
    device=device.device_kind, platform=device.platform, jax=jax.__version__
  )
  for dtype in ("bfloat16", "float32"):
    row.add(**{f"{dtype}_flops_per_second": product_rate(row, dtype)})
  row.add(copy_bytes_per_second=bytes_rate(row))


def masked_train(row: Row) -> None:
  """MAGVIT-L, stored tokens: 32 clips of 1,281 positions in bfloat16."""
  config = configs.masked(row, configs.clips(row, 32))
  _measure_program(row, config, "train")


def autoregressive_train(row: Row) -> None:
  """The AR-LM of 840M, stored tokens, in bfloat16."""
  config = configs.autoregressive(row, configs.clips(row, 8))
  _measure_program(row, config, "train")
  positions = config.batch_size * (1 + configs.tokens(row))
  row.add(positions_per_second=positions / row.measured["seconds"])


def masked_sample(row: Row) -> None:
  """Tokens of 16 clips in 12 steps, without guidance."""
  config = configs.masked(row, configs.clips(row, 16))
  batch, tokens, steps = config.batch_size, configs.tokens(row), 12
  transformer = masked.define_transformer(config, tokens)
  nothing = jnp.zeros((batch,), jnp.int32)
  factors = len(config.transformer.factor_bits)
  condition = jnp.zeros((batch, tokens, factors), jnp.int32)

  def sample(params, key):
    return sampling.decode(
      key,
      lambda parts, decided, step: transformer(
        params, parts, ~decided, nothing, nothing
      ),
      condition,
      jnp.zeros((batch, tokens), bool),
      steps,
      config.sampling.schedule,
      config.sampling.choice_temperature,
    )

  _measure_sampling(row, transformer, sample, batch, tokens)


def autoregressive_sample(row: Row) -> None:
  """1,280 tokens of 16 clips, one at a time, with the cache.

  Each token reads the weights of the layers and of the output table once, and
  the keys and values of the tokens before it, in bfloat16: the floor by bytes
  is the time that this takes at the rate of a copy.
  """
  config = configs.autoregressive(row, configs.clips(row, 16))
  batch, tokens = config.batch_size, configs.tokens(row)
  transformer = autoregressive.define_transformer(config, tokens)
  classes = config.transformer.num_classes
  factors = len(config.transformer.factor_bits)

  def sample(params, key):
    return autoregressive.generate(
      transformer,
      params,
      key,
      tokens,
      jnp.zeros((batch,), jnp.int32),
      jnp.zeros((batch, 0, factors), jnp.int32),
      0,
      classes,
      config.sampling,
    )

  params = _measure_sampling(row, transformer, sample, batch, tokens)
  t = config.transformer
  tables = network.count({"embedding": params["outputs"]})
  layers = network.count(params["stack"])
  cache = 2 * batch * t.num_layers * t.width * tokens / 2
  floor = tokens * 2 * (tables + layers + cache) / bytes_rate(row)
  row.add(
    floor_by_bytes_seconds=floor,
    tokens_per_second=batch * tokens / row.measured["seconds"],
    over_floor_by_bytes=row.measured["seconds"] / floor,
  )


def reconstruct(row: Row) -> None:
  """The tokenizer of 376M, clips to tokens and back."""
  config = configs.tokenizer(row, configs.clips(row, 4))
  _measure_program(row, config, "reconstruct")


def tokenizer_train(row: Row) -> None:
  """The tokenizer of 376M with discriminator, R1 and moving average.

  As many clips as fit, of 1, 2, 4 and 8. `compile_seconds` are those of the
  first size, with an empty cache of compiled programs.
  """
  sizes = (2,) if row.tiny else (_FIRST_CLIPS, 8, 2, 1)
  measure_clips(row, lambda clips: _tokenizer_step(row, clips), sizes)


def tokenizer_train_warm(row: Row) -> None:
  """Compiles the tokenizer's step again, with the cache of the row before."""
  clips = configs.clips(row, _FIRST_CLIPS)
  row.add(clips=clips)
  compile_program(row, _tokenizer_step(row, clips)[0])


def tokenizer_generator(row: Row) -> None:
  """The tokenizer alone: forward and backward of an L2 loss."""
  sizes = (2,) if row.tiny else (2, 8, 4, 1)
  measure_clips(
    row, lambda clips: _generator_step(row, clips), sizes, always=(2, 1)
  )


def ids(row: Row) -> None:
  """Ids and features of the device against those of the CPU beside it.

  Weights are drawn so that bits are even. Ids of drawn clips are those of
  float32 in full precision and of bfloat16, against float32 on the CPU.
  """
  cpu = jax.devices("cpu")[0]
  config = configs.tokenizer(row, configs.clips(row, 1))
  video = np.random.default_rng(0).random(
    (config.batch_size, *describe.clip_shape(config), 3), np.float32
  )
  net = describe.define_tokenizer(config)
  params = _drawn_evenly(jax.eval_shape(net.init, jax.random.key(0)))
  latents = {}
  for name, dtype, device in (
    ("expected", "float32", cpu),
    ("float32", "float32", jax.devices()[0]),
    ("bfloat16", "bfloat16", jax.devices()[0]),
  ):
    config.tokenizer.dtype = dtype
    net = describe.define_tokenizer(config)
    encode = jax.jit(lambda p, v, n=net: n(p, v, method="encode_latents"))
    precision = "highest" if dtype == "float32" else None
    with jax.default_matmul_precision(precision):
      placed = jax.device_put((params, video), device)
      latents[name] = np.asarray(encode(*placed), np.float32)
    if name != "expected":
      row.add(**{name: _compare(latents[name], latents["expected"])})
  net, abstract = feature_networks.define("inception")
  params = _drawn_evenly(abstract)
  images = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
  pooled = [
    np.asarray(jax.jit(net)(*jax.device_put((params, images), device))["pool3"])
    for device in (jax.devices()[0], cpu)
  ]
  error = np.linalg.norm(pooled[0] - pooled[1]) / np.linalg.norm(pooled[1])
  row.add(inception={"difference": float(error)})


def _compare(latents: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
  equal = (latents >= 0) == (expected >= 0)
  largest = np.abs(expected).max()
  return {
    "bits": equal.size,
    "equal_bits": float(equal.mean()),
    "ones": float((expected >= 0).mean()),
    "equal_ids": float(equal.all(-1).mean()),
    "latent_difference": float(np.abs(latents - expected).max() / largest),
  }


def _drawn_evenly(shapes):
  """Kernels of variance 1 / fan-in; biases and means 0, other vectors 1."""
  rng = np.random.default_rng(0)

  def leaf(path, x):
    if len(x.shape) < 2:
      shift = path[-1].key in ("bias", "mean")
      return np.full(x.shape, 0 if shift else 1, x.dtype)
    fan_in = np.prod(x.shape[:-1])
    drawn = rng.standard_normal(x.shape, np.float32) * fan_in**-0.5
    return drawn.astype(x.dtype)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


def entropy(row: Row) -> None:
  """Exact LFQ entropy of 18 bits and its gradient, 4 x 1,280 tokens."""
  bits, tokens = (6, 64) if row.tiny else (18, 5120)
  z = jax.ShapeDtypeStruct((1, 1, 1, tokens, bits), jnp.float32)

  def loss(z_BTHWK):
    q = binary.LookupFreeQuantizer(bits, 0.01)(z_BTHWK)
    return q.sample_entropy - q.batch_entropy

  # Three products of (tokens, 2^9) and its like, in float32.
  operations = 3 * 2 * tokens * 2**bits
  measure_function(row, jax.value_and_grad(loss), (z,), operations, "float32")


def inception(row: Row) -> None:
  """Pool3 and logits of 64 images of 256 x 256."""
  _features(row, "inception", (2 if row.tiny else 64, 256, 256, 3))


def i3d(row: Row) -> None:
  """Features of 16 clips of 16 x 224 x 224."""
  shape = (1, 9, 224, 224, 3) if row.tiny else (16, 16, 224, 224, 3)
  _features(row, "i3d", shape)


def attention(row: Row) -> None:
  """The forms of attention: differences from the plain one, dropout, times."""
  shape = (2, 100, 2, 32) if row.tiny else (32, 1281, 16, 64)
  row.add(shape=shape)
  for name, result in attention_forms.measure(shape, row.tiny):
    row.add(**{name: result})


def convolution(row: Row) -> None:
  """The forms of the tokenizer's convolution in four of its layers."""
  rate = product_rate(row, "bfloat16")
  row.add(flops_per_second=rate)
  for name, result in convolution_forms.rates(row.tiny, REPEATS, rate):
    row.add(**{name: result})


def _tokenizer_step(row: Row, clips: int):
  """(the program of a training step, its operations)."""
  config = configs.tokenizer(row, clips)
  row.add(config=config.name, remat=config.tokenizer.remat)
  return _program(config, "train")


def _generator_step(row: Row, clips: int):
  """(the program of the tokenizer's step by an L2 loss, its operations)."""
  config = configs.tokenizer(row, clips)
  net = describe.define_tokenizer(config)
  plain = describe.define_tokenizer(cost_programs.without_remat(config))
  shape = (clips, *describe.clip_shape(config), 3)
  arguments = (
    jax.eval_shape(net.init, jax.random.key(0)),
    jax.ShapeDtypeStruct(shape, np.uint8),
  )

  def step(params, video, net=net):
    video = tokenizer_network.to_float(video)

    def loss(params):
      z = net(params, video, method="encode_latents")
      z = net(params, z, method="quantize").z
      output = net(params, z, method="decode_latents")
      return jnp.mean((output - video) ** 2)

    return jax.value_and_grad(loss)(params)

  operations = flops.count(lambda *inputs: step(*inputs, net=plain), *arguments)
  return cost_programs.Program(step, None, (), arguments), operations


def _program(config: ml_collections.ConfigDict, name: str):
  """(one of the programs that a config runs, its operations)."""
  mesh = mesh_lib.make_mesh(config.mesh, jax.devices()[:1])
  program, plain = (
    cost_programs.programs(config, cost_programs.describe(c, mesh), mesh)[name]
    for c in (config, cost_programs.without_remat(config))
  )
  # The steps that are timed do not encode the probe of a tokenizer's health.
  return program, flops.count(plain.function, *plain.arguments, branch=min)


def _measure_program(
  row: Row, config: ml_collections.ConfigDict, name: str
) -> None:
  """Measures one of the programs that a config runs, with drawn arguments."""
  section = trained_lib.find_algorithm(config).facts.section
  row.add(
    config=config.name,
    batch_size=config.batch_size,
    settings={
      key: config[section][key]
      for key in ("dtype", "remat", "dropout", "attention", "dropout_bits")
      if key in config[section]
    },
  )
  measure(row, *_program(config, name), "bfloat16")
  row.add(clips_per_second=config.batch_size / row.measured["seconds"])


def _measure_sampling(row: Row, transformer, sample, batch: int, tokens: int):
  """Measures tokens drawn by a generator; gives the shapes of its weights."""
  params = jax.eval_shape(transformer.init, jax.random.key(0))
  key = jax.eval_shape(lambda: jax.random.key(0))
  row.add(batch_size=batch, tokens=tokens)
  operations = flops.count(sample, params, key)
  measure_function(row, sample, (params, key), operations, "bfloat16", 2)
  row.add(clips_per_second=batch / row.measured["seconds"])
  return params


def _features(row: Row, name: str, shape: tuple[int, ...]) -> None:
  net, abstract = feature_networks.define(name)
  images = jax.ShapeDtypeStruct(shape, np.uint8)
  row.add(shape=shape)
  operations = flops.count(net, abstract, images)
  measure_function(row, net, (abstract, images), operations, "float32")
  row.add(examples_per_second=shape[0] / row.measured["seconds"])


ROWS: dict[str, Callable[[Row], None]] = {
  f.__name__: f
  for f in (
    products,
    masked_train,
    autoregressive_train,
    masked_sample,
    autoregressive_sample,
    reconstruct,
    tokenizer_train,
    tokenizer_train_warm,
    tokenizer_generator,
    ids,
    entropy,
    inception,
    i3d,
    attention,
    convolution,
    peers.torch_bert,
    peers.torch_bert_compiled,
    peers.open_magvit2,
  )
}


if __name__ == "__main__":
  main()
