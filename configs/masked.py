"""Masked generative transformers on the tokens of image and video tokenizers.

MAGVIT (arXiv 2212.05199), and with the factorised vocabulary of MAGVIT-v2
(arXiv 2310.05737, section 3.3 and its appendix): `v1_`, bair and ssv2 model
1,024 codes with one head, the others 2^18 as two sub-tokens of 2^9. Sizes are
parameters of the transformer, in millions; scores are the papers'. None but
`digits`, `digits_multitask` and `film64_small` was trained by us.

  arg               tokens         size   trained on                 published
  digits            5x4x4            0.4  two CPU cores
  digits_multitask  5x4x4            0.4  ten tasks, two CPU cores
  folder64          3x16x16          0.7  own videos, two CPU cores
  folder64_images   16x16            0.7  own pictures, two CPU cores
  folder128         5x16x16         88.0  own videos, a GPU
  folder256         5x16x16         88.0  own videos, a GPU
  film64            5x8x8            87.3  a film, 8 tasks, a GPU
  film64_small      5x8x8            2.1  a film, 8 tasks, two CPU cores
  film128           5x16x16          88.0  a film, 8 tasks, a GPU
  ucf101            5x16x16        306.9  classes, L                 FVD 58
  ucf101_b          5x16x16         88.1  classes, B
  ucf101_h          5x16x16        636.0  classes, H
  kinetics600       5x16x16        307.4  5 frames given, L          FVD 4.3
  imagenet128       16x16          306.8  classes, L
  imagenet256       16x16          306.8  classes, L                 FID 1.78
  imagenet512       16x16          306.8  classes, L                 FID 1.91
  v1_ucf101_b       4x16x16         87.3  classes, B
  v1_ucf101_l       4x16x16        305.6  classes, L                 FVD 76
  bair              4x16x16        305.5  8 tasks, L
  bair_b            4x16x16         87.2  8 tasks, B                 FVD 33
  ssv2              4x16x16        305.7  10 tasks, L

The tokenizer is the row of that name of `configs/tokenizer_video.py` or
`configs/tokenizer_image.py`; v1_l for ssv2, v1_bair_l and v1_bair_b for bair.
Published scores belong to the sampling set here, with two exceptions:
kinetics600 has 4.3 with 24 steps (--config.sampling.steps=24) and 5.2 with 12;
without guidance (--config.sampling.guidance=0) imagenet256 has 3.65, and
imagenet512 3.07 at a temperature of 30. The papers leave open the power of the
guidance schedule, the temperature of ucf101, all of its size H, everything of
imagenet128, and the length of training of ssv2.

  python main.py --config=configs/masked.py:kinetics600 --workdir=DIR \
    --config.tokenizer_workdir=TOKENIZER_DIR

The number of classes of folder64 and its like is that of the folder
(docs/your_data.md); folder64_images is for the image tokenizer of folder64. The
rows of the film know no class.

docs/getting_started.md has the measured cost and scores of `digits` and
`digits_multitask`, docs/film.md those of `film64_small`.

  python main.py --config=configs/masked.py:digits --workdir=demo/generator \
    --config.tokenizer_workdir=demo/video_tokenizer
"""

from collections.abc import Sequence

import ml_collections

from configs import base
from configs import datasets
from configs import film
from configs import own_folders

_BAIR_TASKS = (
  "frame_prediction",
  "interpolation",
  "central_outpainting",
  "vertical_outpainting",
  "horizontal_outpainting",
  "dynamic_outpainting",
  "central_inpainting",
  "dynamic_inpainting",
)


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = base.masked()
  c.name = f"masked generator {arg}"
  VARIANTS[arg](c)
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  c.name = "digits masked generator"
  c.dataset.size = 16
  c.num_steps = 1100
  c.batch_size = 24
  c.transformer.num_layers = 3
  c.transformer.width = 96
  c.transformer.mlp_width = 384
  c.transformer.num_heads = 4
  c.transformer.factor_bits = (5, 5)
  c.transformer.dropout = 0.0  # the set is endless: nothing to overfit
  c.transformer.num_classes = 10
  c.tasks.class_conditional = 5.0
  c.tasks.frame_prediction = 1.0
  c.tasks.central_inpainting = 1.0
  c.mask_ratio_per_clip = True  # less noise than one ratio for a small batch
  c.masks_per_clip = 2  # encoding costs more than the small transformer
  c.sampling.choice_temperature = 12.0
  c.sampling.guidance = 2.0
  c.optimizer.peak_learning_rate = 3e-3
  c.optimizer.warmup_steps = 50


def _digits_multitask(c: ml_collections.ConfigDict) -> None:
  _digits(c)
  c.name = "digits masked generator of ten tasks"
  c.dataset.motion = "cross"  # else a still is nearly right everywhere
  c.num_steps = 1400
  c.batch_size = 16
  c.masks_per_clip = 4
  for task in c.tasks:
    c.tasks[task] = 0.5  # inpainting and outpainting, which are learned fast
  c.tasks.class_conditional = 3.0
  c.tasks.frame_prediction = 3.0
  c.tasks.class_conditional_frame_prediction = 2.0
  c.tasks.interpolation = 3.0
  c.sampling.completion = "likeliest"  # which scores best in PSNR


