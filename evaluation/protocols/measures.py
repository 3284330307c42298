"""The measures of protocols: functions from features of clips to scores.

The protocols are in table.py; measurements.py makes the features.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools

import numpy as np

from evaluation import values
from evaluation.metrics import frames as frame_metrics
from evaluation.metrics import frechet
from evaluation.metrics import inception_score
from evaluation.metrics import kernels
from evaluation.metrics import manifold
from evaluation.protocols import completions as completions_lib
from evaluation.protocols import table as protocol_table
from models.features import networks as feature_networks

_IS_SAMPLES = 10  # samples that an Inception score needs
_KID_CLIPS = 1000  # clips of each side, a subset, that KID needs
# Scores by nearest neighbours, and the clips of each side that they need.
_OF_NEIGHBOURS = (
  (("precision", "recall"), manifold.ADM_NEIGHBOURS + 1),
  (("density", "coverage"), manifold.PRDC_NEIGHBOURS + 1),
)

# Features by name, float32 (N, width); scores of clips are (N, 1).
Features = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Real:
  """Real clips that the made clips are compared with, as numbers.

  `folds` has features for each fold, or one entry for all of them; None without
  real clips. `gaussians` are published statistics by suffix ("" for pool3, "_s"
  for spatial); they go before statistics of the features.
  """

  folds: Sequence[Features] | None = None
  gaussians: Mapping[str, frechet.Gaussian] = dataclasses.field(
    default_factory=dict
  )

  def fold(self, index: int) -> Features:
    if self.folds is None:
      raise ValueError(
        "there are no real clips to compare with: give"
        " --reference=FILE_OR_FOLDER of clips, not of their statistics"
      )
    return self.folds[index if len(self.folds) > 1 else 0]


def image_suite(
  protocol: protocol_table.Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """FID, sFID, IS; with real features also precision to coverage, and KID."""
  fake = made[0]
  scores = {}
  for name, suffix, layer in (("fid", "", "pool3"), ("sfid", "_s", "spatial")):
    reference = real.gaussians.get(suffix)
    if reference is None and not real.gaussians:
      reference = _gaussian(real.fold(0)[layer], protocol.ddof)
    if reference is not None:
      scores[name] = frechet.distance(
        _gaussian(fake[layer], protocol.ddof), reference
      )
  for convention in inception_score.CONVENTIONS:
    if len(fake["logits"]) >= _IS_SAMPLES:
      score = inception_score.inception_score(fake["logits"], convention)
      scores[f"is_{convention}"] = score["is"]
  if real.folds is None:
    return scores
  features = (real.fold(0)["pool3"], fake["pool3"])
  smallest = min(map(len, features))
  if smallest > manifold.ADM_NEIGHBOURS:
    scores |= manifold.precision_recall(*features)
  if smallest > manifold.PRDC_NEIGHBOURS:
    scores |= manifold.density_coverage(*features)
  if smallest >= _KID_CLIPS:
    scores |= kernels.kid(fake["pool3"], real.fold(0)["pool3"])
  return scores


def packaged_suite(
  protocol: protocol_table.Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """Scores on pooled features of frames; their names begin with the network's.

  The Fréchet distance is that of all frames, and that of the differences from
  each frame to the next. Precision, recall, density and coverage compare clips
  by the mean of their frames, because frames of one clip are neighbours.
  """
  fake_NTD, real_NTD = (
    _frames(protocol, each["pool"]) for each in (made[0], real.fold(0))
  )
  scores = _frechet_of_frames(protocol, fake_NTD, real_NTD)
  clips = (real_NTD.mean(1), fake_NTD.mean(1))
  smallest = min(map(len, clips))
  if smallest > manifold.ADM_NEIGHBOURS:
    scores |= manifold.precision_recall(*clips)
  if smallest > manifold.PRDC_NEIGHBOURS:
    scores |= manifold.density_coverage(*clips)
  return {f"{protocol.network}_{k}": v for k, v in scores.items()}


def completions(
  protocol: protocol_table.Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """Scores of completed clips, beside those of the other `STARTS`.

  PSNR and the perceptual distance are means over clips; Fréchet distances are
  those of `packaged_suite`. `made` has all features, those of real clips too.
  """
  del real
  rows = made[0]
  scores = {}
  real_NTD = _frames(protocol, rows["real_pool"])
  for start in completions_lib.STARTS:
    fake_NTD = _frames(protocol, rows[f"{start}pool"])
    for name in ("hidden_psnr", "distance"):
      values.check_features(f"{start}{name}", rows[f"{start}{name}"])
    distances = {"distance": float(rows[f"{start}distance"].mean())}
    distances |= _frechet_of_frames(protocol, fake_NTD, real_NTD)
    scores[f"{start}hidden_psnr"] = float(rows[f"{start}hidden_psnr"].mean())
    scores |= {
      f"{start}{protocol.network}_{k}": v for k, v in distances.items()
    }
  return scores


def _frames(protocol: protocol_table.Protocol, pool: np.ndarray) -> np.ndarray:
  """Pooled features (N, T D) as those of each frame, float32 (N, T, D)."""
  width = feature_networks.NETWORKS[protocol.network].dims["pool"]
  return pool.reshape(len(pool), -1, width)


def _frechet_of_frames(
  protocol: protocol_table.Protocol, fake_NTD: np.ndarray, real_NTD: np.ndarray
) -> dict[str, float]:
  """Fréchet distance of all frames, and of their changes to the next frame."""
  pairs = {"frechet": (fake_NTD, real_NTD)}
  if min(fake_NTD.shape[1], real_NTD.shape[1]) > 1:
    pairs["frechet_differences"] = (
      np.diff(fake_NTD, axis=1),
      np.diff(real_NTD, axis=1),
    )
  return {
    name: frechet.distance(
      *(_gaussian(x.reshape(-1, x.shape[-1]), protocol.ddof) for x in pair)
    )
    for name, pair in pairs.items()
  }


def _packaged_requirements(
  protocol: protocol_table.Protocol, made: Features, real: Real
) -> dict[str, str]:
  """What the scores of `packaged_suite` need, by name."""
  reasons = {"frechet_differences": "needs clips of several frames"}
  sizes = f"{len(made['pool'])} made and {len(real.fold(0)['pool'])} real"
  for names, smallest in _OF_NEIGHBOURS:
    why = f"needs {smallest} clips of each kind and has {sizes}"
    reasons |= dict.fromkeys(names, why)
  return {f"{protocol.network}_{k}": v for k, v in reasons.items()}


def left_out(
  protocol: protocol_table.Protocol,
  metrics: Mapping[str, float],
  made: Features,
  real: Real,
) -> dict[str, str]:
  """Scores of a protocol that are not among `metrics`, and why not.

  The reasons go on from "no SCORE, which ...".
  """
  reasons = {}
  if protocol.measure == "pixels":
    reasons = frame_metrics.requirements("protocol")
  elif protocol.measure == "image_suite":
    reasons = _suite_requirements(made, real)
  elif protocol.measure == "packaged_suite":
    reasons = _packaged_requirements(protocol, made, real)
  elif protocol.measure == "completions":
    name = f"{protocol.network}_frechet_differences"
    why = "needs several hidden frames"
    names = (f"{start}{name}" for start in completions_lib.STARTS)
    reasons = dict.fromkeys(names, why)
  return {k: why for k, why in reasons.items() if k not in metrics}


def _suite_requirements(made: Features, real: Real) -> dict[str, str]:
  """What the scores of `image_suite` need, by name."""
  enough = f"needs {_IS_SAMPLES} samples and has {len(made['logits'])}"
  reasons = {"sfid": "needs mu_s and sigma_s in --reference, or clips"}
  reasons |= {f"is_{name}": enough for name in inception_score.CONVENTIONS}
  for names, smallest in (*_OF_NEIGHBOURS, (("kid", "kid_std"), _KID_CLIPS)):
    why = "needs real clips, not their statistics alone"
    if real.folds is not None:
      sizes = f"{len(made['pool3'])} made and {len(real.fold(0)['pool3'])} real"
      why = f"needs {smallest} clips of each kind and has {sizes}"
    reasons |= dict.fromkeys(names, why)
  return reasons


def fvd(
  protocol: protocol_table.Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """Fréchet distance of I3D's logits: mean over folds, and population std."""
  distances = []
  for index, fake in enumerate(made):
    reference = real.gaussians.get("")
    if reference is None:
      reference = _gaussian(real.fold(index)["logits"], protocol.ddof)
    generated = _gaussian(fake["logits"], protocol.ddof)
    distances.append(frechet.distance(generated, reference))
  return _over_folds("fvd", distances)


