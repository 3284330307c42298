"""Tests of evaluation/metrics/lpips.py; refusals are in refusals_test.py."""

import jax
import numpy as np

from evaluation.metrics import lpips
from models.features import perceptual


def test_lpips_multiplies_at_the_highest_precision(monkeypatch):
  distance, params = perceptual.describe("lpips_vgg")
  monkeypatch.setattr(perceptual, "load", lambda *_: (distance, params))
  frame = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
  seen = []
  monkeypatch.setattr(
    jax, "jit", lambda f: lambda *args: seen.append(jax.make_jaxpr(f)(*args))
  )
  lpips.load_distance("weights")(frame, frame)
  text = str(seen[0])
  count = text.count("conv_general_dilated[")
  assert count == 2 * 13 + 5
  assert text.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == count
