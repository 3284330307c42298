"""Recognizers: what tokens tell of a clip, as inputs and as targets.

MAGVIT-v2 (arXiv 2310.05737, section 4.3) recognises actions from tokens and
predicts masked tokens, and publishes neither network nor recipe; the network is
ViViT's (arXiv 2103.15691), pretraining is BEVT's (arXiv 2112.01529). Sizes are
parameters in millions, of `tokens` and `pixels`; published are top-1
accuracies of the paper with tokens and with pixels as inputs, and on SSv2 with
tokens as targets. None but the digits was trained by us.

  arg                 tokens    size         what                  published
  digits              5x4x4       0.2   0.2  40 classes, two cores
  digits_few          5x4x4       0.2   0.2  200 labelled clips
  digits_pretraining  5x4x4       0.2   0.2  masked tokens
  ucf101              5x16x16   113.7 114.4  101 classes
  ssv2                5x16x16   113.8 114.5  174 classes           62.40 63.08
  ssv2_pretraining    5x16x16   114.4 115.1  masked tokens         67.38
  kinetics400         5x16x16   114.0 114.7  400 classes           75.34 76.13
  kinetics600         5x16x16   114.1 114.8  600 classes           77.93 78.92

  python main.py --config=configs/recognition.py:digits --workdir=DIR \
    --config.tokenizer_workdir=TOKENIZER_DIR
  python main.py --config=configs/recognition.py:digits --workdir=DIR \
    --config.recognizer.input=pixels
  python main.py --config=configs/recognition.py:digits_few --workdir=DIR \
    --config.tokenizer_workdir=TOKENIZER_DIR --config.init_from=PRETRAINED_DIR

The tokenizer is the row of that name of configs/tokenizer_video.py, or one of
Kinetics; --config.recognizer.first_frame=True is the control that sees the
first frame alone. docs/recognition.md has the measured accuracies.
"""

import ml_collections

from configs import datasets
from configs import recognition_base


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = recognition_base.recognition()
  c.name = f"recognizer {arg}"
  VARIANTS[arg](c)
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  c.dataset.size = 16
  c.dataset.motion = "drift"  # the first frame of "cross" tells the direction
  c.dataset.labels = "motion"
  c.dataset.eval_examples = 500
  c.num_steps = 1000
  c.batch_size = 32
  c.log_every = 50
  c.checkpoint_every = 500
  c.recognizer.patch = (4, 4, 4)
  c.recognizer.spatial_layers = 2
  c.recognizer.temporal_layers = 1
  c.recognizer.width = 64
  c.recognizer.mlp_width = 256
  c.recognizer.num_heads = 4
  c.recognizer.dropout = 0.0
  c.recognizer.num_classes = 40
  c.label_smoothing = 0.0
  c.optimizer.name = "muon"  # learns three times as fast as Adam at 2e-3
  c.optimizer.peak_learning_rate = 1e-2
  c.optimizer.warmup_steps = 50


def _digits_few(c: ml_collections.ConfigDict) -> None:
  _digits(c)
  c.dataset.train_examples = 200
  c.dataset.shuffle = True
  c.num_steps = 400
  c.recognizer.dropout = 0.1
  c.label_smoothing = 0.1


def _digits_pretraining(c: ml_collections.ConfigDict) -> None:
  _digits(c)
  c.pretraining.targets = "parts"
  c.pretraining.factor_bits = (5, 5)
  c.num_steps = 2000


def _real(c: ml_collections.ConfigDict, examples: int, epochs: int) -> None:
  """Sets what all sets have: clips of 17 frames, every fourth of a video."""
  c.dataset.stride = 4
  c.dataset.short_videos = "hold"
  c.batch_size = 256
  c.num_steps = epochs * examples // c.batch_size
  c.log_every = 50
  c.checkpoint_every = 1000
  c.eval_every = 10_000


def _ucf101(c: ml_collections.ConfigDict) -> None:
  datasets.ucf101(c)
  _real(c, 9_537, 200)
  c.dataset.eval_crop = "three"


def _ssv2(c: ml_collections.ConfigDict) -> None:
  datasets.ssv2(c)  # without flips: left and right are classes
  _real(c, 168_913, 60)  # epochs of BEVT
  c.dataset.stride = 2  # the videos are short: 4 s
  c.dataset.eval_crop = "three"  # three views, of the central window
  c.dataset.eval_window = "centre"
  c.recognizer.num_classes = 174


def _ssv2_pretraining(c: ml_collections.ConfigDict) -> None:
  _ssv2(c)
  c.num_steps = 150 * 168_913 // c.batch_size  # epochs of BEVT
  c.pretraining.targets = "parts"


def _kinetics400(c: ml_collections.ConfigDict) -> None:
  datasets.kinetics400(c)
  _real(c, 240_000, 30)  # epochs of ViViT
  c.recognizer.num_classes = 400


def _kinetics600(c: ml_collections.ConfigDict) -> None:
  datasets.kinetics600(c)
  _real(c, 384_000, 30)
  c.recognizer.num_classes = 600


VARIANTS = {
  "digits": _digits,
  "digits_few": _digits_few,
  "digits_pretraining": _digits_pretraining,
  "ucf101": _ucf101,
  "ssv2": _ssv2,
  "ssv2_pretraining": _ssv2_pretraining,
  "kinetics400": _kinetics400,
  "kinetics600": _kinetics600,
}
