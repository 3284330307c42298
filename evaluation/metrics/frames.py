"""Scores of frames: PSNR, SSIM, MS-SSIM; and codebook use; in numpy.

Definitions as the tables use them: per frame, averaged over frames and clips.
Videos are float arrays (B, T, H, W, 3) in [0, 1]. Everything is computed in
float64, some frames at a time: memory does not grow with their number.

A new score of frames is a line in `FRAME_METRICS`.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools

import numpy as np

from evaluation import values

PSNR_CAP = 100.0  # dB, for frames without any error
PSNR_RULE = f"dB, at most {PSNR_CAP:g}"  # results state it beside the score
SSIM_MODES = ("rgb", "magvit_gray", "reflect", "uniform7")
SSIM_MIN_SIZE = 11  # pixels: the window
MS_SSIM_MIN_SIZE = 161  # pixels: the window, at a sixteenth of the size

_GRAY = np.array([0.2125, 0.7154, 0.0721])
_C1, _C2 = 0.01**2, 0.03**2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_VALUES_AT_ONCE = 2**20  # numbers of each video that are computed together

_GAUSSIAN = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
_GAUSSIAN /= _GAUSSIAN.sum()
_UNIFORM = np.full(7, 1 / 7)

# Two videos, float (B, T, H, W, 3) in [0, 1], to the scores of frames, (B, T),
# or of whole clips, (B, 1).
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Where scores are shown: the held-out scores of training, the protocol
# `reconstruction`, the user's own files, the compression study, and the cards
# of the report.
PLACES = ("evaluation", "protocol", "files", "study", "headline")


def _check_place(place: str) -> None:
  if place not in PLACES:
    raise ValueError(f"place={place!r} must be one of {PLACES}")


@dataclasses.dataclass(frozen=True)
class FrameMetric:
  """A score of each frame of a video against that of another.

  label, unit, digits: how it is printed, and to how many decimals.
  score: the function; None where a network computes it, whose weights the user
    brings.
  smallest: pixels that the shorter side of a frame needs.
  lower_is_better: whether it is a distance.
  places: those of PLACES that show it.

  Raises:
    ValueError: negative digits, a frame smaller than a pixel, unknown places.
  """

  label: str
  score: Score | None
  unit: str = ""
  digits: int = 3
  smallest: int = 1
  lower_is_better: bool = False
  places: tuple[str, ...] = PLACES

  def __post_init__(self):
    values.check_count(f"digits of {self.label}", self.digits, 0)
    values.check_count(f"smallest of {self.label}", self.smallest, 1)
    for place in self.places:
      _check_place(place)

  @property
  def form(self) -> str:
    """Format string of a value with its unit."""
    return f"{{:.{self.digits}f}} {self.unit}".rstrip()

  @property
  def title(self) -> str:
    """Title of plots, like "PSNR, dB"."""
    title = f"{self.label}, {self.unit}" if self.unit else self.label
    return f"{title} (lower is better)" if self.lower_is_better else title


def at(place: str) -> dict[str, FrameMetric]:
  """The metrics of a place by name, in their order.

  Raises:
    ValueError: `place` is none of PLACES.
  """
  _check_place(place)
  return {
    name: metric
    for name, metric in FRAME_METRICS.items()
    if place in metric.places
  }


def requirements(place: str) -> dict[str, str]:
  """What a place's metrics need, by name: "needs frames of ... pixels"."""
  return {
    name: f"needs frames of at least {metric.smallest} pixels a side"
    if metric.score
    else f"needs weights of {metric.label}, which were not given"
    for name, metric in at(place).items()
  }


