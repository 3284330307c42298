"""The rows of `benchmarks/accelerator.py`, each measured in its own process.

Weights and inputs are drawn on the device. Times are medians after a warm-up,
with the device waited for; a floor is the time that as many products take at
the rate of one large product in the same type, measured in the same process.
"""

import argparse
from collections.abc import Callable
import json
import pathlib
import statistics
import time

_LARGE = 8192  # rows, columns and depth of the product that gives the rate
_REPEATS = 5


class Row:
  """What a row has measured so far, written after each addition."""

  def __init__(self, output: pathlib.Path, tiny: bool, fields: str):
    self.output, self.tiny = output, tiny
    self.fields = dict(f.split("=", 1) for f in fields.split(",") if f)
    self.measured = {}

  def add(self, **measured) -> None:
    self.measured |= measured
    self.output.write_text(json.dumps(self.measured, indent=2) + "\n")


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("row", choices=sorted(ROWS))
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--tiny", action="store_true")
  parser.add_argument("--set", default="")
  args = parser.parse_args()
  ROWS[args.row](Row(args.output, args.tiny, args.set))


def products(row: Row) -> None:
  """Rates that floors and MFU refer to: products, and traffic of memory."""
  import jax

  device = jax.devices()[0]
  row.add(
    device=device.device_kind, platform=device.platform, jax=jax.__version__
  )
  size = 256 if row.tiny else _LARGE
  for dtype in ("bfloat16", "float32"):
    row.add(**{f"{dtype}_flops_per_second": _product_rate(dtype, size)})
  row.add(copy_bytes_per_second=2 * _copied(row))


def masked_train(row: Row) -> None:
  """MAGVIT-L, stored tokens: 32 clips of 1,281 positions in bfloat16."""
  config = _config(row, "configs/masked.py:ucf101", 32)
  _shrink_transformer(row, config)
  _measure_program(row, config, "train")


def autoregressive_train(row: Row) -> None:
  """The AR-LM of 840M, stored tokens, in bfloat16."""
  config = _config(row, "configs/autoregressive.py:ucf101", 8)
  _shrink_transformer(row, config)
  if row.tiny:
    config.loss_chunks = 2
  _measure_program(row, config, "train")


def masked_sample(row: Row) -> None:
  """Tokens of 16 clips in 12 steps, without guidance."""
  import jax.numpy as jnp

  from magvit.generators import masked
  from magvit.generators import sampling

  config = _config(row, "configs/masked.py:ucf101", 16)
  _shrink_transformer(row, config)
  batch, tokens, steps = config.batch_size, 20 if row.tiny else 1280, 12
  transformer = masked.define_transformer(config, tokens)
  nothing = jnp.zeros((batch,), jnp.int32)
  condition = jnp.zeros(
    (batch, tokens, len(config.transformer.factor_bits)), jnp.int32
  )

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
  """1,280 tokens of 16 clips, one at a time, with the cache."""
  import jax.numpy as jnp

  from magvit.generators import autoregressive
  from models import network

  config = _config(row, "configs/autoregressive.py:ucf101", 16)
  _shrink_transformer(row, config)
  batch, tokens = config.batch_size, 20 if row.tiny else 1280
  transformer = autoregressive.define_transformer(config, tokens)
  classes = config.transformer.num_classes

  def sample(params, key):
    return autoregressive.generate(
      transformer,
      params,
      key,
      tokens,
      jnp.zeros((batch,), jnp.int32),
      jnp.zeros((batch, 0, len(config.transformer.factor_bits)), jnp.int32),
      0,
      classes,
      config.sampling,
    )

  params = _measure_sampling(row, transformer, sample, batch, tokens)
  t = config.transformer
  # Each token reads the weights of the layers and of the output table once, and
  # the keys and values of the tokens before it, in bfloat16.
  tables = network.count({"embedding": params["outputs"]})
  layers = network.count(params["stack"])
  cache = 2 * batch * t.num_layers * t.width * tokens / 2
  read = 2 * (tables + layers + cache)
  rate = 2 * _copied(row)
  row.add(
    floor_by_bytes_seconds=tokens * read / rate,
    tokens_per_second=batch * tokens / row.measured["seconds"],
    over_floor_by_bytes=row.measured["seconds"] / (tokens * read / rate),
  )


def reconstruct(row: Row) -> None:
  """The tokenizer of 376M, clips to tokens and back."""
  config = _config(row, "configs/tokenizer_video.py:ucf101", 4)
  _shrink_tokenizer(row, config)
  _measure_program(row, config, "reconstruct")


def tokenizer_train(row: Row) -> None:
  """The tokenizer of 376M with discriminator, R1 and moving average."""
  config = _config(row, "configs/tokenizer_video.py:ucf101", 4)
  _shrink_tokenizer(row, config)
  _measure_program(row, config, "train")


