"""PSNR, SSIM and codebook use, in numpy.

Definitions as the tables use them: per frame, averaged over frames and clips.
Videos are float arrays (B, T, H, W, 3) in [0, 1].
"""

import numpy as np
from scipy import ndimage

PSNR_CAP = 100.0  # dB, for frames without any error

_GRAY = np.array([0.2125, 0.7154, 0.0721])


def psnr(video_BTHWC: np.ndarray, output_BTHWC: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio, dB, of each frame, (B, T); at most PSNR_CAP."""
  _check_pair(video_BTHWC, output_BTHWC)
  difference = np.asarray(video_BTHWC, np.float64) - output_BTHWC
  mse_BT = np.square(difference).mean((2, 3, 4))
  with np.errstate(divide="ignore"):
    return np.minimum(-10.0 * np.log10(mse_BT), PSNR_CAP)


def masked_psnr(
  video_BTHWC: np.ndarray, output_BTHWC: np.ndarray, region_THW: np.ndarray
) -> np.ndarray:
  """PSNR in dB of each clip over a region, e.g. what a task hides: (B,)."""
  _check_pair(video_BTHWC, output_BTHWC)
  difference = np.asarray(video_BTHWC, np.float64) - output_BTHWC
  mse_B = np.square(difference)[:, region_THW].mean((1, 2))
  with np.errstate(divide="ignore"):
    return np.minimum(-10.0 * np.log10(mse_B), PSNR_CAP)


def ssim(
  video_BTHWC: np.ndarray, output_BTHWC: np.ndarray, mode: str = "rgb"
) -> np.ndarray:
  """Structural similarity of each frame: (B, T), at most 1.

  Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03, windows inside
  the frame only (Wang et al. 2004). Two conventions are in use and differ by
  up to 0.1: "rgb" averages the channels (tf.image.ssim); "magvit_gray" is of
  the luma 0.2125 R + 0.7154 G + 0.0721 B (google-research/magvit).
  """
  _check_pair(video_BTHWC, output_BTHWC)
  if min(video_BTHWC.shape[2:4]) < 11:
    raise ValueError(
      f"SSIM needs frames of at least 11 x 11 pixels, got"
      f" {video_BTHWC.shape[2]} x {video_BTHWC.shape[3]}"
    )
  x = np.asarray(video_BTHWC, np.float64)
  y = np.asarray(output_BTHWC, np.float64)
  if mode == "magvit_gray":
    x, y = (x @ _GRAY)[..., None], (y @ _GRAY)[..., None]
  elif mode != "rgb":
    raise ValueError(f"mode={mode!r} must be 'rgb' or 'magvit_gray'")
  offsets = np.arange(11) - 5
  window = np.exp(-np.square(offsets) / (2 * 1.5**2))
  window /= window.sum()

  def local_mean(z):
    for axis in (2, 3):
      z = ndimage.correlate1d(z, window, axis=axis)
    return z[:, :, 5:-5, 5:-5]

  mx, my = local_mean(x), local_mean(y)
  vx = local_mean(x * x) - mx * mx
  vy = local_mean(y * y) - my * my
  covariance = local_mean(x * y) - mx * my
  c1, c2 = 0.01**2, 0.03**2
  value = (2 * mx * my + c1) * (2 * covariance + c2)
  value /= (mx * mx + my * my + c1) * (vx + vy + c2)
  return value.mean((2, 3, 4))


def codebook(ids: np.ndarray, vocabulary: int) -> dict[str, float]:
  """Use of a codebook of `vocabulary` codes by ids of any shape.

  `usage` is the share of codes hit at least once; read it beside `tokens`,
  because n tokens can hit n codes at the most. `entropy_bits` is of the
  histogram, `perplexity` 2 to that power.
  """
  counts = np.unique(np.asarray(ids), return_counts=True)[1]
  p = counts / counts.sum()
  entropy = float(-(p * np.log2(p)).sum())
  return {
    "usage": len(counts) / vocabulary,
    "codes_used": len(counts),
    "codes": vocabulary,
    "tokens": int(counts.sum()),
    "entropy_bits": entropy,
    "perplexity": 2.0**entropy,
  }


def _check_pair(video_BTHWC: np.ndarray, output_BTHWC: np.ndarray) -> None:
  if video_BTHWC.shape != output_BTHWC.shape or video_BTHWC.ndim != 5:
    raise ValueError(
      "two videos (B, T, H, W, C) of the same shape are needed, got"
      f" {video_BTHWC.shape} and {output_BTHWC.shape}"
    )
  for name, video in (("video", video_BTHWC), ("output", output_BTHWC)):
    if video.dtype == np.uint8 or video.min() < 0 or video.max() > 1:
      raise ValueError(
        f"{name} must be floating point in [0, 1], got {video.dtype} in"
        f" [{video.min()}, {video.max()}]"
      )
