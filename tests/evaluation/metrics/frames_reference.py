"""Frames, and the scores that the reference packages give them.

The packages are pytorch-msssim 1.0.0, scikit-image 0.26.0 and torchmetrics
1.9.0, in float64. pytorch-msssim makes its window in float32, which moves its
values by 5e-6: here it is given a float64 window. Where they are installed,

  python -m tests.evaluation.metrics.frames_reference

prints the numbers.
"""

import numpy as np

# Scores of each frame, by the modes of `frames.ssim`, and MS-SSIM.
RECORDED = {
  "rgb": (0.898463291306, 0.357040920917),
  "magvit_gray": (0.907407717544, 0.384059410931),
  "reflect": (0.898595417053, 0.35695906097),
  "uniform7": (0.899607099599, 0.359847810849),
  "ms_ssim": (0.966142079055, 0.687173554084),
}


def videos() -> tuple[np.ndarray, np.ndarray]:
  """Two frames of 163 x 178 (both odd on some scale), and noisy copies."""
  rng = np.random.default_rng(0)
  shape = (1, 2, 163, 178, 3)
  slope_HW1 = (np.indices(shape[2:4]).sum(0) / 341.0)[..., None]
  video = 0.8 * slope_HW1 + 0.2 * rng.random(shape)
  noise = np.array([0.1, 0.4])[:, None, None, None] * (rng.random(shape) - 0.5)
  return video, np.clip(video + noise, 0.0, 1.0)


def measure() -> dict[str, np.ndarray]:
  """Scores by each convention, from its package."""
  from pytorch_msssim import ms_ssim
  from pytorch_msssim import ssim
  from skimage.metrics import structural_similarity
  import torch
  from torchmetrics.functional.image import (
    structural_similarity_index_measure as torchmetrics_ssim,
  )

  frames = [video[0] for video in videos()]
  x, y = (torch.tensor(f).permute(0, 3, 1, 2) for f in frames)
  offsets = torch.arange(-5, 6, dtype=torch.float64)
  window = torch.exp(-(offsets**2) / (2 * 1.5**2))
  window = (window / window.sum()).expand(3, 1, 1, 11)
  exact = {"data_range": 1.0, "size_average": False, "win": window}
  gaussian = {
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
  }
  skimage = lambda x, y, **settings: [
    structural_similarity(a, b, channel_axis=2, data_range=1.0, **settings)
    for a, b in zip(x, y, strict=True)
  ]
  gray = [f @ np.array([0.2125, 0.7154, 0.0721]) for f in frames]
  gray = [f[..., None] for f in gray]
  return {
    "rgb": ssim(x, y, **exact),
    "rgb (skimage)": skimage(*frames, **gaussian),
    "magvit_gray": skimage(*gray, **gaussian),
    "reflect": torchmetrics_ssim(x, y, data_range=1.0, reduction="none"),
    "uniform7": skimage(*frames),
    "ms_ssim": ms_ssim(x, y, **exact),
  }


if __name__ == "__main__":
  for name, values in measure().items():
    print(f'  "{name}": ({", ".join(f"{float(v):.12g}" for v in values)}),')
