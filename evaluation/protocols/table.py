"""The protocols of published tables, by name: what is measured, on what.

Each is plain data, for people and for the result file.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from evaluation.metrics import frames
from evaluation.metrics import inception_score

ALPHAS = (0.1, 0.25, 0.5)  # shares of the tokens that pFID replaces
DELTA = 100  # nearest codes that pFID draws from, the token's own included


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a number of a table is made."""

  name: str
  measure: str  # key of MEASURES in measures.py
  network: str  # feature network, a key of NETWORKS; "": none
  # Kind of made clips: "samples", or, of real ones, "reconstructions" or
  # "completions" of the frames that `task` hides.
  made: str
  num: int  # number of made clips in each fold; 0: as many as there are
  folds: int  # number of independent sets of made clips, for mean and std
  frames: int  # number of frames that count, from the first; 0: all
  dataset: str  # start of the data set's name; "": any
  splits: tuple[str, ...]  # splits that the real clips are from
  real_num: (
    int  # number of real clips in each fold; 0: as many as made; -1: all
  )
  window: str  # frames of a real video, by a rule of input_pipeline/windows.py
  crop: str  # part of the frame, by a rule of input_pipeline/crops.py; "", here
  # or in window: the rule of the config's eval_crop or eval_window
  resize: int  # side in pixels before the network resizes; 0: unchanged
  variant: str  # way in which the network resizes, of its variants; "": usual
  task: str  # task that samples are generated for
  condition_frames: int  # number of real frames that the task is given; 0: none
  uint8: str  # rule from [0, 1] to uint8: "truncate" x * 255, or "round" it
  ddof: int  # degrees of freedom off n: covariances are sums over n - ddof
  in_turn: bool  # whether the clips of its data set come again up to `num`
  source: str  # publication or code that sets these rules


def make(name: str, measure: str, network: str, **fields) -> Protocol:
  values = {
    **dict(made="samples", folds=1, frames=1, real_num=0, window="centre"),
    **dict(crop="centre", resize=0, task="class_conditional", uint8="round"),
    **dict(condition_frames=0, variant="", in_turn=False),
    **dict(ddof=1, splits=("held_out",)),
    **fields,
  }
  return Protocol(name=name, measure=measure, network=network, **values)