def scores(
  place: str,
  video_BTHWC: np.ndarray,
  output_BTHWC: np.ndarray,
  networks: Mapping[str, Score] | None = None,
) -> dict[str, np.ndarray]:
  """Scores by name, (B, T) each, of a place's metrics that the frames fit.

  Args:
    place: one of PLACES.
    video_BTHWC: float in [0, 1].
    output_BTHWC: the same shape and range.
    networks: by name, the scores that networks compute; a metric that needs a
      network is left out where it is not among these.

  Raises:
    ValueError: videos that cannot be compared, or a score that is not finite.
  """
  _check_shapes(video_BTHWC, output_BTHWC)  # each metric checks the values
  computed = {}
  for name, metric in at(place).items():
    score = metric.score or (networks or {}).get(name)
    if score is not None and min(video_BTHWC.shape[2:4]) >= metric.smallest:
      computed[name] = score(video_BTHWC, output_BTHWC)
      values.check_range(metric.label, computed[name])
  return computed


def psnr(video_BTHWC: np.ndarray, output_BTHWC: np.ndarray) -> np.ndarray:
  """Peak signal-to-noise ratio, dB, of each frame, (B, T); at most PSNR_CAP.

  Raises:
    ValueError: videos that cannot be compared.
  """
  _check_pair(video_BTHWC, output_BTHWC)

  def score_frames(x_FHWC, y_FHWC):
    mse_F = np.square(x_FHWC - y_FHWC).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
      return np.minimum(-10.0 * np.log10(mse_F), PSNR_CAP)

  return _per_frame(score_frames, video_BTHWC, output_BTHWC)


def masked_psnr(
  video_BTHWC: np.ndarray, output_BTHWC: np.ndarray, region_THW: np.ndarray
) -> np.ndarray:
  """PSNR in dB of each clip over a region, like one that a task hides: (B,).

  Raises:
    ValueError: videos that cannot be compared, or a region that is no bool
      array of their frames (T, H, W), or is empty.
  """
  _check_pair(video_BTHWC, output_BTHWC)
  region_THW = np.asarray(region_THW)
  shape = video_BTHWC.shape[1:4]
  if region_THW.dtype != bool or region_THW.shape != shape:
    raise ValueError(
      f"region of {region_THW.dtype} and shape {region_THW.shape} must be bool"
      f" (T, H, W), here {shape}"
    )
  if not region_THW.any():
    raise ValueError(f"region of shape {shape} must hold at least one pixel")
  difference = np.asarray(video_BTHWC, np.float64) - output_BTHWC
  mse_B = np.square(difference)[:, region_THW].mean((1, 2))
  with np.errstate(divide="ignore"):
    return np.minimum(-10.0 * np.log10(mse_B), PSNR_CAP)


def ssim(
  video_BTHWC: np.ndarray, output_BTHWC: np.ndarray, mode: str = "rgb"
) -> np.ndarray:
  """Structural similarity of each frame: (B, T), at most 1.

  Wang et al. 2004 with K1 = 0.01, K2 = 0.03, averaged over all windows and
  channels. Four conventions are in use, and differ by up to 0.1:

    rgb: Gaussian window of 11 pixels, sigma 1.5, inside the frame only
      (tf.image.ssim, pytorch-msssim, scikit-image with gaussian_weights and
      without sample covariance).
    magvit_gray: the same on the luma 0.2125 R + 0.7154 G + 0.0721 B
      (google-research/magvit).
    reflect: the window of rgb around every pixel of the frame, which is
      reflected at its edges (torchmetrics 1.9, MaskBit).
    uniform7: 7 x 7 pixels of equal weight inside the frame, variances over 48
      (scikit-image's default, Open-MAGVIT2).

  Raises:
    ValueError: another mode, frames smaller than the window, or videos that
      cannot be compared.
  """
  if mode not in SSIM_MODES:
    raise ValueError(f"mode={mode!r} must be one of {SSIM_MODES}")
  _check_pair(video_BTHWC, output_BTHWC)
  uniform = mode == "uniform7"
  window = _UNIFORM if uniform else _GAUSSIAN
  if min(video_BTHWC.shape[2:4]) < len(window):
    raise ValueError(
      f"SSIM needs frames of at least {len(window)} x {len(window)} pixels,"
      f" got {video_BTHWC.shape[2]} x {video_BTHWC.shape[3]}"
    )

  def score_frames(x_FHWC, y_FHWC):
    if mode == "magvit_gray":
      x_FHWC, y_FHWC = ((z @ _GRAY)[..., None] for z in (x_FHWC, y_FHWC))
    luminance, contrast = _luminance_and_contrast(
      x_FHWC, y_FHWC, window, mode != "reflect", 49 / 48 if uniform else 1.0
    )
    return (luminance * contrast).mean((1, 2, 3))

  return _per_frame(score_frames, video_BTHWC, output_BTHWC)


