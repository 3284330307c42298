"""A decoded video frame as a viewer shows it: upright, with square pixels.

Cameras store frames as the sensor gives them, with a matrix that says how they
are held; discs and broadcasts store pixels that are wider or narrower than
high. FFmpeg tells both, and applies neither.
"""

import fractions

import av
import numpy as np

from input_pipeline.decoding import limits


def shown(
  frame: av.VideoFrame, pixel_aspect: fractions.Fraction | None
) -> np.ndarray:
  """Pixels of a frame as shown, uint8 (H, W, 3).

  Pixels become square by enlarging the side that is squeezed, as viewers do:
  no pixel is lost. Turns by other than quarters count as the nearest quarter.

  Args:
    frame: as decoded, with the display matrix that it carries.
    pixel_aspect: width of a stored pixel over its height; None: unknown, which
      counts as square.

  Raises:
    ValueError: a frame that is larger than the limits allow.
  """
  limits.check_frame(frame.height, frame.width)
  height, width = square_size(frame.height, frame.width, pixel_aspect)
  if (height, width) == (frame.height, frame.width):
    frame_HWC = frame.to_ndarray(format="rgb24")
  else:
    limits.check_frame(height, width)
    frame_HWC = frame.to_ndarray(
      format="rgb24", width=width, height=height, interpolation="BICUBIC"
    )
  matrix = frame.side_data.get("DISPLAYMATRIX")
  return frame_HWC if matrix is None else _upright(frame_HWC, bytes(matrix))


def square_size(
  height: int, width: int, pixel_aspect: fractions.Fraction | None
) -> tuple[int, int]:
  """(height, width) of a frame whose pixels are made square.

  An even side stays even, as videos with half the resolution of colour need it.
  """
  if not pixel_aspect or pixel_aspect <= 0:
    return height, width
  if pixel_aspect > 1:
    return height, _scaled(width, pixel_aspect)
  return _scaled(height, 1 / pixel_aspect), width


def _scaled(side: int, factor: fractions.Fraction) -> int:
  unit = 2 if side % 2 == 0 else 1
  return round(side * factor / unit) * unit


def _upright(frame_HWC: np.ndarray, matrix: bytes) -> np.ndarray:
  """Applies the quarter turns and mirrors of FFmpeg's display matrix.

  The matrix (a, b, u, c, d, v, x, y, w) shows the pixel in column p and row q
  in column a p + c q and row b p + d q, counted from the right or from below
  where that is negative.
  """
  a, b, _, c, d = (int(n) for n in np.frombuffer(matrix, np.int32)[:5])
  if abs(b) + abs(c) > abs(a) + abs(d):  # columns become rows
    frame_HWC, a, d = frame_HWC.swapaxes(0, 1), c, b
  if a < 0:
    frame_HWC = frame_HWC[:, ::-1]
  if d < 0:
    frame_HWC = frame_HWC[::-1]
  return np.ascontiguousarray(frame_HWC)
