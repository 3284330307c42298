"""An independent judge of digit clips: which digit, and how it moves.

It never sees the models' networks: a clip is reduced to the mean of its frames
after shifting each so that its centre of mass is in the middle, and a small
scikit-learn network classifies that. It is fitted on real training clips and
its accuracy on real held-out clips is reported with every score.
"""

import numpy as np
from scipy import ndimage
from sklearn import neural_network

_HIDDEN = 64


class DigitJudge:
  """Classifies clips, and gives two named features for Fréchet distances."""

  def __init__(self, video_BTHWC: np.ndarray, label_B: np.ndarray):
    """Fits on real clips (uint8, or float in [0, 1])."""
    self._network = neural_network.MLPClassifier(
      (_HIDDEN,),
      early_stopping=True,
      n_iter_no_change=20,
      max_iter=300,
      random_state=0,
    )
    aligned, _ = _align(video_BTHWC)
    self._network.fit(aligned, label_B)

  def classify(self, video_BTHWC: np.ndarray) -> np.ndarray:
    """Class of each clip: int (B,)."""
    return self._network.predict(_align(video_BTHWC)[0])

  def features(self, video_BTHWC: np.ndarray) -> dict[str, np.ndarray]:
    """{"appearance": (B, 64), "motion": (B, 2 T)}, float64.

    appearance: the judge's hidden layer, of the aligned mean frame.
    motion: centre of mass of each frame, in frame sizes.
    """
    aligned, centres_BT2 = _align(video_BTHWC)
    weights, bias = self._network.coefs_[0], self._network.intercepts_[0]
    return {
      "appearance": np.maximum(aligned @ weights + bias, 0.0),
      "motion": centres_BT2.reshape(len(centres_BT2), -1),
    }


def _align(video_BTHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean centred frame at half size, flat (B, n); centres (B, T, 2) in [0, 1].

  The centred frame is cropped to the half of the frame that a digit fills.
  """
  gray = np.asarray(video_BTHWC, np.float64).mean(-1)
  if np.asarray(video_BTHWC).dtype == np.uint8:
    gray = gray / 255.0
  batch, frames, height, width = gray.shape
  ys, xs = np.arange(height), np.arange(width)
  mass = gray.sum((2, 3)) + 1e-6
  cy = ((gray.sum(3) * ys).sum(-1) + 1e-6 * height / 2) / mass
  cx = ((gray.sum(2) * xs).sum(-1) + 1e-6 * width / 2) / mass
  out = np.zeros((batch, height // 2, width // 2))
  for b in range(batch):
    for t in range(frames):
      shift = (height / 4 - 0.5 - cy[b, t], width / 4 - 0.5 - cx[b, t])
      # Bilinear shift, then the top-left half: the digit's box.
      out[b] += ndimage.shift(gray[b, t], shift, order=1)[
        : height // 2, : width // 2
      ]
  out /= frames
  half = out.reshape(batch, height // 4, 2, width // 4, 2).mean((2, 4))
  centres = np.stack([cy / height, cx / width], -1)
  return half.reshape(batch, -1), centres
