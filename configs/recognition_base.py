"""Every field of recognizers, as configs/base.py does it.

A mark in a comment says where the value comes from: `ViViT` is arXiv
2103.15691, `BEVT` arXiv 2112.01529. MAGVIT-v2 publishes no recipe.
"""

import ml_collections

from configs import base
from configs import rules


def recognition() -> ml_collections.ConfigDict:
  """A recognizer of ViViT-B's size on tokens, or on pixels at equal counts."""
  c = base.common()
  c.algorithm = "recognition"
  c.mesh.rules = rules.TRANSFORMER_RULES
  c.dataset.size = 128
  # Workdir of a tokenizer, which is copied; "" where pixels are the input and
  # nothing is pretrained.
  c.tokenizer_workdir = base.REQUIRED

  c.recognizer = ml_collections.ConfigDict()
  # What the network sees: the codes of "tokens" (of "lfq" their bits), the
  # "latents" before the quantizer, or "pixels".
  c.recognizer.input = "tokens"
  # Frames, height and width of the pixels that become a token, the first frame
  # alone: the tokenizer's strides give as many tokens. Tokens do not read it.
  c.recognizer.patch = (4, 8, 8)
  # Whether all but the first latent frame is hidden: what looks alone tell.
  c.recognizer.first_frame = False
  c.recognizer.spatial_layers = 12  # layers within a latent frame (ViViT)
  c.recognizer.temporal_layers = 4  # layers over latent frames (ViViT)
  c.recognizer.width = 768  # channels of a token (ViViT)
  c.recognizer.mlp_width = 3072  # hidden units of each layer's MLP (ViViT)
  c.recognizer.num_heads = 12  # attention heads of each layer (ViViT)
  c.recognizer.dropout = 0.1  # share of units and attention dropped
  c.recognizer.num_classes = 101  # classes of the data
  c.recognizer.remat = "auto"  # recomputation: or "off", "all", "dots"
  c.recognizer.attention = "auto"  # or "plain", "blocks", "kernel"
  # Type of activations, "float32" or "bfloat16"; parameters, statistics,
  # softmax and losses stay in float32.
  c.recognizer.dtype = "float32"

  # Prediction of masked tokens instead of classes.
  c.pretraining = ml_collections.ConfigDict()
  # What is predicted of a masked token: its "parts" of factor_bits, each by a
  # softmax, or its "bits"; "off": classes are learned.
  c.pretraining.targets = "off"
  c.pretraining.factor_bits = (9, 9)  # bits of each of the "parts" of an id
  # Share of a frame's positions that is masked (BEVT).
  c.pretraining.share = 0.5
  # Smallest share of the frames in which they are; 1 is the largest (BEVT).
  c.pretraining.least_span = 0.5

  c.label_smoothing = 0.1  # share of targets spread over all classes (BEVT)
  # Adam with decoupled decay (BEVT's).
  c.optimizer = base.optimizer(b1=0.9, b2=0.999, warmup_steps=2500)
  # Peak (BEVT), then one cosine down to 0.
  c.optimizer.peak_learning_rate = 5e-4
  c.optimizer.weight_decay = 0.05  # decoupled decay of kernels (BEVT)
  c.optimizer.clip_norm = 1.0  # largest norm of the gradient
  return c