def reconstruction_fid(protocol, made, real) -> dict[str, float]:
  """FID of reconstructions against their originals; IS of each."""
  fake, original = made[0], real.fold(0)
  scores = {
    "rfid": frechet.distance(
      _gaussian(fake["pool3"], protocol.ddof),
      _gaussian(original["pool3"], protocol.ddof),
    )
  }
  for name, features in (("", fake), ("original_", original)):
    score = inception_score.inception_score(features["logits"], "one_split")
    scores[f"{name}is_one_split"] = score["is"]
  return scores


def reconstruction_fvd(protocol, made, real) -> dict[str, float]:
  """FVD of reconstructions, as in `fvd`."""
  return {f"r{k}": v for k, v in fvd(protocol, made, real).items()}


def perturbed_fid(protocol, made, real) -> dict[str, float]:
  """FID of decoded perturbed codes for each share, and their mean."""
  reference = _gaussian(real.fold(0)["pool3"], protocol.ddof)
  scores = {
    f"pfid_alpha_{alpha}": frechet.distance(
      _gaussian(made[0][f"pool3_alpha_{alpha}"], protocol.ddof), reference
    )
    for alpha in protocol_table.ALPHAS
  }
  return {"pfid": float(np.mean(list(scores.values()))), **scores}


def class_score(protocol, made, real) -> dict[str, float]:
  """Inception score of C3D's probabilities: mean over folds, as in `fvd`."""
  del protocol, real
  score = inception_score.score_of_probabilities
  fold_scores = [score(f["probabilities"], "one_split")["is"] for f in made]
  return _over_folds("is_c3d", fold_scores)