def ms_ssim(video_BTHWC: np.ndarray, output_BTHWC: np.ndarray) -> np.ndarray:
  """Structural similarity over five scales, of each frame: (B, T), at most 1.

  Wang et al. 2003 on RGB as `pytorch-msssim` has it: per channel the product of
  the mean contrasts of four scales and the mean SSIM of the coarsest, negative
  means counted as 0, to the powers 0.0448, 0.2856, 0.3001, 0.2363 and 0.1333;
  then the mean over channels. Scales are halved by 2 x 2 means; an odd size
  first gets a black line at both of its ends.

  Raises:
    ValueError: frames smaller than 161 pixels, whose coarsest scale would not
      hold the window, or videos that cannot be compared.
  """
  _check_pair(video_BTHWC, output_BTHWC)
  if min(video_BTHWC.shape[2:4]) < MS_SSIM_MIN_SIZE:
    raise ValueError(
      f"MS-SSIM needs frames of at least {MS_SSIM_MIN_SIZE} x"
      f" {MS_SSIM_MIN_SIZE} pixels, got {video_BTHWC.shape[2]} x"
      f" {video_BTHWC.shape[3]}: compare larger frames, or use ssim"
    )

  def score_frames(x_FHWC, y_FHWC):
    factors_FC = []
    for scale, weight in enumerate(_SCALE_WEIGHTS):
      luminance, contrast = _luminance_and_contrast(x_FHWC, y_FHWC, _GAUSSIAN)
      if scale == len(_SCALE_WEIGHTS) - 1:
        contrast *= luminance
      else:
        x_FHWC, y_FHWC = _halve(x_FHWC), _halve(y_FHWC)
      factors_FC.append(np.maximum(contrast.mean((1, 2)), 0.0) ** weight)
    return functools.reduce(np.multiply, factors_FC).mean(1)

  return _per_frame(score_frames, video_BTHWC, output_BTHWC)


def _first_frame_psnr(
  video_BTHWC: np.ndarray, output_BTHWC: np.ndarray
) -> np.ndarray:
  return psnr(video_BTHWC[:, :1], output_BTHWC[:, :1])


_RESULTS = ("evaluation", "protocol")
FRAME_METRICS = {
  "psnr": FrameMetric("PSNR", psnr, unit="dB", digits=2),
  "psnr_first_frame": FrameMetric(
    "PSNR of first frames", _first_frame_psnr, "dB", 2, places=_RESULTS
  ),
  "ssim": FrameMetric(
    "SSIM",
    ssim,
    smallest=SSIM_MIN_SIZE,
    places=("evaluation", "files", "headline"),
  ),
  **{
    f"ssim_{mode}": FrameMetric(
      f"SSIM, {mode}",
      functools.partial(ssim, mode=mode),
      smallest=SSIM_MIN_SIZE,
      places=("protocol",),
    )
    for mode in SSIM_MODES
  },
  "ms_ssim": FrameMetric(
    "MS-SSIM", ms_ssim, smallest=MS_SSIM_MIN_SIZE, places=(*_RESULTS, "study")
  ),
  "lpips": FrameMetric(
    "LPIPS",
    None,
    lower_is_better=True,
    places=(*_RESULTS, "study", "headline"),
  ),
}


