"""The toy generator on the tokens of tests/tiny.py's tokenizer."""

import ml_collections

from configs import base


def get_config(arg: str = "digits") -> ml_collections.ConfigDict:
  if arg != "digits":
    raise ValueError(f"unknown variant {arg!r}: expected 'digits'")
  c = base.common()
  c.name = "toy generator"
  c.algorithm = "toy"
  c.num_steps = 4
  c.batch_size = 8
  c.log_every = 1
  c.checkpoint_every = 2
  c.dataset.frames, c.dataset.size = 5, 16
  c.dataset.eval_examples = 10
  c.tokenizer_workdir = base.REQUIRED
  c.histogram = ml_collections.ConfigDict()
  c.histogram.num_classes = 10
  c.histogram.dtype = "float32"
  c.histogram.remat = "off"
  c.tasks = ml_collections.ConfigDict({"class_conditional": 1.0})
  c.condition_frames = 1
  c.sampling = ml_collections.ConfigDict({"samples_per_class": 1})
  c.optimizer = base.optimizer(b1=0.9, b2=0.99, warmup_steps=1)
  return c
