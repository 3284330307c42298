"""A video as one file of entropy-coded tokens.

A file is a header of 61 bytes and the words of a range coder
(`context_coder.py` or `generator_coder.py`). The header names the tokenizer,
and the generator whose probabilities were used, by the first 64 bits of their
sha256, and ends with two checksums: one of the file, and a seal, which is the
checksum of the header and the decoded tokens together, so that a header cannot
say anything else about the tokens than what was written. A decoder needs the
bytes of the file and those two models, and nothing else.

Checksums are no signatures: whoever makes a file can make it say anything. So
nothing is decoded before the header agrees with itself, with the tokenizer and
with the number of bytes, and no file asks for more work than its bytes pay for.

  MVT\1  the seal covers the tokens alone; written by earlier versions, and read
  MVT\2  written today
"""

import dataclasses
import fractions
import math
import struct
import zlib

import numpy as np

from magvit.compression import context_coder
from magvit.compression import generator_coder
from models.tokenizer import geometry

SUFFIX = ".mvt"
_OLD_MAGIC, _MAGIC = b"MVT\1", b"MVT\2"
_GENERATOR = 255  # number of the context where a generator coded the tokens
_NAME_BYTES = 8  # leading bytes of a sha256 that name a model
_FIELDS = struct.Struct(
  "<4s"  # magic
  "8s8sB"  # tokenizer, generator or zeros, context
  "IIHH"  # vocabulary, (t, h, w)
  "IHH"  # (T, H, W)
  "II"  # frame rate as a fraction
  "II"  # seal, number of words
)
_CRC = struct.Struct("<I")  # crc32 of everything else in the file
HEADER_BYTES = _FIELDS.size + _CRC.size


# Most bits of ids that a word of 32 bits may stand for; zip files stop at about
# 1,000 to 1, too. Longer tokens of a still video get words that say nothing.
_BITS_PER_WORD = 2**15
_OLD_BITS = 2**27  # bits that a file of an earlier version may always stand for
_MOST_PIXELS = 2**26  # pixels of the largest frame
_MOST_IDS = 2**31 - 1  # largest vocabulary, for ids are int32
_AGAIN = "; make or copy it again"
_MOST_RATE = (2**31 - 1, 2**16 - 1)  # what MP4 holds: numerator, denominator


@dataclasses.dataclass(frozen=True)
class Coded:
  """Contents of a file."""

  ids_thw: np.ndarray  # int32, in 0..vocabulary - 1
  vocabulary: int
  video_shape: tuple[int, int, int]  # (T, H, W) that decoded frames are cut to
  frame_rate: fractions.Fraction  # frames per second
  tokenizer: str  # fingerprint of the tokenizer, or the start of it


@dataclasses.dataclass(frozen=True)
class Grid:
  """What a tokenizer makes of videos."""

  vocabulary: int
  sizes: geometry.Sizes  # strides between videos and ids


