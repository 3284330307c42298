"""The protocols of published tables, by name: what is measured, on what.

Each is data, for people and for the result file, and one function from features
to scores. Who makes the features, from which pixels, is magvit/score.py's.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from evaluation import frechet
from evaluation import inception_score
from evaluation import kernels
from evaluation import manifold
from evaluation import reconstruction

# Rows by name: float32 (N, width), or what a clip scored, (N, 1).
Features = Mapping[str, np.ndarray]

ALPHAS = (0.1, 0.25, 0.5)  # of pfid: share of the tokens that are replaced
DELTA = 100  # of pfid: each by one of its nearest codes, itself included


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a number of a table is made."""

  name: str
  measure: str  # key of MEASURES
  network: str  # whose features; "": none
  made: str  # "samples" or "reconstructions" of the real clips
  num: int  # made clips of each fold
  folds: int  # independent ones: mean and std are over them
  frames: int  # that the network sees, the first of each clip; 0: all
  dataset: str
  splits: tuple[str, ...]  # of the real clips
  real_num: int  # of each fold; 0: as many as made; -1: every clip, once
  window: str  # which frames of a real video: input_pipeline/windows.py
  crop: str  # which part of the frame: input_pipeline/crops.py; "" in either:
  # the config's eval_window, eval_crop
  resize: int  # pixels, before the network's own resize; 0: none
  task: str  # of samples
  condition_frames: int  # given to it; 0: none
  uint8: str  # from [0, 1]: "truncate" x * 255, or "round" it
  ddof: int  # of covariances
  source: str


def _protocol(name: str, measure: str, network: str, **fields) -> Protocol:
  values = {
    **dict(made="samples", folds=1, frames=1, real_num=0, window="centre"),
    **dict(crop="centre", resize=0, task="class_conditional", uint8="round"),
    **dict(condition_frames=0),
    **dict(ddof=1, splits=("held_out",)),
    **fields,
  }
  return Protocol(name=name, measure=measure, network=network, **values)


