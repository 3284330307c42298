"""CRC-32C (Castagnoli), the checksum of TensorFlow's files, by numpy."""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # its bits from the lowest power on
_LANES = 2**14  # pieces of the data that are summed side by side


def _make_table() -> np.ndarray:
  table_V = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table_V = (table_V >> 1) ^ np.where(table_V & 1, _POLYNOMIAL, 0)
  return table_V.astype(np.uint32)


_TABLE = _make_table()


def crc32c(data: np.ndarray) -> int:
  """Checksum of bytes, uint8 (N,)."""
  lanes = 1 << max(0, min(_LANES, len(data) // 64).bit_length() - 1)
  # All lanes are equally long: zeros in front change no sum that starts from
  # zero.
  length = -(-len(data) // lanes)
  padded = np.zeros(lanes * length, np.uint8)
  padded[len(padded) - len(data) :] = data
  sums_L = _sum_lanes(padded.reshape(lanes, length))
  while len(sums_L) > 1:
    sums_L = _after_zeros(sums_L[::2], length) ^ sums_L[1::2]
    length *= 2
  return _finish(sums_L, len(data))


def _finish(sum_1: np.ndarray, size: int) -> int:
  """The usual checksum starts from all ones, and is inverted at the end."""
  ones_1 = np.array([0xFFFFFFFF], np.uint32)
  return int((sum_1 ^ _after_zeros(ones_1, size) ^ 0xFFFFFFFF)[0])


def _sum_lanes(rows_LN: np.ndarray) -> np.ndarray:
  sums_L = np.zeros(len(rows_LN), np.uint32)
  for column_L in np.ascontiguousarray(rows_LN.T):
    sums_L = _TABLE[(sums_L ^ column_L) & 0xFF] ^ (sums_L >> 8)
  return sums_L


def _after_zeros(sums_L: np.ndarray, count: int) -> np.ndarray:
  """What the sums become after `count` zero bytes."""
  power = 0
  while count >> power:
    if count >> power & 1:
      sums_L = _apply(_zeros(power), sums_L)
    power += 1
  return sums_L


@functools.cache
def _zeros(power: int) -> np.ndarray:
  """The map of 2**power zero bytes, which is linear in the 32 bits of a sum."""
  if power:
    return _apply(_zeros(power - 1), _zeros(power - 1))
  bits_B = np.uint32(1) << np.arange(32, dtype=np.uint32)
  return _TABLE[bits_B & 0xFF] ^ (bits_B >> 8)


def _apply(map_B: np.ndarray, sums_L: np.ndarray) -> np.ndarray:
  """A linear map, given by the images of the 32 bits."""
  is_set_LB = sums_L[:, None] >> np.arange(32, dtype=np.uint32) & 1
  images_LB = np.where(is_set_LB, map_B[None], np.uint32(0))
  return np.bitwise_xor.reduce(images_LB, axis=1)
