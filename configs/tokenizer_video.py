"""Video tokenizers of the MAGVIT papers, and the one of the embedded set.

MAGVIT-v2: arXiv 2310.05737, sections 3.1-3.2, tables 4 and 5. MAGVIT (v1):
arXiv 2212.05199. Sizes are parameters of the tokenizer, in millions; rFVD is
the papers', the FVD of reconstructions. None but `digits`, `overfit` and
`film64_small` was trained by us.

  arg              clips         tokens        size   model           rFVD
  digits           17x16x16      5x4x4         0.6    two CPU cores
  digits_continuous 17x16x16     5x4x4         0.6    the same, c = 8
  overfit          17x64x64      5x16x16         2.2  one clip; 28.6 dB
  ucf101           17x128x128    5x16x16       376.0  final model     8.62
  kinetics600      17x128x128    5x16x16       376.0  final model
  v1_b             16x128x128    4x16x16        40.6  MAGVIT-B
  v1_l             16x128x128    4x16x16       157.8  MAGVIT-L        25
  v1_h             16x128x128    4x16x16       308.4  MAGVIT-H
  v1_bair_b        16x64x64      4x16x16        36.6
  v1_bair_l        16x64x64      4x16x16       141.9
  ablation_vq      16x128x128    4x16x16       157.8  MAGVIT          24.55
  ablation_lfq     16x128x128    4x16x16       154.1  + LFQ, 2^18     16.12
  ablation_updown  17x128x128    5x16x16       209.6  + resampling    15.37
  ablation_late    17x128x128    5x16x16       230.9  + late in time  11.11
  ablation_deeper  17x128x128    5x16x16       376.0  + 4 blocks      8.90
  ablation_blur    17x128x128    5x16x16       376.0  + blur pool     8.62
  joint_magvit     16x128x128    4x16x16        38.6  UCF, short run  107.15
  joint_cvivit     17x128x128    5x16x16        89.5  UCF, short run  437.54
  joint_hybrid     17x128x128    5x16x16        66.8  UCF, short run  316.70
  joint_causal     17x128x128    5x16x16        57.8  UCF, short run  96.33
  folder64         9x64x64       3x16x16         0.6  own videos; two cores
  folder128        17x128x128    5x16x16       376.0  own videos; a GPU
  folder256        17x256x256    5x16x16       385.9  own videos; a GPU
  film64           17x64x64      5x8x8          57.8  a film; a GPU
  film64_small     17x64x64      5x8x8           7.4  a film; two cores
  film128          17x128x128    5x16x16        57.8  a film; a GPU
  walt_c4          17x128x128    5x16x16       375.8  W.A.L.T, c = 4   37.7
  walt_ucf101      17x128x128    5x16x16       375.8  W.A.L.T, c = 8   17.1
  walt_c16         17x128x128    5x16x16       376.0  W.A.L.T, c = 16  8.2
  walt_c32         17x128x128    5x16x16       376.2  W.A.L.T, c = 32  3.5
  walt_kinetics600 17x128x128    5x16x16       375.8  W.A.L.T, c = 8
  open_magvit2     17x128x128    5x16x16       370.5  for its weights
  praxis           17x128x128    5x16x16       376.0  for its weights

Rows of W.A.L.T and digits_continuous have no quantizer: configs/continuous.py.
joint_cvivit and joint_hybrid are approximations: the paper gives their sizes
(90M, 67M) and the kinds of their blocks, and models/tokenizer/vivit.py fills in
the rest. The papers do not say when the network became causal, with what
padding, and when adaptive norm came: here all three come with the row `updown`.
The rows that halve time early and late differ in size because the halving
convolutions sit at other widths.

ucf101 and kinetics600 start from `configs/tokenizer_image.py:imagenet128`:

  python main.py --config=configs/tokenizer_video.py:ucf101 --workdir=DIR \
    --config.inflate_from=IMAGE_DIR --config.loss.perceptual_weights=FILE

or from scratch with --config.inflate_from=none. folder64 and its like need a
folder of videos alone (docs/your_data.md), and train from scratch unless
inflate_from names an image tokenizer of the same row. film64, film64_small and
film128 read `prepare --format=film` (docs/film.md, which has the scores of
film64_small; the other two have not been trained).
digits starts from `configs/tokenizer_image.py:digits`;
docs/getting_started.md has its measured cost and scores.
"""

