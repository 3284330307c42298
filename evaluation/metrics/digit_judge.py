"""An independent judge of digit clips: which digit, and how it moves.

It never sees the models' networks: a clip is reduced to the mean of its frames
after shifting each so that its centre of mass is in the middle, and a small
scikit-learn network classifies that. It is fitted on real training clips and
its accuracy on real held-out clips is reported with every score.
"""

import numpy as np

from evaluation import values

_HIDDEN = 64
_SIDE = 12  # pixels: side of the centred mean frame


class DigitJudge:
  """Classifies clips, and gives two named features for Fréchet distances."""

  def __init__(self, video_BTHWC: np.ndarray, label_B: np.ndarray):
    """Fits on real clips (uint8, or float in [0, 1]).

    Raises:
      ValueError: pixels that cannot be, or not one class, an integer of at
        least 0, for each clip.
    """
    label_B = np.asarray(label_B)
    if label_B.shape != np.shape(video_BTHWC)[:1]:
      raise ValueError(
        f"labels of shape {label_B.shape} must be one for each of the clips,"
        f" whose shape is {np.shape(video_BTHWC)}"
      )
    values.check_ids("labels", label_B, np.iinfo(np.int64).max)
    from sklearn import neural_network  # It takes long to import.

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
    """Class of each clip: int (B,); ValueError for pixels that cannot be."""
    aligned, _ = _align(video_BTHWC)
    return np.asarray(self._network.predict(aligned))

  def features(self, video_BTHWC: np.ndarray) -> dict[str, np.ndarray]:
    """{"appearance": (B, 64), "motion": (B, 2 T)}, float64.

    appearance: the judge's hidden layer, on the aligned mean frame.
    motion: centre of mass of each frame, as shares of its size.

    Raises:
      ValueError: pixels that cannot be.
    """
    aligned, centres_BT2 = _align(video_BTHWC)
    weights, bias = self._network.coefs_[0], self._network.intercepts_[0]
    return {
      "appearance": np.maximum(aligned @ weights + bias, 0.0),
      "motion": centres_BT2.reshape(len(centres_BT2), -1),
    }


def _align(video_BTHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(mean centred frame, (B, 144) in [0, 1]; centres, (B, T, 2) in [0, 1]).

  Each frame is shifted so that its centre of mass is in the middle, cropped to
  the middle three quarters, where the digit is, and resampled to 12 x 12.
  """
  from scipy import ndimage  # It takes long to import.

  video = np.asarray(video_BTHWC)
  if video.dtype == np.uint8:
    video = video / np.float64(255.0)
  values.check_video("video", video)
  gray = np.asarray(video, np.float64).mean(-1)
  batch, frames, size, _ = gray.shape
  at = np.arange(size)
  mass = gray.sum((2, 3)) + 1e-6  # a black frame has its centre in the middle
  middle = (size - 1) / 2
  cy = ((gray.sum(3) * at).sum(-1) + 1e-6 * middle) / mass
  cx = ((gray.sum(2) * at).sum(-1) + 1e-6 * middle) / mass
  # Output pixel k samples the middle of its share of the crop.
  grid = 0.75 * size * ((np.arange(_SIDE) + 0.5) / _SIDE - 0.5)
  total = batch * frames
  places = np.empty((3, total, _SIDE, _SIDE))
  places[0] = np.arange(total)[:, None, None]  # no mixing of frames
  places[1] = cy.reshape(-1, 1, 1) + grid[:, None]
  places[2] = cx.reshape(-1, 1, 1) + grid[None, :]
  stack = gray.reshape(total, size, size)
  centred = ndimage.map_coordinates(
    stack, places, order=1, mode="grid-constant"
  )
  mean = centred.reshape(batch, frames, -1).mean(1)
  centres = np.stack([(cy + 0.5) / size, (cx + 0.5) / size], -1)
  return mean, centres
