"""Autoregressive transformers on the tokens of a video tokenizer.

The AR-LM baseline of MAGVIT-v2 (arXiv 2310.05737): class-conditional UCF-101,
one token after another. Sizes are parameters of the transformer, in millions;
FVD is the paper's. None but `digits` was trained by us.

  arg                clips        tokens      vocabulary    size   FVD
  digits             17x16x16     5x4x4       2^10          0.5
  folder64           9x64x64      3x16x16     2^10          1.0
  folder128          17x128x128   5x16x16     two of 2^9    87.6
  folder256          17x256x256   5x16x16     two of 2^9    87.6
  film64             17x64x64     5x8x8       two of 2^9    86.9
  ucf101_v1          16x128x128   4x16x16     2^10          305.6  265
  ucf101             17x128x128   5x16x16     2^18          840.6  109
  ucf101_factorized  17x128x128   5x16x16     two of 2^9    305.8

The paper prints 306M and 840M, and not how they come about: 24 layers of width
1024, with separate tables of 2^10 and of 2^18 rows for input and output, give
these sizes. Optimizer, dropout, label drop and length of training are those of
v1's masked model. ucf101_factorized is ours: the masked model's sub-tokens, by
the chain rule, at the size of ucf101_v1.

folder64, folder128 and folder256 need a folder of videos (docs/your_data.md),
film64 a film (docs/film.md), and all the tokenizer of the same row. film64
knows no class: it continues frames that it is given.

The tokenizer of ucf101_v1 is `configs/tokenizer_video.py:v1_l`, that of the
other two on UCF-101 is `ucf101` there, that of digits is `digits`:

  python main.py --config=configs/autoregressive.py:ucf101 --workdir=DIR \
    --config.tokenizer_workdir=TOKENIZER_DIR

digits was measured once, on two CPU cores that others shared (8.5 minutes, 2.3
steps/s). The loss is 6.4 nats a token at step 10 and 1.6 at the last; 77 % of
100 samples show the requested class (real clips: 100 %); centres of the digit
move like real ones (Fréchet distance 0.0072; between two halves of the real
clips 0.0066); predicted frames have 16.4 dB, where the last given frame
repeated has 17.3. The other rows were not trained: only their sizes are known.
"""

import ml_collections

from configs import base
from configs import datasets
from configs import film
from configs import own_folders


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}: expected {sorted(VARIANTS)}")
  c = base.autoregressive()
  c.name = f"autoregressive generator {arg}"
  VARIANTS[arg](c)
  return c


def _digits(c: ml_collections.ConfigDict) -> None:
  c.dataset.size = 16
  c.num_steps = 1000
  c.batch_size = 24
  c.transformer.num_layers = 3
  c.transformer.width = 96
  c.transformer.mlp_width = 384
  c.transformer.num_heads = 4
  c.transformer.factor_bits = (10,)
  c.transformer.dropout = 0.0  # the set is endless: nothing to overfit
  c.transformer.num_classes = 10
  c.tasks.class_conditional = 5.0
  c.tasks.frame_prediction = 1.0
  c.sampling.guidance = 1.0
  c.optimizer.peak_learning_rate = 3e-3
  c.optimizer.warmup_steps = 50


def _folder64(c: ml_collections.ConfigDict) -> None:
  own_folders.small_generator(c)
  c.transformer.factor_bits = (10,)


def _folder(size: int, batch_size: int):
  return lambda c: own_folders.generator(c, size, batch_size)


def _ucf101_v1(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  c.dataset.frames = 16
  c.transformer.factor_bits = (10,)
  c.loss_chunks = 1


def _ucf101(c: ml_collections.ConfigDict) -> None:
  datasets.ucf101(c)
  c.num_steps = 74_000  # v1's 2000 epochs of 9,537 clips
  c.batch_size = 256
  c.transformer.remat = "all"
  c.loss_chunks = 16  # each has 84 MB of logits for a clip


def _ucf101_factorized(c: ml_collections.ConfigDict) -> None:
  _ucf101(c)
  c.transformer.factor_bits = (9, 9)
  c.loss_chunks = 1


VARIANTS = {
  "digits": _digits,
  "folder64": _folder64,
  "folder128": _folder(128, 32),
  "folder256": _folder(256, 16),
  "film64": film.generator64,
  "ucf101_v1": _ucf101_v1,
  "ucf101": _ucf101,
  "ucf101_factorized": _ucf101_factorized,
}