import ml_collections

from configs import base
from configs import continuous
from configs import datasets
from configs import film


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = base.tokenizer()
  c.name = f"video tokenizer {arg}"
  c.inflate_from = base.REQUIRED
  VARIANTS[arg](c)
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  digits(c)
  c.name = "digits video tokenizer"
  c.num_steps = 300
  c.batch_size = 8


def _digits_continuous(c: ml_collections.ConfigDict) -> None:
  _digits(c)
  continuous.without_quantizer(c, 8)


def digits(c: ml_collections.ConfigDict) -> None:
  """Sets what the image and the video tokenizer of the digits share."""
  c.dataset.size = 16
  c.tokenizer.base_channels = 8
  c.tokenizer.channel_multipliers = (1, 2, 4)
  c.tokenizer.temporal_downsample = (True, True)
  c.tokenizer.num_res_blocks = 1
  c.tokenizer.norm_groups = 4
  c.quantizer.bits = 10
  c.discriminator.base_channels = 4
  c.discriminator.channel_multipliers = (2, 4, 8)
  c.loss.perceptual_network = "off"  # no weights are shipped
  c.loss.reconstruction = 50.0  # it stands in for the perceptual loss, too
  c.loss.entropy = 0.005
  c.loss.entropy_annealing_steps = 100
  c.optimizer.peak_learning_rate = 2e-3
  c.optimizer.warmup_steps = 20
  c.ema_decay = 0.97


def _overfit(c: ml_collections.ConfigDict) -> None:
  """Every part of the final model, narrow and shallow, on one natural clip."""
  c.dataset.name = "photo"
  c.dataset.size = 64
  c.dataset.eval_examples = 1
  c.inflate_from = "none"
  c.num_steps = 750
  c.batch_size = 1
  c.tokenizer.base_channels = 16
  c.tokenizer.channel_multipliers = (1, 2, 4)
  c.tokenizer.temporal_downsample = (True, True)
  c.tokenizer.num_res_blocks = 1
  c.tokenizer.norm_groups = 8  # fewer learn more slowly
  # At 0.01 the entropy has no gradient except where latents are near 0, so that
  # most bits would stay as drawn.
  c.quantizer.entropy_temperature = 0.5
  c.discriminator.base_channels = 4
  c.loss.perceptual_network = "off"  # no weights are shipped
  c.loss.adversarial = 0.001  # one clip is to be learned, no detail added
  c.loss.r1_interval = 16
  c.loss.entropy = 0.02
  c.loss.entropy_start_factor = 5.0
  c.loss.entropy_annealing_steps = 200
  c.optimizer.peak_learning_rate = 5e-3  # 1e-2 diverges
  c.optimizer.b1 = 0.9  # every batch is the same: its gradient has no noise
  c.optimizer.clip_norm = 1.0
  c.optimizer.warmup_steps = 20
  c.ema_decay = 0.97


def _folder64(c: ml_collections.ConfigDict) -> None:
  folder64(c)
  c.dataset.frames = 9
  c.automatic.epochs = 30
  c.automatic.least_steps = 80
  c.automatic.most_steps = 20_000
  c.automatic.batch_size = 4


def folder64(c: ml_collections.ConfigDict) -> None:
  """Sets what the image and the video tokenizer of `folder64` share.

  The network is small enough to compile and learn on two cores in minutes; the
  recipe is that of `overfit`.
  """
  datasets.folder(c, 64)
  c.inflate_from = "none"
  c.checkpoint_every = 500
  c.tokenizer.base_channels = 8
  c.tokenizer.channel_multipliers = (1, 2, 4)
  c.tokenizer.temporal_downsample = (True, True)
  c.tokenizer.num_res_blocks = 1
  c.tokenizer.norm_groups = 4  # with 8, groups of one channel, 3 dB less
  c.quantizer.bits = 10
  c.quantizer.entropy_temperature = 0.5  # as in `overfit`
  c.discriminator.base_channels = 4
  c.discriminator.channel_multipliers = (2, 4, 4)
  c.loss.perceptual_network = "off"  # no weights are shipped
  c.loss.adversarial = 0.001  # a few steps are for the mean, not for detail
  c.loss.r1_interval = 16
  c.loss.entropy = 0.02
  c.loss.entropy_start_factor = 5.0
  c.loss.entropy_annealing_steps = 100
  c.optimizer.peak_learning_rate = 5e-3
  c.optimizer.b1 = 0.9
  c.optimizer.clip_norm = 1.0
  c.optimizer.warmup_steps = 20
  c.ema_decay = 0.97


