"""A feature network that takes no time and has no weights."""

import numpy as np


class Network:
  """Random projections of the pixels, in place of features.Extractor."""

  weights_sha256 = "0" * 64

  def __init__(self):
    self.clips = 0

  def __call__(self, batch):
    self.clips += len(batch)
    x = batch.reshape(len(batch), -1)
    x = x[:, :: 1 + x.shape[1] // 997].astype(np.float32) / 255
    rng = np.random.RandomState(0)
    project = lambda width: x @ rng.randn(x.shape[1], width).astype(np.float32)
    logits = project(5)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    return {
      "pool3": project(4),
      "spatial": project(3),
      "logits": logits,
      "probabilities": probabilities,
    }