def pixels(protocol, made, real) -> dict[str, float]:
  """Means over clips of the scores by `pixel_scores`."""
  del protocol, real
  for name, scores_N1 in made[0].items():
    values.check_features(name, scores_N1)
  return {k: float(np.mean(v)) for k, v in made[0].items()}


def pixel_scores(
  video_BTHWC: np.ndarray,
  output_BTHWC: np.ndarray,
  lpips: frame_metrics.Score | None = None,
) -> dict[str, np.ndarray]:
  """Scores of each clip, mean over its frames, (B, 1); pixels are uint8.

  They are those of `frames.FRAME_METRICS` for which the frames are large
  enough, and LPIPS if it is given.

  Raises:
    ValueError: pixels that are not uint8, or videos of different shapes.
  """
  for name, video in (("video", video_BTHWC), ("output", output_BTHWC)):
    if video.dtype != np.uint8:
      raise ValueError(f"{name} must be uint8 in [0, 255], got {video.dtype}")
  real, fake = (x / np.float64(255.0) for x in (video_BTHWC, output_BTHWC))
  networks = {} if lpips is None else {"lpips": lpips}
  scores = frame_metrics.scores("protocol", real, fake, networks)
  return {k: v.mean(1, keepdims=True) for k, v in scores.items()}


def codes(protocol, made, real) -> dict[str, float]:
  """Use of the codebook by ids (N, t h w)."""
  del protocol, real
  vocabulary = int(made[0]["vocabulary"][0, 0])
  return frame_metrics.codebook(made[0]["ids"], vocabulary)


MEASURES = {
  "image_suite": image_suite,
  "packaged_suite": packaged_suite,
  "completions": completions,
  "fvd": fvd,
  "reconstruction_fid": reconstruction_fid,
  "reconstruction_fvd": reconstruction_fvd,
  "perturbed_fid": perturbed_fid,
  "class_score": class_score,
  "pixels": pixels,
  "codes": codes,
}

# Measures that are means over folds; the others read one set of made clips.
OF_FOLDS = ("fvd", "reconstruction_fvd", "class_score")


def measure(
  protocol: protocol_table.Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """The protocol's scores.

  Args:
    protocol: the protocol that is followed.
    made: features of each fold of made clips.
    real: features and statistics that they are compared with.
  """
  return MEASURES[protocol.measure](protocol, made, real)


def perturb_ids(
  ids: np.ndarray, bits: int, alpha: float, rng: np.random.Generator
) -> np.ndarray:
  """Replaces ids for pFID: with chance alpha by one of the DELTA nearest codes.

  For codes of `bits` signs those are the id itself, then its neighbours by the
  number of flipped bits; among equals those whose flipped bits come first, in
  the order of itertools.combinations. If there are fewer codes, it is all.

  Raises:
    ValueError: ids that are no integers of so many bits, or an alpha that is no
      share.
  """
  values.check_count("bits", bits, 1)
  values.check_number("alpha", alpha, 0.0, 1.0)
  values.check_ids("ids", ids, 2**bits)
  flips = np.asarray(_nearest_flips(bits), ids.dtype)
  drawn = ids ^ flips[rng.integers(len(flips), size=ids.shape)]
  return np.where(rng.random(ids.shape) < alpha, drawn, ids)


def _nearest_flips(bits: int) -> list[int]:
  flips = []
  for count in range(bits + 1):
    for places in itertools.combinations(range(bits), count):
      flips.append(sum(1 << place for place in places))
      if len(flips) == protocol_table.DELTA:
        return flips
  return flips


def _gaussian(features: np.ndarray, ddof: int) -> frechet.Gaussian:
  return frechet.streamed(features).gaussian(ddof)


def _over_folds(name: str, fold_scores: Sequence[float]) -> dict[str, float]:
  scores = {name: float(np.mean(fold_scores))}
  if len(fold_scores) > 1:
    scores[f"{name}_std"] = float(np.std(fold_scores))
    scores |= {f"{name}_fold_{i}": v for i, v in enumerate(fold_scores)}
  return scores