def _folder128(c: ml_collections.ConfigDict) -> None:
  folder128(c)
  c.automatic.batch_size = 8


def folder128(c: ml_collections.ConfigDict) -> None:
  """Sets the final model, to be trained on a GPU or TPU without weights."""
  datasets.folder(c, 128)
  c.inflate_from = "none"
  c.checkpoint_every = 1000
  c.eval_every = 10_000
  c.automatic.epochs = 400
  c.automatic.least_steps = 10_000
  c.automatic.most_steps = 300_000
  c.tokenizer.dtype = "bfloat16"
  c.tokenizer.remat = "all"
  c.loss.perceptual_network = "off"  # no weights are shipped
  c.loss.r1_interval = 16


def _folder256(c: ml_collections.ConfigDict) -> None:
  folder256(c)
  c.tokenizer.temporal_downsample = (False, False, True, True)
  c.automatic.batch_size = 4


def folder256(c: ml_collections.ConfigDict) -> None:
  """As `folder128`, halved once more to the same tokens."""
  folder128(c)
  c.dataset.size = 256
  c.tokenizer.channel_multipliers = (1, 1, 2, 2, 4)
  c.discriminator.channel_multipliers = (2, 4, 4, 4, 4, 4)


def _ucf101(c: ml_collections.ConfigDict) -> None:
  datasets.ucf101(c)
  c.num_steps = 74_000  # 2000 epochs of 9,537 clips
  c.batch_size = 256
  c.optimizer.warmup_steps = 37  # one epoch, as v1


def _kinetics600(c: ml_collections.ConfigDict) -> None:
  datasets.kinetics600(c)
  c.num_steps = 285_000  # 190 epochs of 384,000 clips
  c.batch_size = 256
  c.optimizer.warmup_steps = 1_500


def magvit1(c: ml_collections.ConfigDict) -> None:
  """Sets the network of MAGVIT v1: 3-D, or 2-D with temporal=False."""
  c.tokenizer.temporal_downsample = (True, True, False)
  c.tokenizer.num_res_blocks = 2
  c.tokenizer.downsample = "average"
  c.tokenizer.upsample = "nearest"
  c.tokenizer.adaptive_norm = "off"
  c.tokenizer.causal = False
  c.tokenizer.padding = "zero"
  c.tokenizer.norm_statistics = "clip"
  c.quantizer.name = "vq"
  c.discriminator.pool = "average"
  c.dataset.frames = 16


def magvit1_recipe(c: ml_collections.ConfigDict) -> None:
  """Sets the losses of v1's released configs."""
  c.loss.reconstruction = 1.0
  c.loss.lecam = 0.0  # off as released; the paper uses it, at no stated weight
  c.loss.entropy_start_factor = 1.0


def _v1(base_channels: int, num_res_blocks: int, batch_size: int, steps: int):
  def fill(c: ml_collections.ConfigDict) -> None:
    _ucf101(c)
    magvit1(c)
    magvit1_recipe(c)
    c.tokenizer.base_channels = base_channels
    c.discriminator.base_channels = base_channels
    c.tokenizer.num_res_blocks = num_res_blocks
    c.batch_size = batch_size
    c.num_steps = steps

  return fill


def _v1_h(c: ml_collections.ConfigDict) -> None:
  _v1(128, 4, 256, 74_000)(c)
  c.quantizer.codebook_size = 4096
  c.quantizer.embedding_dim = 512