def _folder64(c: ml_collections.ConfigDict) -> None:
  own_folders.small_generator(c)
  c.transformer.factor_bits = (5, 5)
  c.mask_ratio_per_clip = True  # less noise than one ratio for a small batch
  c.sampling.choice_temperature = 12.0


def _folder64_images(c: ml_collections.ConfigDict) -> None:
  _folder64(c)
  c.dataset.frames = 1
  c.dataset.train_crop = "random_resized"
  c.dataset.flip = True
  c.automatic.batch_size = 16


def _folder(size: int, batch_size: int):
  return lambda c: own_folders.generator(c, size, batch_size)


def _ucf101(c: ml_collections.ConfigDict) -> None:
  datasets.ucf101(c)
  c.num_steps = 74_000  # v1's 2000 epochs of 9,537 clips
  c.batch_size = 256
  c.sampling.steps = 24


def _kinetics600(c: ml_collections.ConfigDict) -> None:
  datasets.kinetics600(c)
  c.num_steps = 540_000  # 360 epochs of 384,000 clips
  c.batch_size = 256
  c.transformer.num_classes = 600  # without effect: its one task has "no class"
  _only(c, ("frame_prediction",))


def _imagenet(size: int):
  def fill(c: ml_collections.ConfigDict) -> None:
    datasets.imagenet2012(c)
    c.dataset.frames = 1
    c.dataset.size = size
    c.num_steps = 1_351_000  # 1080 epochs of 1,281,167 images
    c.batch_size = 1024
    c.transformer.num_classes = 1000
    c.sampling.steps = 64
    c.sampling.choice_temperature = 15.0
    c.sampling.guidance = 24.0  # the paper's scale 25; see base.py
    c.sampling.guidance_schedule = "power_cosine"

  return fill


def _v1(c: ml_collections.ConfigDict) -> None:
  """Sets the vocabulary and sampling of MAGVIT's released configs."""
  c.dataset.frames = 16
  c.transformer.factor_bits = (10,)
  c.label_drop = 0.0
  c.sampling.choice_temperature = 4.5


def _v1_ucf101(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  _v1(c)
  c.sampling.steps = 12


def _bair(steps: int):
  def fill(c: ml_collections.ConfigDict) -> None:
    _v1(c)
    datasets.bair(c)
    c.dataset.size = 64
    c.num_steps = steps
    c.batch_size = 256
    c.condition_frames = 1
    c.transformer.num_classes = 1  # without effect: all tasks have "no class"
    _only(c, _BAIR_TASKS)

  return fill


def _ssv2(c: ml_collections.ConfigDict) -> None:
  _v1(c)
  datasets.ssv2(c)
  c.num_steps = 264_000  # a guess: 400 epochs of 169,000 clips
  c.batch_size = 256
  c.condition_frames = 1
  c.transformer.num_classes = 174
  _only(
    c,
    (
      "class_conditional",
      "class_conditional_frame_prediction",
      *_BAIR_TASKS,
    ),
  )


def _only(c: ml_collections.ConfigDict, tasks: Sequence[str]) -> None:
  """Trains these tasks alone, equally often."""
  for task in c.tasks:
    c.tasks[task] = float(task in tasks)


def _with_size(fill, num_layers: int, width: int, num_heads: int):
  """The function of a row, with another transformer than MAGVIT-L."""

  def filled(c: ml_collections.ConfigDict) -> None:
    fill(c)
    c.transformer.num_layers = num_layers
    c.transformer.width = width
    c.transformer.mlp_width = 4 * width
    c.transformer.num_heads = num_heads

  return filled


def _b(fill):
  return _with_size(fill, 12, 768, 12)


def _h(fill):
  return _with_size(fill, 32, 1280, 16)


VARIANTS = {
  "digits": _digits,
  "digits_multitask": _digits_multitask,
  "folder64": _folder64,
  "folder64_images": _folder64_images,
  "folder128": _folder(128, 32),
  "folder256": _folder(256, 16),
  "film64": film.masked64,
  "film64_small": film.masked64_small,
  "film128": film.masked128,
  "ucf101": _ucf101,
  "ucf101_b": _b(_ucf101),
  "ucf101_h": _h(_ucf101),
  "kinetics600": _kinetics600,
  "imagenet128": _imagenet(128),
  "imagenet256": _imagenet(256),
  "imagenet512": _imagenet(512),
  "v1_ucf101_b": _b(_v1_ucf101),
  "v1_ucf101_l": _v1_ucf101,
  "bair": _bair(268_800),  # 1600 epochs of 168 steps
  "bair_b": _b(_bair(201_600)),  # 1200 epochs
  "ssv2": _ssv2,
}