def entropy(row: Row) -> None:
  """Exact LFQ entropy of 18 bits and its gradient, 4 x 1,280 tokens."""
  import jax

  from models.quantizers import binary

  bits, tokens = (6, 64) if row.tiny else (18, 5120)
  z_BTHWK = jax.random.normal(jax.random.key(0), (1, 1, 1, tokens, bits))

  def loss(z_BTHWK):
    q = binary.LookupFreeQuantizer(bits, 0.01)(z_BTHWK)
    return q.sample_entropy - q.batch_entropy

  # Three products of (tokens, 2^9) and its like, in float32.
  operations = 3 * 2 * tokens * 2**bits
  _measure(row, jax.value_and_grad(loss), (z_BTHWK,), operations, "float32")


def inception(row: Row) -> None:
  """Pool3 and logits of 64 images of 256 x 256."""
  _features(row, "inception", (2 if row.tiny else 64, 256, 256, 3))


def i3d(row: Row) -> None:
  """Features of 16 clips of 16 x 224 x 224."""
  shape = (1, 9, 224, 224, 3) if row.tiny else (16, 16, 224, 224, 3)
  _features(row, "i3d", shape)


def attention(row: Row) -> None:
  """The forms of attention: differences from the plain one, dropout, times."""
  from benchmarks import attention_forms

  shape = (2, 100, 2, 32) if row.tiny else (32, 1281, 16, 64)
  row.add(shape=shape)
  for name, result in attention_forms.measure(shape, row.tiny):
    row.add(**{name: result})


def torch_bert(row: Row, compiled: bool = False) -> None:
  """The training step of `torch_bert.py` at the shape of `masked_train`."""
  import torch

  from benchmarks import torch_bert as bert

  config = _config(row, "configs/masked.py:ucf101", 32)
  _shrink_transformer(row, config)
  t = config.transformer
  shape = bert.Shape(
    tokens=21 if row.tiny else 1281,
    num_layers=t.num_layers,
    width=t.width,
    mlp_width=t.mlp_width,
    num_heads=t.num_heads,
    factor_bits=tuple(t.factor_bits),
    dropout=t.dropout,
  )
  on_gpu = torch.cuda.is_available()
  row.add(torch=torch.__version__, batch_size=config.batch_size)
  step = bert.make_step(
    shape, config.batch_size, "cuda" if on_gpu else "cpu", compiled
  )
  wait = torch.cuda.synchronize if on_gpu else lambda: None
  start = time.perf_counter()
  for _ in range(2):
    step()
  wait()
  row.add(warm_up_seconds=time.perf_counter() - start)
  seconds = []
  for _ in range(_REPEATS):
    start = time.perf_counter()
    step()
    wait()
    seconds.append(time.perf_counter() - start)
  row.add(seconds=statistics.median(seconds))
  if on_gpu:
    row.add(peak_gib=torch.cuda.max_memory_allocated() / 2**30)


def torch_bert_compiled(row: Row) -> None:
  torch_bert(row, compiled=True)


def _config(row: Row, name: str, batch_size: int):
  """A config in bfloat16 that reads stored tokens, where it has a tokenizer."""
  from magvit import trained as trained_lib
  from magvit.workdir import folder as workdir_lib

  config = workdir_lib.read_config_file(name)
  facts = trained_lib.find_algorithm(config).facts
  config.batch_size = 2 if row.tiny else batch_size
  config[facts.section].dtype = "bfloat16"
  if "tokenizer_workdir" in config:
    config.tokenizer_workdir = "configs/tokenizer_video.py:ucf101"
    config.dataset.tokens = "stored"
  if row.tiny:
    config.dataset.size = 16
  for field, value in row.fields.items():
    if field.partition(".")[0] in config:
      section, _, last = field.rpartition(".")
      node = config[section] if section else config
      if last in node:
        node[last] = type(node[last])(value)
  return config


def _shrink_transformer(row: Row, config) -> None:
  if row.tiny:
    config.transformer.num_layers = 2
    config.transformer.width = 32
    config.transformer.mlp_width = 64
    config.transformer.num_heads = 2


def _shrink_tokenizer(row: Row, config) -> None:
  if row.tiny:
    config.tokenizer.base_channels = 8
    config.tokenizer.num_res_blocks = 1
    config.tokenizer.norm_groups = 4
    config.discriminator.base_channels = 4


def _measure_program(row: Row, config, name: str) -> None:
  """Measures one of the programs that a config runs, with drawn arguments."""
  from magvit import mesh as mesh_lib
  from magvit import trained as trained_lib
  from magvit.cost import flops
  from magvit.cost import programs as cost_programs

  mesh = mesh_lib.make_mesh(config.mesh)
  algorithm = cost_programs.describe(config, mesh)
  plain = cost_programs.describe(cost_programs.without_remat(config), mesh)
  program = cost_programs.programs(config, algorithm, mesh)[name]
  plain = cost_programs.programs(config, plain, mesh)[name]
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
  _measure(
    row,
    program.function,
    program.arguments,
    # The steps that are timed do not encode the probe of a tokenizer's health.
    flops.count(plain.function, *plain.arguments, branch=min),
    "bfloat16",
    donated=program.donated,
    out_shardings=program.out_shardings,
  )
  row.add(clips_per_second=config.batch_size / row.measured["seconds"])


