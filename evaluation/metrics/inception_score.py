"""Inception score (Salimans et al. 2016): exp of the mean KL(p(y|x) || p(y)).

Three conventions are in use and differ by a percent or more:

  adm: consecutive splits of 5000 examples, or as many as one says, the last one
    maybe shorter; mean over splits (guided-diffusion).
  torch_fidelity: examples shuffled by RandomState(2020), 10 equal splits; mean
    and population std over splits.
  one_split: all examples at once, log(p + 1e-16) (MaskBit, TiTok, tfgan).

Probabilities and sums are float64.
"""

import numpy as np

from evaluation import values

CONVENTIONS = ("adm", "torch_fidelity", "one_split")
ADM_SPLIT = 5000  # examples
_FIDELITY_SPLITS = 10


def inception_score(
  logits_NV: np.ndarray, convention: str, split_size: int | None = None
) -> dict[str, float]:
  """{"is": mean over splits, "is_std": population std if there are several}.

  Args:
    logits_NV: the classifier's outputs before softmax.
    convention: one of CONVENTIONS.
    split_size: number of examples in each split of "adm"; None for ADM_SPLIT.
      The others have no splits of a size.

  Raises:
    ValueError: another convention, too few examples for its splits, a split of
      no size, or logits that are not finite.
  """
  values.check_features("logits", logits_NV)
  return score_of_probabilities(_softmax(logits_NV), convention, split_size)


def score_of_probabilities(
  probabilities_NV: np.ndarray, convention: str, split_size: int | None = None
) -> dict[str, float]:
  """Inception score of class probabilities, as `inception_score`.

  Raises:
    ValueError: as `inception_score`, or rows that do not sum to 1.
  """
  if convention not in CONVENTIONS:
    raise ValueError(f"convention={convention!r} must be one of {CONVENTIONS}")
  if split_size is not None:
    values.check_count("split_size", split_size, 1)
    if convention != "adm":
      raise ValueError(
        f"split_size={split_size} is for the convention 'adm', and"
        f" {convention!r} has no splits of a size: leave it out"
      )
  values.check_probabilities("probabilities", probabilities_NV)
  p_NV = np.asarray(probabilities_NV, np.float64)
  num = len(p_NV)
  needed = _FIDELITY_SPLITS if convention == "torch_fidelity" else 1
  if num < needed:
    raise ValueError(
      f"the inception score {convention!r} needs at least {needed} examples"
      f" (examples, classes), got {p_NV.shape}"
    )
  floor = 0.0
  if convention == "adm":
    size = split_size or ADM_SPLIT
    splits = [p_NV[i : i + size] for i in range(0, num, size)]
  elif convention == "torch_fidelity":
    p_NV = p_NV[np.random.RandomState(2020).permutation(num)]
    bounds = [i * num // _FIDELITY_SPLITS for i in range(_FIDELITY_SPLITS + 1)]
    splits = [p_NV[i:j] for i, j in zip(bounds[:-1], bounds[1:], strict=True)]
  else:
    splits, floor = [p_NV], 1e-16
  split_scores = [_score_split(split, floor) for split in splits]
  scores = {"is": float(np.mean(split_scores))}
  if len(split_scores) > 1:
    scores["is_std"] = float(np.std(split_scores))
  return scores


def _score_split(p_NV: np.ndarray, floor: float) -> float:
  q_V = p_NV.mean(0)
  # 0 log 0 is 0; where q is 0, so is every p.
  with np.errstate(divide="ignore", invalid="ignore"):
    terms_NV = p_NV * (np.log(p_NV + floor) - np.log(q_V + floor))
  return float(np.exp(np.where(p_NV > 0, terms_NV, 0.0).sum(1).mean()))


def _softmax(logits_NV: np.ndarray) -> np.ndarray:
  shifted_NV = np.asarray(logits_NV, np.float64)
  shifted_NV = shifted_NV - shifted_NV.max(1, keepdims=True)
  p_NV = np.exp(shifted_NV)
  return p_NV / p_NV.sum(1, keepdims=True)
