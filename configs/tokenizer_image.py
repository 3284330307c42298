"""Image tokenizers of the MAGVIT papers, and the one of the embedded set.

MAGVIT-v2: arXiv 2310.05737, sections 3.1-3.2, table 4. An image tokenizer is
the video tokenizer with one-frame kernels; its weights inflate into the video
tokenizer's. Sizes are parameters of the tokenizer, in millions; rFID is the
paper's, the FID of reconstructions of 128 x 128 ImageNet. None but `digits` and
`film64_small` was trained by us.

  arg                images     tokens      size   model             rFID
  digits             16x16      4x4         0.1    two CPU cores
  digits_continuous  16x16      4x4         0.1    the same, c = 8
  imagenet128        128x128    16x16       113.1  final, 8x         1.15
  imagenet256        256x256    16x16       116.3  final, 16x
  imagenet512        512x512    16x16       167.7  final, 32x; trained on 256
  v1_b               128x128    16x16        13.8  MAGVIT's 2-D VQ
  v1_l               128x128    16x16        53.1  MAGVIT's 2-D VQ
  ablation_vq        128x128    16x16        53.1  MAGVIT (2-D)      2.65
  ablation_lfq10     128x128    16x16        51.6  + LFQ, 2^10       2.48
  ablation_lfq18     128x128    16x16        51.6  + 2^18            1.34
  ablation_updown    128x128    16x16        64.6  + resampling      1.21
  ablation_deeper    128x128    16x16       113.0  + 4 blocks        1.20
  ablation_adaptive  128x128    16x16       113.1  + adaptive norm   1.15
  folder64           64x64      16x16       0.1  own pictures; two cores
  folder128          128x128    16x16     113.1  own pictures; a GPU
  folder256          256x256    16x16     116.3  own pictures; a GPU
  film64             64x64      8x8         16.2  frames of a film; a GPU
  film64_small       64x64      8x8          1.8  the same; two cores
  film128            128x128    16x16       16.2  frames of a film; a GPU
  walt_imagenet256   256x256    32x32       103.3  W.A.L.T, 8x, c = 8
  open_magvit2       256x256    16x16       115.1  for its weights
  praxis             128x128    16x16       113.1  for its weights

digits_continuous and walt_imagenet256 (arXiv 2312.06662, table 8) have no
quantizer: configs/continuous.py.

The channel multipliers of the 32x model are not published; these are a guess.
The discriminator of the ablation halves by means: its table has no row for the
blur pool.

  python main.py --config=configs/tokenizer_image.py:imagenet128 \
    --workdir=DIR --config.loss.perceptual_weights=FILE

docs/getting_started.md has the measured cost and scores of `digits`,
docs/your_data.md those of folder64, which like folder128 and folder256 needs a
folder of pictures or of videos, and takes one frame of each video. film64 and
film128 take a frame of each piece of `prepare --format=film` (docs/film.md) and
have not been trained; docs/film.md has the scores of film64_small.
"""

import ml_collections

from configs import base
from configs import continuous
from configs import datasets
from configs import film
from configs import tokenizer_video


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = base.tokenizer()
  c.name = f"image tokenizer {arg}"
  VARIANTS[arg](c)
  c.dataset.frames = 1
  c.tokenizer.temporal = False
  halvings = len(c.tokenizer.channel_multipliers) - 1
  c.tokenizer.temporal_downsample = (False,) * halvings
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  tokenizer_video.digits(c)
  c.name = "digits image tokenizer"
  c.num_steps = 800
  c.batch_size = 32


def _digits_continuous(c: ml_collections.ConfigDict) -> None:
  _digits(c)
  continuous.without_quantizer(c, 8)


def _imagenet128(c: ml_collections.ConfigDict) -> None:
  datasets.imagenet2012(c)
  c.num_steps = 1_351_000  # 270 epochs of 1,281,167 images
  c.batch_size = 256
  c.optimizer.warmup_steps = 5_000  # one epoch, as v1