def _luminance_and_contrast(
  x_FHWC: np.ndarray,
  y_FHWC: np.ndarray,
  window: np.ndarray,
  inside: bool = True,
  correction: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
  """The two factors of SSIM, (F, h, w, C), one for each window.

  Windows lie `inside` the frame, or else around each of its pixels.
  `correction` is n / (n - 1) for variances of a sample.
  """
  from scipy import ndimage  # It takes long to import.

  edge = len(window) // 2 if inside else 0

  def local_mean(z_FHWC: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
      # scipy's "mirror" is what others call "reflect": the edge pixel is not
      # repeated.
      z_FHWC = ndimage.correlate1d(z_FHWC, window, axis=axis, mode="mirror")
    return z_FHWC[:, edge : z_FHWC.shape[1] - edge, edge : -edge or None]

  mx, my = local_mean(x_FHWC), local_mean(y_FHWC)
  squares, product = mx * mx + my * my, mx * my
  # Only the sum of both variances is needed: four filters instead of five.
  variances = local_mean(x_FHWC * x_FHWC + y_FHWC * y_FHWC) - squares
  covariance = local_mean(x_FHWC * y_FHWC) - product
  luminance = (2 * product + _C1) / (squares + _C1)
  contrast = 2 * correction * covariance + _C2
  contrast /= correction * variances + _C2
  return luminance, contrast


def _halve(x_FHWC: np.ndarray) -> np.ndarray:
  """Means of 2 x 2 pixels."""
  ends = [(size % 2,) * 2 for size in x_FHWC.shape[1:3]]
  x_FHWC = np.pad(x_FHWC, [(0, 0), *ends, (0, 0)])
  frames, height, width, channels = x_FHWC.shape
  h, w = height // 2, width // 2
  x_FHWC = x_FHWC[:, : 2 * h, : 2 * w]
  return x_FHWC.reshape(frames, h, 2, w, 2, channels).mean((2, 4))


def codebook(ids: np.ndarray, vocabulary: int) -> dict[str, float]:
  """Use of a codebook of `vocabulary` codes by ids of any shape.

  `usage` is the share of codes hit at least once; read it beside `tokens`,
  because n tokens can hit n codes at the most. `entropy_bits` is the entropy of
  the histogram, `perplexity` 2 to that power.

  Raises:
    ValueError: ids that are no integers in [0, vocabulary), or none.
  """
  values.check_ids("ids", ids, vocabulary)
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


def _per_frame(
  score_frames: Callable[[np.ndarray, np.ndarray], np.ndarray],
  video_BTHWC: np.ndarray,
  output_BTHWC: np.ndarray,
) -> np.ndarray:
  """Scores (B, T) by a function from float64 frames (F, H, W, C) to (F,)."""
  frames = [v.reshape(-1, *v.shape[2:]) for v in (video_BTHWC, output_BTHWC)]
  size = max(1, _VALUES_AT_ONCE // max(1, frames[0][0].size))
  scored = [
    score_frames(*(np.asarray(v[i : i + size], np.float64) for v in frames))
    for i in range(0, len(frames[0]), size)
  ]
  return np.concatenate(scored).reshape(video_BTHWC.shape[:2])


def _check_shapes(video_BTHWC: np.ndarray, output_BTHWC: np.ndarray) -> None:
  shapes = np.shape(video_BTHWC), np.shape(output_BTHWC)
  if shapes[0] != shapes[1] or len(shapes[0]) != 5:
    raise ValueError(
      "two videos (B, T, H, W, 3) of the same shape are needed, got"
      f" {shapes[0]} and {shapes[1]}"
    )


def _check_pair(video_BTHWC: np.ndarray, output_BTHWC: np.ndarray) -> None:
  _check_shapes(video_BTHWC, output_BTHWC)
  values.check_video("video", video_BTHWC)
  values.check_video("output", output_BTHWC)