_MAGVIT = "MAGVIT (2212.05199) appendix B.3 and google-research/magvit"
_ALL = (
  _protocol(
    *("adm_imagenet", "image_suite", "inception"),
    **dict(num=50_000, dataset="imagenet", splits=("train",), crop="adm"),
    **dict(real_num=-1, uint8="truncate"),
    source="guided-diffusion's evaluator: FID, sFID, IS, precision, recall",
  ),
  _protocol(
    *("rfid_imagenet_val", "reconstruction_fid", "inception"),
    **dict(made="reconstructions", num=50_000, dataset="imagenet"),
    source="originals against their reconstructions, one crop and size",
  ),
  _protocol(
    *("pfid", "perturbed_fid", "inception"),
    **dict(made="reconstructions", num=50_000, dataset="imagenet"),
    source="RobusTok's latent perturbation; the grid is this project's: alpha"
    f" {ALPHAS}, delta {DELTA}; nearest by Hamming distance, then by bit order",
  ),
  _protocol(
    *("magvit_ucf101_fvd", "fvd", "i3d"),
    **dict(num=10_000, folds=4, frames=16, dataset="ucf101"),
    **dict(splits=("train",), window="random", crop="random"),
    source=_MAGVIT,
  ),
  _protocol(
    *("magvit_k600_fvd", "fvd", "i3d"),
    **dict(num=50_000, folds=4, frames=16, dataset="kinetics600"),
    **dict(window="ends", crop="three", resize=64, task="frame_prediction"),
    condition_frames=5,
    source=f"{_MAGVIT}: 64 x 64 by central crop and bilinear",
  ),
  _protocol(
    *("bair_fvd", "fvd", "i3d"),
    **dict(num=25_600, folds=4, frames=16, dataset="bair", real_num=-1),
    **dict(window="first", task="frame_prediction"),
    condition_frames=1,
    source=f"{_MAGVIT}: 256 videos, each predicted 100 times",
  ),
  _protocol(
    *("styleganv_fvd", "fvd", "i3d"),
    **dict(num=2048, frames=16, dataset="ucf101", ddof=0),
    **dict(splits=("train", "held_out"), window="random"),
    source="StyleGAN-V: 2048 against 2048, covariances over n",
  ),
  _protocol(
    *("ucf101_rfvd", "reconstruction_fvd", "i3d"),
    **dict(made="reconstructions", num=10_000, frames=16, dataset="ucf101"),
    splits=("train",),
    source=f"{_MAGVIT}, tables 7 and 14; MAGVIT-v2's 5c. Central clips, in"
    " turn until there are 10,000",
  ),
  _protocol(
    *("is_c3d", "class_score", "c3d"),
    **dict(num=10_000, folds=4, frames=16, dataset="ucf101"),
    source=f"{_MAGVIT}: C3D of TGAN2, one split",
  ),
  _protocol(
    *("reconstruction", "pixels", ""),
    **dict(made="reconstructions", num=0, frames=0, dataset=""),
    **dict(window="", crop=""),
    source="per frame, mean over frames, then clips (evaluation/"
    "reconstruction.py); LPIPS v0.1 of VGG16",
  ),
  _protocol(
    *("codebook", "codes", ""),
    **dict(made="reconstructions", num=0, frames=0, dataset=""),
    **dict(window="", crop=""),
    source="histogram of the ids of whole clips, without smoothing",
  ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def get(name: str) -> Protocol:
  """Raises ValueError for an unknown name."""
  if name not in PROTOCOLS:
    raise ValueError(f"protocol {name!r} must be one of {sorted(PROTOCOLS)}")
  return PROTOCOLS[name]


def reported_name(protocol: Protocol, actual: Mapping[str, Any]) -> str:
  """The protocol's name if it was followed, else with what was not.

  "magvit_ucf101_fvd@256x1,dataset=digits": a number that no table may hold
  without saying so. "256x1" is made clips and folds.

  Args:
    protocol: which was asked for.
    actual: fields of it, as they were. Of a protocol that leaves a field open
      (num 0, dataset "") any value is as asked.
  """
  differ = []
  num, folds = actual["num"], actual["folds"]
  if protocol.num and (num, folds) != (protocol.num, protocol.folds):
    differ.append(f"{num}x{folds}")
  for field in sorted(set(actual) - {"num", "folds"}):
    wanted = getattr(protocol, field)
    if wanted and actual[field] != wanted:
      value = actual[field]
      value = "+".join(value) if isinstance(value, tuple) else value
      differ.append(f"{field}={value}")
  return "@".join([protocol.name, *([",".join(differ)] if differ else [])])


@dataclasses.dataclass(frozen=True)
class Real:
  """What the made clips are compared with; None of what there is not.

  `folds` has features for each fold, or one for all of them. `gaussians` are
  published statistics by suffix ("" of pool3, "_s" of spatial); they go before
  those of the features.
  """

  folds: Sequence[Features] | None = None
  gaussians: Mapping[str, frechet.Gaussian] = dataclasses.field(
    default_factory=dict
  )

  def fold(self, index: int) -> Features:
    return self.folds[index if len(self.folds) > 1 else 0]


def image_suite(
  protocol: Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """FID, sFID, IS by each convention, and what two sets of features give."""
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
    if len(fake["logits"]) >= 10:
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
  if smallest >= 1000:
    scores |= kernels.kid(fake["pool3"], real.fold(0)["pool3"])
  return scores


def fvd(
  protocol: Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """Fréchet distance of I3D's logits: mean over folds, and population std."""
  values = []
  for index, fake in enumerate(made):
    reference = real.gaussians.get("")
    if reference is None:
      reference = _gaussian(real.fold(index)["logits"], protocol.ddof)
    own = _gaussian(fake["logits"], protocol.ddof)
    values.append(frechet.distance(own, reference))
  return _over_folds("fvd", values)


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
  """As fvd."""
  return {f"r{k}": v for k, v in fvd(protocol, made, real).items()}


def perturbed_fid(protocol, made, real) -> dict[str, float]:
  """FID of decoded perturbed codes for each share, and their mean."""
  reference = _gaussian(real.fold(0)["pool3"], protocol.ddof)
  scores = {
    f"pfid_alpha_{alpha}": frechet.distance(
      _gaussian(made[0][f"pool3_alpha_{alpha}"], protocol.ddof), reference
    )
    for alpha in ALPHAS
  }
  return {"pfid": float(np.mean(list(scores.values()))), **scores}


def class_score(protocol, made, real) -> dict[str, float]:
  """Inception score of C3D's probabilities: over folds as fvd."""
  del protocol, real
  score = inception_score.score_of_probabilities
  values = [score(f["probabilities"], "one_split")["is"] for f in made]
  return _over_folds("is_c3d", values)


def pixels(protocol, made, real) -> dict[str, float]:
  """Means over clips of what `pixel_scores` found."""
  del protocol, real
  return {k: float(np.mean(v)) for k, v in made[0].items()}


def pixel_scores(
  video_BTHWC: np.ndarray, output_BTHWC: np.ndarray
) -> dict[str, np.ndarray]:
  """Scores of each clip, mean over its frames, (B, 1); pixels are uint8.

  SSIM in every convention whose window fits, MS-SSIM where frames are large.
  """
  real, fake = (x / np.float64(255.0) for x in (video_BTHWC, output_BTHWC))
  scores = {"psnr": reconstruction.psnr(real, fake)}
  scores["psnr_first_frame"] = scores["psnr"][:, :1]
  smallest = min(real.shape[2:4])
  for mode in reconstruction.SSIM_MODES if smallest >= 11 else ():
    scores[f"ssim_{mode}"] = reconstruction.ssim(real, fake, mode)
  if smallest >= reconstruction.MS_SSIM_MIN_SIZE:
    scores["ms_ssim"] = reconstruction.ms_ssim(real, fake)
  return {k: v.mean(1, keepdims=True) for k, v in scores.items()}


def codes(protocol, made, real) -> dict[str, float]:
  """Use of the codebook by ids (N, t h w)."""
  del protocol, real
  vocabulary = int(made[0]["vocabulary"][0, 0])
  return reconstruction.codebook(made[0]["ids"], vocabulary)


MEASURES = {
  "image_suite": image_suite,
  "fvd": fvd,
  "reconstruction_fid": reconstruction_fid,
  "reconstruction_fvd": reconstruction_fvd,
  "perturbed_fid": perturbed_fid,
  "class_score": class_score,
  "pixels": pixels,
  "codes": codes,
}


def measure(
  protocol: Protocol, made: Sequence[Features], real: Real
) -> dict[str, float]:
  """The protocol's scores.

  Args:
    protocol: which.
    made: features of each fold of made clips.
    real: of what they are compared with.
  """
  return MEASURES[protocol.measure](protocol, made, real)


def perturb_ids(
  ids: np.ndarray, bits: int, alpha: float, rng: np.random.Generator
) -> np.ndarray:
  """pFID's: each id, with chance alpha, becomes one of its DELTA nearest.

  Of codes of `bits` signs those are the id itself, then its neighbours by the
  number of flipped bits; among equals those whose flipped bits come first, as
  itertools.combinations counts them. Of fewer codes, all of them.
  """
  flips = np.asarray(_nearest_flips(bits), ids.dtype)
  drawn = ids ^ flips[rng.integers(len(flips), size=ids.shape)]
  return np.where(rng.random(ids.shape) < alpha, drawn, ids)


def _nearest_flips(bits: int) -> list[int]:
  flips = []
  for count in range(bits + 1):
    for places in itertools.combinations(range(bits), count):
      flips.append(sum(1 << place for place in places))
      if len(flips) == DELTA:
        return flips
  return flips


def _gaussian(features: np.ndarray, ddof: int) -> frechet.Gaussian:
  return frechet.streamed(features).gaussian(ddof)


def _over_folds(name: str, values: Sequence[float]) -> dict[str, float]:
  scores = {name: float(np.mean(values))}
  if len(values) > 1:
    scores[f"{name}_std"] = float(np.std(values))
    scores |= {f"{name}_fold_{i}": v for i, v in enumerate(values)}
  return scores
