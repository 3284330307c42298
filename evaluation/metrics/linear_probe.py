"""Linear probes: how well a class can be read from features by a linear map.

Ridge regression to one-hot classes, in closed form and float64; the penalty is
chosen on a fifth of the training features that the fit has not seen.
"""

import dataclasses

import numpy as np

from evaluation import values

# Penalties, as shares of the mean square of the normalised features.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_VALIDATION = 5  # every fifth example chooses the penalty


@dataclasses.dataclass(frozen=True)
class Probe:
  """A linear classifier on normalised features."""

  mean_D: np.ndarray
  scale_D: np.ndarray
  weights_DV: np.ndarray
  bias_V: np.ndarray
  penalty: float

  def logits(self, features_ND: np.ndarray) -> np.ndarray:
    """Scores of the classes, float64 (N, V).

    Raises:
      ValueError: features that are not finite, or of another width.
    """
    values.check_features("features", features_ND, 1, "a probe")
    if features_ND.shape[1] != len(self.mean_D):
      raise ValueError(
        f"features are {features_ND.shape[1]} wide, and the probe was fitted on"
        f" {len(self.mean_D)}: give those of the same layer"
      )
    x_ND = (features_ND.astype(np.float64) - self.mean_D) / self.scale_D
    return x_ND @ self.weights_DV + self.bias_V

  def accuracy(self, features_ND: np.ndarray, label_N: np.ndarray) -> float:
    """Share of the features whose class is the likeliest."""
    _check_labels(label_N, len(features_ND), len(self.bias_V))
    return float((self.logits(features_ND).argmax(1) == label_N).mean())


def fit(features_ND: np.ndarray, label_N: np.ndarray, classes: int) -> Probe:
  """Fits a probe, with the penalty that serves unseen examples best.

  Args:
    features_ND: float of any width.
    label_N: classes in 0..classes - 1.
    classes: number of classes.

  Raises:
    ValueError: features that are not finite, fewer than ten examples, or labels
      that are not a class of each.
  """
  values.check_features("features", features_ND, 2 * _VALIDATION, "a probe")
  _check_labels(label_N, len(features_ND), classes)
  chosen_N = np.arange(len(label_N)) % _VALIDATION == _VALIDATION - 1
  right = [
    _fit(features_ND[~chosen_N], label_N[~chosen_N], classes, penalty).accuracy(
      features_ND[chosen_N], label_N[chosen_N]
    )
    for penalty in PENALTIES
  ]
  # Among equal ones it is the largest penalty, the simplest classifier.
  best = len(right) - 1 - int(np.argmax(right[::-1]))
  return _fit(features_ND, label_N, classes, PENALTIES[best])


def _fit(features_ND, label_N, classes: int, penalty: float) -> Probe:
  x_ND = features_ND.astype(np.float64)
  mean_D = x_ND.mean(0)
  # A feature that never changes tells nothing, and stays 0.
  scale_D = np.maximum(x_ND.std(0), 1e-6)
  x_ND = (x_ND - mean_D) / scale_D
  y_NV = np.eye(classes)[label_N]
  bias_V = y_NV.mean(0)
  count, width = x_ND.shape
  gram_DD = x_ND.T @ x_ND + penalty * count * np.eye(width)
  weights_DV = np.linalg.solve(gram_DD, x_ND.T @ (y_NV - bias_V))
  return Probe(mean_D, scale_D, weights_DV, bias_V, penalty)


def _check_labels(label_N: np.ndarray, examples: int, classes: int) -> None:
  """Raises ValueError unless each example has a label in 0..classes - 1."""
  if label_N.shape != (examples,) or label_N.dtype.kind not in "iu":
    raise ValueError(
      f"label of shape {label_N.shape} and {label_N.dtype} must be a whole"
      f" number for each of the {examples} examples"
    )
  if label_N.min() < 0 or label_N.max() >= classes:
    raise ValueError(
      f"label has {label_N.min()}..{label_N.max()}, and the {classes} classes"
      f" are 0..{classes - 1}"
    )
