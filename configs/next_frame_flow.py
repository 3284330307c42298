"""Next-frame flow: one latent frame after the other, each by flow matching.

xAR (arXiv 2502.20388) with a latent frame of a causal tokenizer for a cell.
Nobody published this on video: nothing here is a paper's row, but `ucf101` has
the layers of xAR-B. Sizes are parameters in millions.

  arg      tokens    size   trained on
  digits   5x4x4      0.4   two CPU cores
  film64   5x8x8    129.5   a film, a GPU
  ucf101   5x16x16  172.2   classes

  python main.py --config=configs/next_frame_flow.py:digits --workdir=DIR \
    --config.tokenizer_workdir=demo/video_tokenizer
"""

import ml_collections

from configs import datasets
from configs import film
from configs import latent_base


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = latent_base.next_frame_flow()
  c.name = f"next-frame flow {arg}"
  VARIANTS[arg](c)
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  c.dataset.size = 16
  c.num_steps = 900
  c.batch_size = 32
  c.denoiser.num_layers = 5
  c.denoiser.width = 64
  c.denoiser.mlp_width = 168
  c.denoiser.num_heads = 4
  c.denoiser.num_classes = 10
  c.tasks.class_conditional = 4.0
  c.tasks.class_conditional_frame_prediction = 1.0
  c.tasks.frame_prediction = 1.0
  c.sampling.steps = 25
  c.sampling.guidance_schedule = "constant"  # "linear" loses the class
  c.sampling.guidance = 5.0
  c.ema_decay = 0.99
  c.optimizer.name = "muon"  # 88 % of classes after 900 steps; Adam 55 in 1,400
  c.optimizer.peak_learning_rate = 1e-2
  c.optimizer.warmup_steps = 50


def _film64(c: ml_collections.ConfigDict) -> None:
  film.latents64(c)
  for task in c.tasks:
    c.tasks[task] = float(task == "frame_prediction")
  c.denoiser.mlp_width = 2048


def _ucf101(c: ml_collections.ConfigDict) -> None:
  datasets.ucf101(c)
  c.num_steps = 60_000  # as W.A.L.T's
  c.batch_size = 256
  c.sampling.guidance = 1.7  # xAR-B's scale 2.7
  c.optimizer.peak_learning_rate = 5e-5  # xAR's for this batch


VARIANTS = {"digits": _digits, "film64": _film64, "ucf101": _ucf101}
