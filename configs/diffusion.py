"""Diffusion of latents: W.A.L.T (arXiv 2312.06662), L and XL.

Sizes are parameters of the denoiser, in millions; scores are the paper's, with
50 steps and no guidance. Of the rows none but `digits` was trained by us.

  arg          latents       size   trained on                    published
  digits       5x4x4          0.6  two tasks, two CPU cores
  film64       5x8x8         91.2  a film, 8 tasks, a GPU
  ucf101       5x16x16      313.2  classes, L                    FVD 46
  ucf101_xl    5x16x16      460.0  classes, XL                   FVD 36
  ucf101_full  5x16x16      457.7  classes, L, AdaLN in each layer
  kinetics600  5x16x16      313.1  5 frames given, L             FVD 3.3
  imagenet256  32x32        460.0  classes, L, AdaLN in each layer   FID 2.56
  text         5x16x16      416.1  text, L
  sr           5x32x32     1293.0  text, clips of half the size

The tokenizer of `digits` and `film64` is the row of that name of
`configs/tokenizer_video.py`, and the latents are its bits. The other rows have
the paper's latents, 8 real channels of a tokenizer without a quantizer.

With the paper's power-cosine guidance imagenet256 has FID 2.40. It does not say
what warm-up, weight decay, betas, decay of the average and label drop were;
which windows 32x32 latents have (here the whole frame: smaller ones would never
meet); or how large the super-resolution's windows are. `text` and `sr` need
batches with text embeddings (docs/latent_generators.md); `sr` is the paper's
first 2x stage, on square clips.

  python main.py --config=configs/diffusion.py:digits --workdir=DIR \
    --config.tokenizer_workdir=TOKENIZER_DIR
"""

import ml_collections

from configs import datasets
from configs import film
from configs import latent_base


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = latent_base.diffusion()
  c.name = f"diffusion of latents {arg}"
  VARIANTS[arg](c)
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  c.name = "digits diffusion of latents"
  c.dataset.size = 16
  c.dataset.motion = "cross"  # else a still is nearly right everywhere
  c.num_steps = 1_200
  c.batch_size = 32
  c.denoiser.num_layers = 4
  c.denoiser.width = 96
  c.denoiser.mlp_width = 384
  c.denoiser.num_heads = 4
  c.denoiser.num_classes = 10
  c.denoiser.spatial_window = (4, 4)
  c.denoiser.space_time_window = (5, 2, 2)
  c.denoiser.lora_rank = 8
  c.noise.self_conditioning = 0.5
  c.tasks.class_conditional = 3.0
  c.tasks.frame_prediction = 1.0
  c.sampling.steps = 25
  c.sampling.guidance = 3.0
  c.optimizer.name = "muon"  # 99 % of classes; Adam 89 after 2,400 steps
  c.optimizer.peak_learning_rate = 1e-2
  c.optimizer.warmup_steps = 50
  c.ema_decay = 0.99


def _film64(c: ml_collections.ConfigDict) -> None:
  film.latents64(c)
  c.denoiser.spatial_window = (8, 8)
  c.denoiser.space_time_window = (5, 4, 4)
  c.denoiser.lora_rank = 8


def _ucf101(c: ml_collections.ConfigDict) -> None:
  datasets.ucf101(c)
  c.latents.kind = "continuous"
  c.num_steps = 60_000
  c.batch_size = 256


def _ucf101_xl(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  c.denoiser.num_layers = 28
  c.denoiser.width = 1152
  c.denoiser.mlp_width = 4608


def _ucf101_full(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  c.denoiser.lora_rank = 0


def _kinetics600(c: ml_collections.ConfigDict) -> None:
  datasets.kinetics600(c)
  c.latents.kind = "continuous"
  c.num_steps = 270_000  # 360 epochs of 384,000 clips
  c.batch_size = 512
  c.denoiser.num_classes = 1  # without effect: its one task has "no class"
  c.tasks.class_conditional = 0.0
  c.tasks.frame_prediction = 1.0


def _imagenet256(c: ml_collections.ConfigDict) -> None:
  datasets.imagenet2012(c)
  c.dataset.frames = 1
  c.dataset.size = 256
  c.latents.kind = "continuous"
  c.num_steps = 437_900  # 350 epochs of 1,281,167 images
  c.batch_size = 1024
  c.denoiser.num_classes = 1000
  c.denoiser.spatial_window = (32, 32)
  c.denoiser.lora_rank = 0


def _text(c: ml_collections.ConfigDict) -> None:
  c.dataset.name = "texts"  # any folder of videos, by dataset.path
  c.dataset.format = "auto"
  c.dataset.shuffle = True
  c.latents.kind = "continuous"
  c.num_steps = 550_000
  c.batch_size = 512
  c.denoiser.num_classes = 1  # without effect: clips have text
  c.denoiser.text_width = 2048  # channels of T5-XL
  c.optimizer.peak_learning_rate = 2e-4


def _sr(c: ml_collections.ConfigDict) -> None:
  _text(c)
  c.dataset.size = 256
  c.num_steps = 675_000
  c.denoiser.num_layers = 40
  c.denoiser.width = 1408
  c.denoiser.mlp_width = 5632
  c.denoiser.patch = 2
  c.denoiser.upscales = True
  c.optimizer.peak_learning_rate = 5e-4


VARIANTS = {
  "digits": _digits,
  "film64": _film64,
  "ucf101": _ucf101,
  "ucf101_xl": _ucf101_xl,
  "ucf101_full": _ucf101_full,
  "kinetics600": _kinetics600,
  "imagenet256": _imagenet256,
  "text": _text,
  "sr": _sr,
}
