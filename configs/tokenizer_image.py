"""MAGVIT-v2 image tokenizer: the video tokenizer with one-frame kernels.

arXiv 2310.05737, sections 3.1-3.2. Its weights inflate into the video
tokenizer's.

  arg       images    tokens           what
  digits    16x16     4x4 of 10 bits   the embedded set; two CPU cores

README.md has the measured cost and figures.

  python main.py --config=configs/tokenizer_image.py:digits \
    --workdir=demo/image_tokenizer
"""

import ml_collections

from configs import base
from configs import tokenizer_video


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg != "digits":
    raise ValueError(f"unknown variant {arg!r}: expected 'digits'")
  c = base.tokenizer()
  c.name = "digits image tokenizer"
  tokenizer_video.digits(c)
  c.dataset.frames = 1
  c.tokenizer.temporal = False
  c.tokenizer.temporal_downsample = (False, False)
  c.num_steps = 800
  c.batch_size = 32
  return c
