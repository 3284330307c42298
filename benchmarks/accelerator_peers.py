"""Rows of `benchmarks/accelerator.py` that measure peers, in torch."""

from collections.abc import Callable
import statistics
import time

from benchmarks import accelerator_configs as configs
from benchmarks import open_magvit2_network
from benchmarks.accelerator_row import REPEATS
from benchmarks.accelerator_row import Row


def torch_bert(row: Row, compiled: bool = False) -> None:
  """The training step of `torch_bert.py` at the shape of `masked_train`."""
  import torch

  from benchmarks import torch_bert as bert

  config = configs.masked(row, configs.clips(row, 32))
  t = config.transformer
  shape = bert.Shape(
    tokens=1 + configs.tokens(row),
    num_layers=t.num_layers,
    width=t.width,
    mlp_width=t.mlp_width,
    num_heads=t.num_heads,
    factor_bits=tuple(t.factor_bits),
    dropout=t.dropout,
  )
  row.add(torch=torch.__version__, batch_size=config.batch_size)
  step = bert.make_step(shape, config.batch_size, _device(), compiled)
  _time(row, step)


def torch_bert_compiled(row: Row) -> None:
  """The same, compiled by torch."""
  torch_bert(row, compiled=True)


def open_magvit2(row: Row) -> None:
  """Open-MAGVIT2's 370M: steps of its generator alone, and both ways.

  In bfloat16 by autocast, with cuDNN's choice of the fastest convolution. A
  step is forward and backward of an L2 loss.
  """
  import torch

  torch.backends.cudnn.benchmark = True
  small = dict(width=32, multipliers=(1, 2), blocks=1, size=16)
  encoder, decoder = (
    network.to(_device())
    for network in open_magvit2_network.build(
      row.peer, "video", **(small if row.tiny else {})
    )
  )
  row.add(torch=torch.__version__)

  def make_clips(clips: int):
    frames, size = (5, 16) if row.tiny else (17, 128)
    shape = (clips, 3, frames, size, size)
    return 2 * torch.rand(shape, device=_device()) - 1

  def reconstruct(x):
    with torch.autocast(_device(), torch.bfloat16):
      z = encoder(x)
      return decoder(z + (torch.where(z > 0, 1.0, -1.0) - z).detach())

  def step(x):
    (reconstruct(x).float() - x).square().mean().backward()
    for network in (encoder, decoder):
      network.zero_grad(set_to_none=True)

  def both(x):
    with torch.no_grad():
      reconstruct(x)

  x = make_clips(configs.clips(row, 4))
  _time(row.part("both"), lambda: both(x))
  for clips in (1, 2) if row.tiny else (2, 1, 4, 8):
    part = row.part(f"{clips}_clips")
    x = make_clips(clips)
    try:
      _time(part, lambda x=x: step(x))
    except torch.cuda.OutOfMemoryError as error:
      part.add(**{"not run": f"did not fit: {str(error)[:200]}"})
      break
    part.add(seconds_per_clip=part.measured["seconds"] / clips)
  row.add(seconds=row.measured["2_clips"].get("seconds"))


def _device() -> str:
  import torch

  return "cuda" if torch.cuda.is_available() else "cpu"


def _time(row: Row, run: Callable[[], None]) -> None:
  """Runs it twice to warm up, then times it; adds its memory."""
  import torch

  on_gpu = torch.cuda.is_available()
  wait = torch.cuda.synchronize if on_gpu else lambda: None
  if on_gpu:
    torch.cuda.reset_peak_memory_stats()
  start = time.perf_counter()
  for _ in range(2):
    run()
  wait()
  row.add(warm_up_seconds=time.perf_counter() - start)
  seconds = []
  for _ in range(REPEATS):
    start = time.perf_counter()
    run()
    wait()
    seconds.append(time.perf_counter() - start)
  row.add(seconds=statistics.median(seconds), all_seconds=seconds)
  if on_gpu:
    row.add(peak_gib=torch.cuda.max_memory_allocated() / 2**30)