_MAGVIT = "MAGVIT (2212.05199) appendix B.3 and google-research/magvit"
_ALL = (
  make(
    *("adm_imagenet", "image_suite", "inception"),
    **dict(num=50_000, dataset="imagenet", splits=("train",), crop="adm"),
    **dict(real_num=-1, uint8="truncate"),
    source="guided-diffusion's evaluator: FID, sFID, IS in splits of"
    f" {inception_score.ADM_SPLIT}, precision, recall",
  ),
  make(
    *("rfid_imagenet_val", "reconstruction_fid", "inception"),
    **dict(made="reconstructions", num=50_000, dataset="imagenet"),
    source="originals against their reconstructions, one crop and size",
  ),
  make(
    *("pfid", "perturbed_fid", "inception"),
    **dict(made="reconstructions", num=50_000, dataset="imagenet"),
    source="RobusTok's latent perturbation; the grid is this project's: alpha"
    f" {ALPHAS}, delta {DELTA}; nearest by Hamming distance, then by bit order",
  ),
  make(
    *("magvit_ucf101_fvd", "fvd", "i3d"),
    **dict(num=10_000, folds=4, frames=16, dataset="ucf101"),
    **dict(splits=("train",), window="random", crop="random"),
    source=_MAGVIT,
  ),
  make(
    *("magvit_k600_fvd", "fvd", "i3d"),
    **dict(num=50_000, folds=4, frames=16, dataset="kinetics600"),
    **dict(window="ends", crop="three", resize=64, task="frame_prediction"),
    condition_frames=5,
    source=f"{_MAGVIT}: 64 x 64 by central crop and bilinear",
  ),
  make(
    *("bair_fvd", "fvd", "i3d"),
    **dict(num=25_600, folds=4, frames=16, dataset="bair", real_num=-1),
    **dict(window="first", task="frame_prediction"),
    condition_frames=1,
    source=f"{_MAGVIT}: 256 videos, each predicted 100 times",
  ),
  make(
    *("styleganv_fvd", "fvd", "i3d"),
    **dict(num=2048, frames=16, dataset="ucf101", ddof=0),
    **dict(splits=("train", "held_out"), window="random"),
    variant="half_pixel",
    source="StyleGAN-V: 2048 against 2048, covariances over n, frames resized"
    " as torch does",
  ),
  make(
    *("ucf101_rfvd", "reconstruction_fvd", "i3d"),
    **dict(made="reconstructions", num=10_000, frames=16, dataset="ucf101"),
    **dict(splits=("train",), in_turn=True),
    source=f"{_MAGVIT}, tables 7 and 14; MAGVIT-v2's 5c. Central clips, in"
    " turn until there are 10,000",
  ),
  make(
    *("is_c3d", "class_score", "c3d"),
    **dict(num=10_000, folds=4, frames=16, dataset="ucf101"),
    source=f"{_MAGVIT}: C3D of TGAN2, one split",
  ),
  make(
    *("reconstruction", "pixels", ""),
    **dict(made="reconstructions", num=0, frames=0, dataset=""),
    **dict(window="", crop=""),
    source=f"PSNR in {frames.PSNR_RULE}; per frame, mean over frames, then"
    " clips (evaluation/metrics/frames.py); LPIPS v0.1 of VGG16, products at"
    " the highest precision",
  ),
  make(
    *("codebook", "codes", ""),
    **dict(made="reconstructions", num=0, frames=0, dataset=""),
    **dict(window="", crop=""),
    source="histogram of the ids of whole clips, without smoothing",
  ),
  *(
    make(
      *(f"{network}_{made}", "packaged_suite", network),
      **dict(made=made, num=0, frames=0, dataset="", window="", crop=""),
      source=f"this project's: Fréchet distance on {network}'s pooled features"
      " of frames, and of their differences from frame to frame; precision,"
      " recall, density and coverage of clips by their mean. Not FID, not FVD",
    )
    for network in ("efficientnet_lite0", "squeezenet")
    for made in ("samples", "reconstructions")
  ),
  *(
    make(
      *(f"{network}_{task}", "completions", network),
      **dict(made="completions", task=task, num=0, frames=0, dataset=""),
      **dict(window="", crop=""),
      source="this project's: of the hidden frames alone, PSNR of a clip, the"
      f" perceptual distance by {network}'s layers, and the Fréchet distance on"
      " its pooled features of frames and of their differences from frame to"
      " frame, beside a completion without a model. Not LPIPS, FID or FVD",
    )
    for network in ("efficientnet_lite0", "squeezenet")
    for task in ("frame_prediction", "interpolation")
  ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


_OF_LAYERS = ("linear_probe",)  # protocols of a model's layers, not of clips


def get(name: str) -> Protocol:
  """The protocol of a name; ValueError for an unknown one."""
  if name not in PROTOCOLS:
    known = sorted({*PROTOCOLS, *_OF_LAYERS})
    raise ValueError(f"protocol {name!r} must be one of {known}")
  return PROTOCOLS[name]


def uint8_rule(frames: int) -> str:
  """The rule to uint8 of all protocols that measure samples of so many frames.

  Samples that are written for protocols to measure follow it.
  """
  (rule,) = {
    protocol.uint8
    for protocol in _ALL
    if protocol.made == "samples" and (protocol.frames == 1) == (frames == 1)
  }
  return rule


def reported_name(protocol: Protocol, actual: Mapping[str, Any]) -> str:
  """The protocol's name, followed by the fields that differ from it.

  "magvit_ucf101_fvd@256x1,dataset=digits" marks a number that no table may hold
  without saying so; "256x1" counts made clips and folds.

  Args:
    protocol: the protocol that was requested.
    actual: its fields as they were in the run. Where the protocol leaves a
      field open (dataset ""), every value follows it. "all" is the number of
      clips where it leaves that open (num 0), "real" the number of real clips
      if it is below the protocol's, a "seed" other than 0 is named, and so is
      "data", a folder other than the config's.
  """
  differ = []
  num, folds = actual["num"], actual["folds"]
  usual = protocol.num or actual.get("all", num)
  if (num, folds) != (usual, protocol.folds):
    differ.append(f"{num}x{folds}")
  named = ("real", "seed", "data")
  differ += [f"{k}={actual[k]}" for k in named if actual.get(k)]
  for field in sorted(set(actual) - {"num", "folds", "all", *named}):
    wanted = getattr(protocol, field)
    if wanted and actual[field] != wanted:
      value = actual[field]
      value = "+".join(value) if isinstance(value, tuple) else value
      differ.append(f"{field}={value}")
  return "@".join([protocol.name, *([",".join(differ)] if differ else [])])