def _v1_bair(base_channels: int, batch_size: int, steps: int):
  def fill(c: ml_collections.ConfigDict) -> None:
    _v1(base_channels, 2, batch_size, steps)(c)
    datasets.bair(c)
    c.dataset.size = 64
    c.tokenizer.channel_multipliers = (1, 2, 4)
    c.tokenizer.temporal_downsample = (True, True)
    c.discriminator.channel_multipliers = (2, 4, 4, 4)

  return fill


def _ablation_vq(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  magvit1(c)


def _ablation_lfq(c: ml_collections.ConfigDict) -> None:
  _ablation_vq(c)
  c.quantizer.name = "lfq"


def _ablation_updown(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  c.tokenizer.temporal_downsample = (True, True, False)
  c.tokenizer.num_res_blocks = 2
  c.discriminator.pool = "average"


def _ablation_late(c: ml_collections.ConfigDict) -> None:
  _ablation_updown(c)
  c.tokenizer.temporal_downsample = (False, True, True)


def _ablation_deeper(c: ml_collections.ConfigDict) -> None:
  _ablation_late(c)
  c.tokenizer.num_res_blocks = 4


def _ablation_blur(c: ml_collections.ConfigDict) -> None:
  _ablation_deeper(c)
  c.discriminator.pool = "blur"


def _joint(c: ml_collections.ConfigDict) -> None:
  """A row of the joint image-video table, whose recipe is not published."""
  c.inflate_from = "none"
  c.tokenizer.base_channels = 64
  c.discriminator.base_channels = 64
  c.tokenizer.num_res_blocks = 2


def _joint_magvit(c: ml_collections.ConfigDict) -> None:
  _ablation_lfq(c)
  _joint(c)


def _joint_causal(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  _joint(c)


def _joint_cvivit(c: ml_collections.ConfigDict) -> None:
  _joint_causal(c)
  c.tokenizer.architecture = "vivit"


def _joint_hybrid(c: ml_collections.ConfigDict) -> None:
  _joint_causal(c)
  c.tokenizer.architecture = "hybrid"
  c.tokenizer.temporal_downsample = (True, True, False)
  c.tokenizer.transformer.width = 256
  c.tokenizer.transformer.mlp_width = 1024
  c.tokenizer.transformer.temporal_layers = 8


def open_magvit2(c: ml_collections.ConfigDict) -> None:
  """Sets the network of Open-MAGVIT2; --mode=import reads its weights."""
  c.inflate_from = "none"
  c.num_steps = 74_000
  c.batch_size = 8
  c.tokenizer.downsample = "conv3"
  c.tokenizer.adaptive_norm = "global"
  c.tokenizer.kept_frame = "first"
  c.tokenizer.padding = "zero"
  c.tokenizer.norm_statistics = "clip"
  c.tokenizer.centred_pixels = True


def _praxis(c: ml_collections.ConfigDict) -> None:
  """The final model, for --mode=import of weights of Google's layers."""
  _ucf101(c)
  c.inflate_from = "none"


VARIANTS = {
  "digits": _digits,
  "digits_continuous": _digits_continuous,
  "overfit": _overfit,
  "folder64": _folder64,
  "folder128": _folder128,
  "folder256": _folder256,
  "ucf101": _ucf101,
  "kinetics600": _kinetics600,
  "v1_b": _v1(64, 2, 128, 37_000),
  "v1_l": _v1(128, 2, 256, 74_000),
  "v1_h": _v1_h,
  "v1_bair_b": _v1_bair(64, 128, 135_200),
  "v1_bair_l": _v1_bair(128, 256, 134_400),
  "ablation_vq": _ablation_vq,
  "ablation_lfq": _ablation_lfq,
  "ablation_updown": _ablation_updown,
  "ablation_late": _ablation_late,
  "ablation_deeper": _ablation_deeper,
  "ablation_blur": _ablation_blur,
  "joint_magvit": _joint_magvit,
  "joint_cvivit": _joint_cvivit,
  "joint_hybrid": _joint_hybrid,
  "joint_causal": _joint_causal,
  "film64": film.film64,
  "film64_small": film.film64_small,
  "film128": film.film128,
  **continuous.VIDEOS,
  "open_magvit2": open_magvit2,
  "praxis": _praxis,
}
