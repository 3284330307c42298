"""What the report says of scores and curves: names, units and meanings."""

import dataclasses
import fnmatch

from evaluation.metrics import frames as frame_metrics


@dataclasses.dataclass(frozen=True)
class Words:
  """Words on a score: its name, its unit and what it means."""

  label: str
  unit: str = ""
  meaning: str = ""


_BETTER = "higher is better"
_WORSE = "lower is better"
# Patterns of names, the first that matches; metrics of frames have their own.
_SCORES = {
  "usage": Words("Codebook use", "", "share of the codes hit at least once"),
  "codes_used": Words("Codes used", "codes", "codes hit at least once"),
  "codes": Words("Codes", "codes", "size of the vocabulary"),
  "tokens": Words("Tokens", "tokens", "counted; no more codes can be hit"),
  "entropy_bits": Words("Entropy", "bits", "of the histogram of the codes"),
  "perplexity": Words("Perplexity", "codes", "2 to the power of the entropy"),
  "class_accuracy": Words(
    "Class accuracy", "", "samples that a judge puts into their class"
  ),
  "accuracy": Words("Accuracy", "", f"of the likeliest class; {_BETTER}"),
  "top5_accuracy": Words(
    "Top-5 accuracy", "", "the class is among the five likeliest"
  ),
  "masked_accuracy": Words(
    "Accuracy", "", "of masked tokens, every part right"
  ),
  "masked_loss": Words("Loss", "nats", f"of a masked token; {_WORSE}"),
  "hidden_psnr": Words("PSNR", "dB", f"of the pixels to complete; {_BETTER}"),
  "mean_psnr": Words("PSNR", "dB", f"mean over files; {_BETTER}"),
  "mean_ssim": Words("SSIM", "", f"mean over files; {_BETTER}"),
  "bits_per_pixel": Words("Size", "bits/pixel", _WORSE),
  "fitting": Words("Fitting", "", "share of clips that it codes in these bits"),
  "files": Words("Files", "files", "scored"),
  "frames": Words("Frames", "frames", "scored"),
  "failed": Words("Failed", "files", "left out; the result file says why"),
  "frechet_appearance_distance": Words(
    "Fréchet distance", "", f"of the looks, by a judge of digits; {_WORSE}"
  ),
  "frechet_motion_distance": Words(
    "Fréchet distance", "", f"of the motion, by centres of mass; {_WORSE}"
  ),
  "*fvd_std": Words("FVD, spread", "", "standard deviation over the folds"),
  "*fvd_fold*": Words("FVD of a fold", "", _WORSE),
  "*fvd": Words("FVD", "", f"Fréchet distance of I3D's features; {_WORSE}"),
  "pfid*": Words("FID of perturbed codes", "", _WORSE),
  "sfid": Words("sFID", "", f"FID by features of places; {_WORSE}"),
  "*fid": Words("FID", "", f"Fréchet distance of Inception's; {_WORSE}"),
  "*is_*": Words("Inception score", "", _BETTER),
  "kid*": Words("KID", "", f"kernel distance of Inception's; {_WORSE}"),
  "precision": Words("Precision", "", "made clips that look like real ones"),
  "recall": Words("Recall", "", "real clips that made ones look like"),
  "density": Words("Density", "", f"of real clips at made ones; {_BETTER}"),
  "coverage": Words("Coverage", "", "real clips with a made one nearby"),
}
for _network, _label in (
  ("efficientnet_lite0", "EfficientNet-Lite0"),
  ("squeezenet", "SqueezeNet"),
):
  _SCORES |= {
    f"{_network}_distance": Words(
      "Perceptual distance",
      "",
      f"by {_label}'s layers, which is not LPIPS; {_WORSE}",
    ),
    f"{_network}_frechet": Words(
      "Fréchet distance",
      "",
      f"on {_label}'s pooled features of frames, which is not FID; {_WORSE}",
    ),
    f"{_network}_frechet_differences": Words(
      "Fréchet distance of changes",
      "",
      f"on changes of {_label}'s pooled features from frame to frame, which is"
      f" not FVD; {_WORSE}",
    ),
    **{
      f"{_network}_{name}": dataclasses.replace(
        _SCORES[name],
        meaning=f"{_SCORES[name].meaning}, by {_label}'s pooled features",
      )
      for name in ("precision", "recall", "density", "coverage")
    },
  }
_PREFIXES = {
  "tokenized_baseline_": "without a model, through the tokens: ",
  "tokenized_": "true clips through the tokens: ",
  "baseline_": "without a model: ",
  "real_": "of real clips: ",
}
# Those of benchmarks/film_codecs.py: which clips, and how they are coded.
for _clips, _which in (
  ("held_out", "held-out clips"),
  ("train", "clips of training"),
  ("live_action", "live action"),
):
  _PREFIXES |= {
    f"{_clips}_tokens_": f"{_which} through the tokens: ",
    f"{_clips}_bicubic_": f"{_which} by bicubic down-and-up: ",
    f"{_clips}_x264_51_": f"{_which} by x264 at its lowest rate: ",
    f"{_clips}_x264_": f"{_which} by x264 in the tokens' bits: ",
  }


def score(name: str) -> Words:
  """Words on a metric of a result; its name where there are none."""
  for prefix, said in _PREFIXES.items():
    if name.startswith(prefix):
      words = score(name.removeprefix(prefix))
      return dataclasses.replace(
        words, meaning=f"{said}{words.meaning}".rstrip(": ")
      )
  metric = frame_metrics.FRAME_METRICS.get(name)
  if metric is not None:
    better = _WORSE if metric.lower_is_better else _BETTER
    return Words(metric.label, metric.unit, better)
  for pattern, words in _SCORES.items():
    if fnmatch.fnmatch(name, pattern):
      return words
  return Words(name)


# Curves by what people look for first; the last pattern takes the rest.
_CURVES = (
  ("generator/reconstruction", "reconstruction", "loss"),
  ("*held_out_reconstruction/*", "*psnr", "*ssim", "*accuracy"),
  ("*codebook*", "*codes_used", "*dead_bits", "*entropy"),
  ("eval/*",),
  ("generator/*", "*"),
  ("learning_rate", "steps_per_second", "data_wait"),
  ("health/*", "image/*"),
  ("*discriminator/*",),
)
_REST = next(i for i, patterns in enumerate(_CURVES) if "*" in patterns)


def place(name: str) -> int:
  """Rank of a curve on the page: reconstruction, codebook, ...,

  and those of the discriminator, which few can read, behind all others.
  """
  if "discriminator/" in name:
    return len(_CURVES) - 1
  for rank, patterns in enumerate(_CURVES):
    if rank != _REST and any(fnmatch.fnmatch(name, p) for p in patterns):
      return rank
  return _REST
