"""Masked generators whose head denoises a latent: MAR, and our masked model.

MAR (arXiv 2406.11838): instead of logits of a token, a small network denoises
its latent, told the trunk's features of it. `digits` and `film64` are the rows
of configs/masked.py with this head, and differ from them in nothing else that
the head does not need, but for the optimizer of `digits`, without which the
head learns too slowly there, and for hints and carried detail, which `film64`
has not here. `imagenet256_` has MAR's own trunk; its latents are those of a
tokenizer with 16 channels and 16 x 16 places. Sizes are parameters in millions,
of the head alone and of all.

  arg            tokens        head    size   trained on        published
  digits         5x4x4          0.3     0.7   two CPU cores
  film64         5x8x8         35.8   121.1   a film, a GPU
  imagenet256_b  16x16         35.7   207.9   classes           FID 2.31
  imagenet256_l  16x16         72.2   478.3   classes           FID 1.78
  imagenet256_h  16x16        151.2   942.4   classes           FID 1.55

Published scores belong to 256 decoding steps and the guidance set here. MAR's
learning rate stays at its peak after the warm-up, and its head has no weight
decay; ours falls by a cosine, and the head decays like the trunk.

  python main.py --config=configs/masked_diffusion.py:digits --workdir=DIR \
    --config.tokenizer_workdir=demo/video_tokenizer
"""

import ml_collections

from configs import datasets
from configs import film
from configs import latent_base


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = latent_base.masked_diffusion()
  c.name = f"masked generator with a diffusion head, {arg}"
  VARIANTS[arg](c)
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  """The trunk, the tasks and the steps of the masked model of tokens."""
  c.dataset.size = 16
  c.num_steps = 1100
  c.batch_size = 24
  c.denoiser.num_layers = 3
  c.denoiser.width = 96
  c.denoiser.mlp_width = 384
  c.denoiser.num_heads = 4
  c.denoiser.dropout = 0.0  # the set is endless: nothing to overfit
  c.denoiser.head_blocks = 3
  c.denoiser.head_width = 128
  c.denoiser.num_classes = 10
  c.tasks.class_conditional = 5.0
  c.tasks.frame_prediction = 1.0
  c.tasks.central_inpainting = 1.0
  c.mask_ratio_per_clip = True  # less noise than one ratio for a small batch
  c.masks_per_clip = 2  # encoding costs more than the small transformer
  c.draws_per_token = 2  # the head costs more than the small trunk
  c.sampling.steps = 16
  c.sampling.diffusion_steps = 25
  # With "linear" the first tokens, which decide the class, have no guidance.
  c.sampling.guidance_schedule = "constant"
  c.sampling.guidance = 5.0
  c.ema_decay = 0.99
  c.optimizer.name = "muon"  # 97 % of classes after 1,100 steps; Adam 58
  c.optimizer.peak_learning_rate = 1e-2
  c.optimizer.warmup_steps = 50


def _film64(c: ml_collections.ConfigDict) -> None:
  film.latents64(c)
  c.mask_ratio_per_clip = True  # less noise than one ratio for a small batch


def _imagenet256(
  layers: int, width: int, heads: int, head: tuple, scale: float
):
  """Fills in MAR's row; the head is (blocks, width), `scale` of guidance."""

  def fill(c: ml_collections.ConfigDict) -> None:
    datasets.imagenet2012(c)
    c.dataset.frames = 1
    c.dataset.size = 256
    c.num_steps = 500_500  # 800 epochs of 1,281,167 images
    c.batch_size = 2048
    c.latents.kind = "continuous"
    c.mask_ratio = "normal"
    c.denoiser.trunk = "autoencoder"
    c.denoiser.num_layers = layers
    c.denoiser.width = width
    c.denoiser.mlp_width = 4 * width
    c.denoiser.num_heads = heads
    c.denoiser.head_blocks, c.denoiser.head_width = head
    c.denoiser.num_classes = 1000
    c.sampling.steps = 256
    c.sampling.guidance = scale - 1.0  # ours is one less than the papers' scale
    c.optimizer.peak_learning_rate = 8e-4  # 1e-4 for each 256 images
    c.optimizer.warmup_steps = 62_600  # 100 epochs

  return fill


VARIANTS = {
  "digits": _digits,
  "film64": _film64,
  "imagenet256_b": _imagenet256(24, 768, 12, (6, 1024), 2.9),
  "imagenet256_l": _imagenet256(32, 1024, 16, (8, 1280), 3.0),
  "imagenet256_h": _imagenet256(40, 1280, 16, (12, 1536), 3.2),
}