def _imagenet256(c: ml_collections.ConfigDict) -> None:
  _imagenet128(c)
  c.dataset.size = 256
  c.tokenizer.channel_multipliers = (1, 1, 2, 2, 4)
  c.discriminator.channel_multipliers = (2, 4, 4, 4, 4, 4)


def _imagenet512(c: ml_collections.ConfigDict) -> None:
  _imagenet256(c)
  c.tokenizer.channel_multipliers = (1, 1, 2, 2, 4, 4)


def _v1(base_channels: int):
  def fill(c: ml_collections.ConfigDict) -> None:
    _imagenet128(c)
    tokenizer_video.magvit1(c)
    tokenizer_video.magvit1_recipe(c)
    c.tokenizer.base_channels = base_channels
    c.discriminator.base_channels = base_channels

  return fill


def _ablation_vq(c: ml_collections.ConfigDict) -> None:
  _imagenet128(c)
  tokenizer_video.magvit1(c)


def _ablation_lfq10(c: ml_collections.ConfigDict) -> None:
  _ablation_vq(c)
  c.quantizer.name = "lfq"
  c.quantizer.bits = 10


def _ablation_lfq18(c: ml_collections.ConfigDict) -> None:
  _ablation_lfq10(c)
  c.quantizer.bits = 18


def _ablation_updown(c: ml_collections.ConfigDict) -> None:
  _imagenet128(c)
  c.tokenizer.num_res_blocks = 2
  c.tokenizer.adaptive_norm = "off"
  c.discriminator.pool = "average"


def _ablation_deeper(c: ml_collections.ConfigDict) -> None:
  _ablation_updown(c)
  c.tokenizer.num_res_blocks = 4


def _ablation_adaptive(c: ml_collections.ConfigDict) -> None:
  _ablation_deeper(c)
  c.tokenizer.adaptive_norm = "position"


def _folder64(c: ml_collections.ConfigDict) -> None:
  tokenizer_video.folder64(c)
  _pictures(c)
  c.automatic.epochs = 20
  c.automatic.least_steps = 180
  c.automatic.most_steps = 20_000
  c.automatic.batch_size = 16


def _folder128(c: ml_collections.ConfigDict) -> None:
  tokenizer_video.folder128(c)
  _pictures(c)
  c.automatic.batch_size = 64


def _folder256(c: ml_collections.ConfigDict) -> None:
  tokenizer_video.folder256(c)
  _pictures(c)
  c.automatic.batch_size = 16


def _pictures(c: ml_collections.ConfigDict) -> None:
  c.dataset.train_crop = "random_resized"
  c.dataset.flip = True


def _open_magvit2(c: ml_collections.ConfigDict) -> None:
  tokenizer_video.open_magvit2(c)
  c.dataset.size = 256
  c.tokenizer.channel_multipliers = (1, 1, 2, 2, 4)
  c.tokenizer.norm_statistics = "frame"


VARIANTS = {
  "digits": _digits,
  "digits_continuous": _digits_continuous,
  "imagenet128": _imagenet128,
  "imagenet256": _imagenet256,
  "imagenet512": _imagenet512,
  "v1_b": _v1(64),
  "v1_l": _v1(128),
  "ablation_vq": _ablation_vq,
  "ablation_lfq10": _ablation_lfq10,
  "ablation_lfq18": _ablation_lfq18,
  "ablation_updown": _ablation_updown,
  "ablation_deeper": _ablation_deeper,
  "ablation_adaptive": _ablation_adaptive,
  "folder64": _folder64,
  "folder128": _folder128,
  "folder256": _folder256,
  "film64": film.images64,
  "film64_small": film.images64_small,
  "film128": film.images128,
  "walt_imagenet256": continuous.imagenet256,
  "open_magvit2": _open_magvit2,
  "praxis": _imagenet128,
}
