"""Masked generative transformer on the tokens of a video tokenizer.

MAGVIT (arXiv 2212.05199) with the factorised vocabulary of MAGVIT-v2 (arXiv
2310.05737, section 3.3).

  arg       tokens                what
  digits    5x4x4, two of 2^5     the embedded set; two CPU cores

digits: one model of three tasks. README.md has its measured cost and figures.

  python main.py --config=configs/masked.py:digits --workdir=demo/generator \
    --config.tokenizer_workdir=demo/video_tokenizer
"""

import ml_collections

from configs import base


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg != "digits":
    raise ValueError(f"unknown variant {arg!r}: expected 'digits'")
  c = base.masked()
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
  return c
