"""A video as one file of entropy-coded tokens.

A header of 61 bytes, then the words of a range coder (`context_coder.py` or
`generator_coder.py`). The header names the tokenizer, and the generator whose
probabilities were used, by the first 64 bits of their sha256, and has sums over
the file and over the tokens. The number of bytes is all that a decoder needs
beside those two models.
"""

import dataclasses
import fractions
import struct
import zlib

import numpy as np

from magvit.compression import context_coder
from magvit.compression import generator_coder

SUFFIX = ".mvt"
_MAGIC = b"MVT\1"
_GENERATOR = 255  # in place of the number of a context
_NAME_BYTES = 8  # of a sha256
_FIELDS = struct.Struct(
  "<4s"  # magic
  "8s8sB"  # tokenizer, generator or zeros, context
  "IIHH"  # vocabulary, (t, h, w)
  "IHH"  # (T, H, W)
  "II"  # frame rate as a fraction
  "II"  # crc32 of the ids, number of words
)
_CRC = struct.Struct("<I")  # of all else
HEADER_BYTES = _FIELDS.size + _CRC.size


@dataclasses.dataclass(frozen=True)
class Coded:
  """What a file holds."""

  ids_thw: np.ndarray  # int32, in 0..vocabulary - 1
  vocabulary: int
  video_shape: tuple[int, int, int]  # (T, H, W) to crop to
  frame_rate: fractions.Fraction  # frames per second
  tokenizer: str  # its fingerprint, or the start of it


def pack(
  coded: Coded, generator: generator_coder.GeneratorCoder | None = None
) -> bytes:
  """The bytes of a file, coded with a generator's probabilities or without.

  Raises:
    ValueError: ids outside the vocabulary, or sizes that the header cannot
      hold.
  """
  ids = np.asarray(coded.ids_thw, np.int32)
  if ids.min() < 0 or ids.max() >= coded.vocabulary:
    raise ValueError(
      f"ids in [{ids.min()}, {ids.max()}] must be in 0..{coded.vocabulary - 1}"
    )
  if generator is None:
    context, words = context_coder.encode(ids, coded.vocabulary)
    name = bytes(_NAME_BYTES)
  else:
    context, words = _GENERATOR, generator.encode(ids)
    name = _short(generator.fingerprint)
  payload = words.astype("<u4").tobytes()
  sizes = (coded.vocabulary, *ids.shape, *coded.video_shape)
  rate = coded.frame_rate.limit_denominator(2**16)
  try:
    header = _FIELDS.pack(
      *(_MAGIC, _short(coded.tokenizer), name, context),
      *(*sizes, *rate.as_integer_ratio(), _crc(ids), len(words)),
    )
  except struct.error as error:
    raise ValueError(
      f"sizes {sizes} or the frame rate {rate} are too large for a file of"
      f" coded tokens ({error}): cut the video into smaller ones"
    ) from error
  return header + _CRC.pack(zlib.crc32(header + payload)) + payload


def unpack(
  data: bytes,
  tokenizer: str,
  generator: generator_coder.GeneratorCoder | None = None,
  name: str = "the file",
) -> Coded:
  """Inverse of `pack`, bit for bit.

  Args:
    data: all bytes of a file.
    tokenizer: fingerprint of the tokenizer that is to decode the tokens.
    generator: the one that the file was coded with, if it was.
    name: of the file, for messages.

  Raises:
    ValueError: no such file, or a damaged one; another tokenizer's, or another
      generator's; a generator that computes other probabilities here.
  """
  header = _read_header(data, name)
  if header.tokenizer != _short(tokenizer):
    raise ValueError(
      f"{name} was made by the tokenizer {header.tokenizer.hex()}, and this is"
      f" {tokenizer[: 2 * _NAME_BYTES]}: name the workdir that made it"
    )
  words = np.frombuffer(data[HEADER_BYTES:], "<u4").astype(np.uint32)
  if header.context == _GENERATOR:
    given = "none" if generator is None else generator.fingerprint
    if generator is None or _short(generator.fingerprint) != header.generator:
      raise ValueError(
        f"{name} was coded with the generator {header.generator.hex()}, and"
        f" {given[: 2 * _NAME_BYTES]} was given: name the workdir of that one"
      )
    ids_thw = generator.decode(words, header.latent_shape)
  else:
    ids_thw = context_coder.decode(
      header.context, words, header.latent_shape, header.vocabulary
    )
  if _crc(ids_thw) != header.ids_crc:
    raise ValueError(
      f"{name} decodes to other tokens than went in: the generator"
      f" {header.generator.hex()} computes other probabilities here, so decode"
      " it on a device like the one that coded it, with the same versions"
    )
  return Coded(
    ids_thw,
    header.vocabulary,
    header.video_shape,
    header.frame_rate,
    header.tokenizer.hex(),
  )


@dataclasses.dataclass(frozen=True)
class _Header:
  """The fields in front of the coded tokens."""

  tokenizer: bytes  # start of the fingerprint
  generator: bytes  # start of the fingerprint, or zeros
  context: int  # model of the coder; _GENERATOR: the generator's
  vocabulary: int
  latent_shape: tuple[int, int, int]  # (t, h, w)
  video_shape: tuple[int, int, int]  # (T, H, W)
  frame_rate: fractions.Fraction  # frames per second
  ids_crc: int


def _read_header(data: bytes, name: str) -> _Header:
  """Raises ValueError for what is no file of coded tokens, or damaged."""
  if data[:4] != _MAGIC:
    raise ValueError(
      f"{name} begins with {data[:4]!r}, not {_MAGIC!r}: it holds no coded"
      " tokens, or those of another version"
    )
  if len(data) < HEADER_BYTES:
    raise ValueError(
      f"{name} has {len(data)} bytes and its header {HEADER_BYTES}: it broke"
      " off, make or copy it again"
    )
  fields = _FIELDS.unpack_from(data)
  _, made_by, coded_by, context = fields[:4]
  (vocabulary, t, h, w, frames, height, width, *rate, ids_crc, size) = fields[
    4:
  ]
  payload = data[HEADER_BYTES:]
  if len(payload) != 4 * size:
    raise ValueError(
      f"{name} has {len(data)} bytes, and its header says"
      f" {HEADER_BYTES + 4 * size}: it broke off or was joined with another,"
      " make or copy it again"
    )
  (crc,) = _CRC.unpack_from(data, _FIELDS.size)
  if crc != zlib.crc32(data[: _FIELDS.size] + payload):
    raise ValueError(
      f"{name} is damaged, its bytes do not have the sum that its header says:"
      " make or copy it again"
    )
  return _Header(
    tokenizer=made_by,
    generator=coded_by,
    context=context,
    vocabulary=vocabulary,
    latent_shape=(t, h, w),
    video_shape=(frames, height, width),
    frame_rate=fractions.Fraction(*rate),
    ids_crc=ids_crc,
  )


def _short(fingerprint: str) -> bytes:
  return bytes.fromhex(fingerprint)[:_NAME_BYTES]


def _crc(ids: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(ids, "<i4").tobytes())