def pack(
  coded: Coded, generator: generator_coder.GeneratorCoder | None = None
) -> bytes:
  """Makes the bytes of a file, with a generator's probabilities or without.

  Raises:
    ValueError: ids outside the vocabulary, or sizes that the header cannot
      hold.
  """
  ids = np.asarray(coded.ids_thw, np.int32)
  if not ids.size or ids.min() < 0 or ids.max() >= coded.vocabulary:
    values = f"in [{ids.min()}, {ids.max()}]" if ids.size else "of no token"
    raise ValueError(f"ids {values} must be in 0..{coded.vocabulary - 1}")
  if generator is None:
    context, words = context_coder.encode(ids, coded.vocabulary)
    name = bytes(_NAME_BYTES)
  else:
    context, words = _GENERATOR, generator.encode(ids)
    name = _short(generator.fingerprint)
  t, h, w = ids.shape
  bits = ids.size * context_coder.count_bits(coded.vocabulary)
  fewest = -(-bits // _BITS_PER_WORD)
  words = np.pad(words, (0, max(0, fewest - len(words))))
  payload = words.astype("<u4").tobytes()
  header = _Header(
    magic=_MAGIC,
    tokenizer=_short(coded.tokenizer),
    generator=name,
    context=context,
    vocabulary=coded.vocabulary,
    latent_shape=(t, h, w),
    video_shape=coded.video_shape,
    rate=coded.frame_rate.limit_denominator(_MOST_RATE[1]).as_integer_ratio(),
    seal=0,
    num_words=len(words),
  )
  try:
    _check_header(header, "its header")
    fields = dataclasses.replace(header, seal=_seal(header, ids)).pack()
  except (ValueError, struct.error) as error:
    raise ValueError(
      f"sizes {ids.shape} of tokens, {coded.video_shape} of frames, or"
      f" {coded.frame_rate} frames per second do not fit into a file of coded"
      f" tokens ({error}): cut the video into smaller ones"
    ) from error
  return fields + _CRC.pack(zlib.crc32(fields + payload)) + payload


def unpack(
  data: bytes,
  tokenizer: str,
  generator: generator_coder.GeneratorCoder | None = None,
  name: str = "the file",
  grid: Grid | None = None,
) -> Coded:
  """Inverts `pack`, bit for bit.

  Args:
    data: all bytes of a file.
    tokenizer: fingerprint of the tokenizer that is to decode the tokens.
    generator: generator that the file was coded with, if one was.
    name: name of the file, for messages.
    grid: what that tokenizer makes of videos, which the file has to agree with;
      None where no tokenizer is at hand.

  Raises:
    ValueError: data that are no such file, damaged, or that contradict
      themselves or the tokenizer; a file of another tokenizer or generator; a
      generator that computes other probabilities here.
  """
  header = _read_header(data, name)
  _check_models(header, tokenizer, generator, name)
  _check_header(header, name)
  if grid is not None:
    _check_grid(header, grid, name)
  words = np.frombuffer(data[HEADER_BYTES:], "<u4").astype(np.uint32)
  try:
    if generator is not None and header.context == _GENERATOR:
      ids_thw = generator.decode(words, header.latent_shape)
    else:
      ids_thw = context_coder.decode(
        header.context, words, header.latent_shape, header.vocabulary
      )
  except (AssertionError, ValueError) as error:  # the range coder asserts
    raise ValueError(f"{name} is damaged: {_say(error)}{_AGAIN}") from error
  if _seal(header, ids_thw) != header.seal:
    raise ValueError(_other_tokens(header, name))
  if ids_thw.min() < 0 or ids_thw.max() >= header.vocabulary:
    raise ValueError(
      f"{name} holds ids in [{ids_thw.min()}, {ids_thw.max()}], and says that"
      f" they are in 0..{header.vocabulary - 1}{_AGAIN}"
    )
  return Coded(
    ids_thw,
    header.vocabulary,
    header.video_shape,
    fractions.Fraction(*header.rate),
    header.tokenizer.hex(),
  )


def _check_models(header, tokenizer: str, generator, name: str) -> None:
  """Raises ValueError for a file of another tokenizer or generator."""
  if header.tokenizer != _short(tokenizer):
    raise ValueError(
      f"{name} was made by the tokenizer {header.tokenizer.hex()}, and this is"
      f" {tokenizer[: 2 * _NAME_BYTES]}: name the workdir that made it"
    )
  if header.context != _GENERATOR:
    return
  given = "none" if generator is None else generator.fingerprint
  if generator is None or _short(given) != header.generator:
    raise ValueError(
      f"{name} was coded with the generator {header.generator.hex()}, and"
      f" {given[: 2 * _NAME_BYTES]} was given: name the workdir of that one"
    )


def _other_tokens(header, name: str) -> str:
  if header.context == _GENERATOR:
    return (
      f"{name} decodes to other tokens than went in: it is damaged, or the"
      f" generator {header.generator.hex()} computes other probabilities here,"
      " so decode it on a device like the one that coded it, with the same"
      " versions"
    )
  return (
    f"{name} is damaged: its tokens and its header are not those that were"
    f" written together{_AGAIN}"
  )


@dataclasses.dataclass(frozen=True)
class _Header:
  """The fields in front of the coded tokens, but for the file's checksum."""

  magic: bytes
  tokenizer: bytes  # start of the fingerprint
  generator: bytes  # start of the fingerprint, or zeros
  context: int  # model of the coder; _GENERATOR: the generator's
  vocabulary: int
  latent_shape: tuple[int, int, int]  # (t, h, w)
  video_shape: tuple[int, int, int]  # (T, H, W)
  rate: tuple[int, int]  # frames per second, as a fraction
  seal: int
  num_words: int

  def pack(self) -> bytes:
    """Raises struct.error for numbers that do not fit."""
    names = (self.magic, self.tokenizer, self.generator, self.context)
    shapes = (self.vocabulary, *self.latent_shape, *self.video_shape)
    return _FIELDS.pack(*names, *shapes, *self.rate, self.seal, self.num_words)


def _read_header(data: bytes, name: str) -> _Header:
  """Raises ValueError for what is no file of coded tokens, or damaged."""
  if data[:4] not in (_OLD_MAGIC, _MAGIC):
    raise ValueError(
      f"{name} begins with {data[:4]!r}, not {_MAGIC!r}: it holds no coded"
      " tokens, or another version of the format; name another file"
    )
  if len(data) < HEADER_BYTES:
    raise ValueError(
      f"{name} has {len(data)} bytes, and a header {HEADER_BYTES}: it is"
      " cut off; make or copy it again"
    )
  fields = _FIELDS.unpack_from(data)
  payload = data[HEADER_BYTES:]
  if len(payload) != 4 * fields[-1]:
    raise ValueError(
      f"{name} has {len(data)} bytes, and its header says"
      f" {HEADER_BYTES + 4 * fields[-1]}: it is cut off, or joined with"
      " another; make or copy it again"
    )
  (crc,) = _CRC.unpack_from(data, _FIELDS.size)
  if crc != zlib.crc32(data[: _FIELDS.size] + payload):
    raise ValueError(
      f"{name} is damaged: its bytes have another checksum than its header"
      " says; make or copy it again"
    )
  (vocabulary, t, h, w, frames, height, width) = fields[4:11]
  return _Header(
    *fields[:4],
    vocabulary=vocabulary,
    latent_shape=(t, h, w),
    video_shape=(frames, height, width),
    rate=fields[11:13],
    seal=fields[13],
    num_words=fields[14],
  )


def _check_header(header: _Header, name: str) -> None:
  """Raises ValueError for a header that contradicts itself or its bytes."""
  tokens = math.prod(header.latent_shape)
  bits = tokens * context_coder.count_bits(header.vocabulary)
  most_bits = _BITS_PER_WORD * header.num_words
  if header.magic == _OLD_MAGIC and header.num_words:
    most_bits = max(most_bits, _OLD_BITS)
  video, latent = header.video_shape, header.latent_shape
  coded = header.context == _GENERATOR
  rates = zip(header.rate, _MOST_RATE, strict=True)
  checks = {
    f"coder {header.context}": coded
    or header.context < len(context_coder.CONTEXTS),
    f"generator {header.generator.hex()} and coder {header.context}": coded
    == any(header.generator),
    f"vocabulary {header.vocabulary}": 1 <= header.vocabulary <= _MOST_IDS,
    f"frames, height and width {video}": min(video) > 0
    and video[1] * video[2] <= _MOST_PIXELS,
    f"tokens {latent} of a video of {video}": min(latent) > 0
    and all(t <= v for t, v in zip(latent, video, strict=True)),
    f"{header.rate[0]}/{header.rate[1]} frames per second": all(
      1 <= number <= most for number, most in rates
    ),
    f"tokens {latent} in {4 * header.num_words} bytes": bits <= most_bits,
  }
  for field, holds in checks.items():
    if not holds:
      raise ValueError(f"{name} says {field}, which cannot be{_AGAIN}")


def _check_grid(header: _Header, grid: Grid, name: str) -> None:
  """Raises ValueError for a header that contradicts the tokenizer."""
  latent = grid.sizes.latent(grid.sizes.padded(header.video_shape))
  for field, value, wanted in (
    ("vocabulary", header.vocabulary, grid.vocabulary),
    (f"tokens of {header.video_shape}", header.latent_shape, latent),
  ):
    if value != wanted:
      raise ValueError(
        f"{name} says {field} {value}, and its tokenizer makes {wanted}{_AGAIN}"
      )


def _seal(header: _Header, ids_thw: np.ndarray) -> int:
  """Checksum of the tokens, and in today's files of the header, too."""
  covered = b""
  if header.magic != _OLD_MAGIC:
    covered = dataclasses.replace(header, seal=0).pack()
  ids = np.ascontiguousarray(ids_thw, "<i4").tobytes()
  return zlib.crc32(ids, zlib.crc32(covered))


def _say(error: Exception) -> str:
  return " ".join(str(error).split()).rstrip(".")


def _short(fingerprint: str) -> bytes:
  return bytes.fromhex(fingerprint)[:_NAME_BYTES]
