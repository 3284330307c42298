"""Evaluators: from predict functions and clips to scores.

They know no algorithm, no data set and no checkpoint. Clips are uint8
(B, T, H, W, 3); what predict functions return is float in [0, 1].
"""

import collections
from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
from typing import Any

import numpy as np

from evaluation import values
from evaluation.metrics import digit_judge
from evaluation.metrics import frames as frame_metrics
from evaluation.metrics import frechet
from evaluation.metrics import lpips as lpips_lib
from storage import files
from storage import progress as progress_lib
from storage.version import VERSION

# Reconstructs: clips uint8 -> {"video": float, "ids": int, ...}.
Reconstruct = Callable[[np.ndarray], dict[str, np.ndarray]]
# Samples: (task, labels (B,), clips uint8, seed) -> {"video": float, ...}.
Sample = Callable[[str, np.ndarray, np.ndarray, int], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Result:
  """Scores, and all that is needed to compare them with those of others.

  Raises:
    ValueError: a score that is not finite: nobody may take it for one.
  """

  evaluator: str
  metrics: dict[str, float]
  protocol: dict[str, Any]

  def __post_init__(self):
    for name, value in self.metrics.items():
      values.check_number(f"{self.evaluator}: {name}", value)

  def write(self, workdir: str, step: int) -> str:
    """Writes WORKDIR/results/EVALUATOR.json; returns its path."""
    path = files.inside(workdir, "results", f"{self.evaluator}.json")
    fields = {"step": step, "version": VERSION, **dataclasses.asdict(self)}
    files.write_json(path, fields)
    return path

  def summary(self) -> str:
    """One line with the metrics by name."""
    parts = [f"{k} {v:.4g}" for k, v in self.metrics.items()]
    return f"{self.evaluator}: " + ", ".join(parts)


def evaluate_reconstruction(
  reconstruct: Reconstruct,
  batches: Iterable[tuple[np.ndarray, int]],
  vocabulary: int,
  protocol: dict[str, Any],
  lpips: lpips_lib.Lpips | None = None,
) -> list[Result]:
  """Scores of reconstructed clips, and the use of the codebook if there is one.

  Scores are those of `frames.FRAME_METRICS` for which the frames are large
  enough, and LPIPS if it is given. `batches` are (clips, number of clips that
  count), as `pipeline.eval_batches` makes them. The names of the results are
  not those of the protocols "reconstruction" and "codebook", whose clips and
  conventions are others.

  Raises:
    ValueError: no clips, or reconstructions or ids that cannot be.
  """
  scored, ids, seen = collections.defaultdict(list), [], 0
  networks = {} if lpips is None else {"lpips": lpips}
  for video, count in batches:
    output = reconstruct(video)
    real = video[:count] / np.float64(255.0)
    fake = output["video"][:count]
    values.check_video("reconstructions", fake, seen)
    scores = frame_metrics.scores("evaluation", real, fake, networks)
    for name, score in scores.items():
      scored[name].append(score)
    if vocabulary:
      ids.append(output["ids"][:count])
    seen += count
  if not seen:
    raise ValueError("batches must hold at least one clip to reconstruct")
  missing = {
    name: why
    for name, why in frame_metrics.requirements("evaluation").items()
    if name not in scored
  }
  result = Result(
    "held_out_reconstruction",
    {k: float(np.concatenate(v).mean()) for k, v in scored.items()},
    {
      **protocol,
      "lpips_weights_sha256": lpips and lpips.weights_sha256,
      "examples": seen,
      "frames": real.shape[1],
      "psnr": f"{frame_metrics.PSNR_RULE}, per frame; mean over frames and"
      " clips",
      "ssim": "rgb, Gaussian 11, sigma 1.5, valid",
      "left_out": missing,
    },
  )
  if not vocabulary:
    return [result]
  use = frame_metrics.codebook(np.concatenate(ids), vocabulary)
  protocol = {**protocol, "examples": seen}
  return [result, Result("held_out_codebook", use, protocol)]


def evaluate_class_samples(
  sample: Sample,
  judge: digit_judge.DigitJudge,
  real_video: np.ndarray,
  real_label: np.ndarray,
  samples_per_class: int,
  batch_size: int,
  seed: int,
  protocol: dict[str, Any],
) -> list[Result]:
  """Class accuracy and Fréchet distances of class-conditional samples.

  Beside each score stands the same number for the real held-out clips.
  """
  classes = np.unique(real_label)
  label = np.tile(classes, samples_per_class)
  nothing = np.zeros((len(label), *real_video.shape[1:]), np.uint8)
  fake = sample_all(
    sample, "class_conditional", label, nothing, batch_size, seed
  )
  hits = judge.classify(fake) == label
  result = Result(
    "class_conditional",
    {
      "class_accuracy": float(hits.mean()),
      "baseline_class_accuracy": 1.0 / len(classes),
      "real_class_accuracy": float(
        (judge.classify(real_video) == real_label).mean()
      ),
    },
    {
      **protocol,
      "examples": len(label),
      "seed": seed,
      "baseline": "random class",
      "judge": "network on centred mean frames, fitted on real training"
      " clips (evaluation/metrics/digit_judge.py)",
    },
  )
  distances = Result(
    "frechet",
    _class_distances(judge, real_video, fake),
    {
      **protocol,
      "examples": len(label),
      "real_examples": len(real_video),
      "seed": seed,
      "features": "appearance: hidden layer of the judge (64);"
      " motion: centre of mass of each frame",
      "form": "exact, float64, ddof 1",
      "real_distance": "first half of the real clips against the second",
    },
  )
  return [result, distances]


def _class_distances(
  judge: digit_judge.DigitJudge, real_video: np.ndarray, fake: np.ndarray
) -> dict[str, float]:
  """Fréchet distances of samples to real clips, and among the real clips."""
  # The real clips are used as they come: their classes are nearly balanced, as
  # those of the samples are.
  half = len(real_video) // 2
  real, generated = judge.features(real_video), judge.features(fake)
  distances = {}
  for name in real:
    stats = frechet.statistics
    distances[f"frechet_{name}_distance"] = frechet.distance(
      stats(real[name]), stats(generated[name])
    )
    distances[f"real_frechet_{name}_distance"] = frechet.distance(
      stats(real[name][:half]), stats(real[name][half:])
    )
  return distances


def evaluate_completion(
  sample: Sample,
  task: str,
  given_THW: np.ndarray,
  real_video: np.ndarray,
  real_label: np.ndarray,
  batch_size: int,
  seed: int,
  protocol: dict[str, Any],
) -> Result:
  """PSNR where a task hides the clip, beside that of a trivial completion.

  Tasks without a class ignore the labels.
  """
  fake = sample_all(sample, task, real_label, real_video, batch_size, seed)
  real = real_video / np.float64(255.0)
  hidden = ~given_THW
  baseline_name, baseline = trivial_completion(real, given_THW)
  return Result(
    task,
    {
      "hidden_psnr": _mean_psnr(real, fake, hidden),
      "baseline_hidden_psnr": _mean_psnr(real, baseline, hidden),
    },
    {
      **protocol,
      "examples": len(real),
      "seed": seed,
      "baseline": baseline_name,
      "hidden_psnr": f"{frame_metrics.PSNR_RULE}, over the hidden pixels of a"
      " clip; mean over clips",
    },
  )


def trivial_completion(
  video_BTHWC: np.ndarray, given_THW: np.ndarray
) -> tuple[str, np.ndarray]:
  """(name, completion) from the given pixels alone, without any model.

  Where whole frames are given, the hidden ones between two of them are their
  linear interpolation, and those after the last repeat it; else the mean of
  the given pixels of each frame.
  """
  whole = np.flatnonzero(given_THW.all((1, 2)))
  frames = len(given_THW)
  if whole.size:
    # Hidden frame t is (1 - weight) of one given frame and weight of the next.
    place = np.interp(np.arange(frames), whole, np.arange(whole.size))
    below = np.floor(place).astype(int)
    weight_T111 = (place - below)[:, None, None, None]
    above = np.minimum(below + 1, whole.size - 1)
    filled = (1 - weight_T111) * video_BTHWC[:, whole[below]]
    filled += weight_T111 * video_BTHWC[:, whole[above]]
    name = "last given frame repeated"
    if whole[-1] == frames - 1:
      name = "linear interpolation of the given frames"
  else:
    weight = given_THW[..., None].astype(np.float64)
    total = (video_BTHWC * weight).sum((2, 3), keepdims=True)
    mean = total / weight.sum((1, 2), keepdims=True)
    filled = np.broadcast_to(mean, video_BTHWC.shape)
    name = "mean of the given pixels of the frame"
  return name, np.where(given_THW[..., None], video_BTHWC, filled)


def _mean_psnr(real, fake, region_THW) -> float:
  return float(frame_metrics.masked_psnr(real, fake, region_THW).mean())


def sample_all(
  sample: Sample,
  task: str,
  label: np.ndarray,
  video: np.ndarray,
  batch_size: int,
  seed: int,
) -> np.ndarray:
  """Samples for all labels, float (n, T, H, W, 3), in batches of one shape.

  Raises:
    ValueError: samples that are not in [0, 1].
  """
  outputs = []
  progress = progress_lib.Progress(f"sampling {task}", len(label), "clips")
  for start in range(0, len(label), batch_size):
    index = np.arange(start, start + batch_size).clip(max=len(label) - 1)
    out = sample(task, label[index], video[index], seed + start)["video"]
    values.check_video("samples", out, start)
    outputs.append(out[: len(label) - start])
    progress.update(min(start + batch_size, len(label)))
  return np.concatenate(outputs)