def _measure_sampling(row: Row, transformer, sample, batch: int, tokens: int):
  """Measures tokens drawn by a generator; gives the shapes of its weights."""
  import jax

  from magvit.cost import flops

  params = jax.eval_shape(transformer.init, jax.random.key(0))
  key = jax.eval_shape(lambda: jax.random.key(0))
  row.add(batch_size=batch, tokens=tokens)
  operations = flops.count(sample, params, key)
  _measure(row, sample, (params, key), operations, "bfloat16", repeats=2)
  row.add(clips_per_second=batch / row.measured["seconds"])
  return params


def _features(row: Row, name: str, shape: tuple[int, ...]) -> None:
  import jax
  import numpy as np

  from magvit.cost import flops
  from models.features import networks as feature_networks

  net, abstract = feature_networks.define(name)
  images = jax.ShapeDtypeStruct(shape, np.uint8)
  row.add(shape=shape)
  operations = flops.count(net, abstract, images)
  _measure(row, net, (abstract, images), operations, "float32")
  row.add(examples_per_second=shape[0] / row.measured["seconds"])


def _measure(
  row: Row,
  function: Callable,
  arguments: tuple,
  operations: int,
  dtype: str,
  donated: tuple[int, ...] = (),
  out_shardings=None,
  repeats: int = _REPEATS,
) -> None:
  """Compiles, runs and times a function; adds times and memory to the row."""
  import jax

  from benchmarks import timing

  device = jax.devices()[0]
  row.add(device=device.device_kind, tflop=operations / 1e12)
  start = time.perf_counter()
  lowered = jax.jit(
    function, donate_argnums=donated, out_shardings=out_shardings
  ).lower(*arguments)
  row.add(lower_seconds=time.perf_counter() - start)
  start = time.perf_counter()
  compiled = lowered.compile()
  memory = compiled.memory_analysis()
  row.add(
    compile_seconds=time.perf_counter() - start,
    arguments_gib=memory.argument_size_in_bytes / 2**30,
    temporaries_gib=memory.temp_size_in_bytes / 2**30,
  )
  seconds = timing.program(compiled, draw(arguments), repeats, bool(donated))
  row.add(seconds=statistics.median(seconds), all_seconds=seconds)
  stats = device.memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    row.add(peak_gib=stats["peak_bytes_in_use"] / 2**30)
  rate = _product_rate(dtype, 256 if row.tiny else _LARGE)
  floor = operations / rate
  row.add(
    flops_per_second=rate,
    floor_seconds=floor,
    mfu=floor / row.measured["seconds"],
  )


def draw(shapes):
  """Draws small weights or random pixels on the device; ids are 0."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  def leaf(x, seed):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.key(0)
    if not isinstance(x, jax.ShapeDtypeStruct):
      return x
    if x.dtype != np.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
      return jnp.zeros(x.shape, x.dtype)
    # A cheap hash of the position: weights need no better numbers, and drawing
    # gigabytes by numpy would take longer than the row.
    n = jax.lax.iota(jnp.uint32, max(x.size, 1)) * np.uint32(2654435769)
    n = (n ^ (n >> 15) ^ np.uint32(seed * 7919)) * np.uint32(2246822519)
    n = (n ^ (n >> 13)).reshape(x.shape)
    if x.dtype == np.uint8:
      return (n >> 24).astype(np.uint8)
    # Positive, as Adam's second moments are under a root.
    return (n.astype(jnp.float32) * (0.05 / 2**32)).astype(x.dtype)

  leaves, tree = jax.tree.flatten(shapes)
  make = jax.jit(
    lambda: [leaf(x, i) for i, x in enumerate(leaves)],
    out_shardings=[getattr(x, "sharding", None) for x in leaves],
  )
  return jax.block_until_ready(jax.tree.unflatten(tree, make()))


def _product_rate(dtype: str, size: int) -> float:
  """FLOP/s of a large product of random numbers, the best of ten."""
  import jax

  from benchmarks import timing

  # Products of equal numbers run faster than those of a model.
  a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
  product = jax.jit(lambda a: a @ a)
  return 2 * size**3 / min(timing.calls(lambda: product(a), 10))


def _copied(row: Row) -> float:
  """Bytes a second that are read while as many are written."""
  import jax
  import jax.numpy as jnp

  from benchmarks import timing

  x = jnp.ones((2**16 if row.tiny else 2**28,), jnp.float32)
  copy = jax.jit(lambda x: x + 1)
  seconds = timing.calls(lambda: copy(x), _REPEATS)
  return x.nbytes / statistics.median(seconds)


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
    entropy,
    inception,
    i3d,
    attention,
    torch_bert,
    torch_bert_compiled,
  )
}


if __name__ == "__main__":
  main()
