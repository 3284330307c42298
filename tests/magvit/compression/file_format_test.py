"""Tests of magvit/compression/file_format.py."""

import dataclasses
import fractions
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from magvit.compression import file_format
from models.tokenizer import geometry

_TOKENIZER = "0123456789abcdef" * 4
_CODED = file_format.Coded(
  ids_thw=np.random.default_rng(0).integers(0, 64, (3, 4, 5), np.int32),
  vocabulary=64,
  video_shape=(9, 31, 40),
  frame_rate=fractions.Fraction(30000, 1001),
  tokenizer=_TOKENIZER,
)


class _Generator:
  """A stand-in that stores ids as they are, plus `shift`."""

  fingerprint = "fedc" * 16

  def __init__(self, shift=0):
    self.shift = shift

  def encode(self, ids_thw):
    return ids_thw.reshape(-1).astype(np.uint32)

  def decode(self, words, shape):
    return words.reshape(shape).astype(np.int32) + self.shift


@pytest.mark.parametrize("generator", [None, _Generator()])
def test_what_was_packed_comes_back(generator):
  data = file_format.pack(_CODED, generator)
  got = file_format.unpack(data, _TOKENIZER, generator)
  np.testing.assert_array_equal(got.ids_thw, _CODED.ids_thw)
  assert got.ids_thw.dtype == np.int32
  for field in ("vocabulary", "video_shape", "frame_rate"):
    assert getattr(got, field) == getattr(_CODED, field)
  assert _TOKENIZER.startswith(got.tokenizer)


def test_the_bytes_are_a_header_and_the_words():
  ids = np.random.default_rng(0).integers(0, 2**18, (5, 16, 16), np.int32)
  data = file_format.pack(
    dataclasses.replace(_CODED, ids_thw=ids, vocabulary=2**18)
  )
  assert file_format.HEADER_BYTES == 61
  # Ids without a pattern: 18 bits each; the stream ends within two words.
  assert abs(len(data) - 61 - 18 * ids.size / 8) <= 8


def test_every_flipped_bit_is_noticed():
  data = file_format.pack(_CODED)
  for at in range(len(data)):
    damaged = bytearray(data)
    damaged[at] ^= 16
    with pytest.raises(ValueError):
      file_format.unpack(bytes(damaged), _TOKENIZER)


def test_every_cut_is_noticed():
  data = file_format.pack(_CODED)
  for size in range(len(data)):
    message = f"a.mvt has {size} bytes" if size >= 4 else "a.mvt begins with"
    with pytest.raises(ValueError, match=message):
      file_format.unpack(data[:size], _TOKENIZER, name="a.mvt")


_SIZE = len(file_format.pack(_CODED))


@pytest.mark.parametrize(
  "data, message",
  [
    (b"", "a.mvt begins with b'', not b'MVT"),
    (b"\x89PNG\r\n\x1a\n" * 20, "a.mvt begins with b'.x89PNG'"),
    (file_format.pack(_CODED)[:40], "a.mvt has 40 bytes, .* 61: "),
    (file_format.pack(_CODED)[:-4], f"has {_SIZE - 4} bytes, .* {_SIZE}: "),
    (file_format.pack(_CODED) + b"0", f"has {_SIZE + 1} bytes, .* {_SIZE}: "),
  ],
)
def test_broken_and_foreign_files_are_refused(data, message):
  with pytest.raises(ValueError, match=message):
    file_format.unpack(data, _TOKENIZER, name="a.mvt")


def test_the_wrong_models_are_refused():
  with pytest.raises(
    ValueError, match="tokenizer 0123456789abcdef, .* aaaaaaaaaaaaaaaa: "
  ):
    file_format.unpack(file_format.pack(_CODED), "aaaa" * 16)
  data = file_format.pack(_CODED, _Generator())
  with pytest.raises(ValueError, match="generator fedcfedc.* none "):
    file_format.unpack(data, _TOKENIZER)


def test_a_generator_that_computes_otherwise_is_noticed():
  data = file_format.pack(_CODED, _Generator())
  with pytest.raises(ValueError, match="generator fedcfedc.* same versions"):
    file_format.unpack(data, _TOKENIZER, _Generator(shift=1))


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r"ids in \[.*, 63\] must be in 0..62"):
    file_format.pack(dataclasses.replace(_CODED, vocabulary=63))
  with pytest.raises(ValueError, match="sizes .*65536.* cut the video"):
    file_format.pack(dataclasses.replace(_CODED, video_shape=(1, 2**16, 8)))


# ids 0 to 3, six times each, as (2, 3, 4), written by an earlier version.
_OLD_IDS = np.arange(24, dtype=np.int32).reshape(2, 3, 4) // 6
_OLD_FILE = bytes.fromhex(
  "4d5654010123456789abcdef000000000000000002400000000200000003000400050000001600"
  "200030750000e9030000c21b53150200000027c7a6bb06ed0500582a54b1"
)
_GRID = file_format.Grid(64, geometry.Sizes(time=4, space=8))
_FILES = {
  "written today": (file_format.pack(_CODED), None, _GRID),
  "by a generator": (
    file_format.pack(_CODED, _Generator()),
    _Generator(),
    None,
  ),
  "written before": (_OLD_FILE, None, _GRID),
}
_HEADER = file_format.HEADER_BYTES


def _mended(data):
  """The bytes with the number of words and the file's checksum made true."""
  data = bytearray(data)
  struct.pack_into("<I", data, _HEADER - 8, (len(data) - _HEADER) // 4)
  crc = zlib.crc32(bytes(data[: _HEADER - 4]) + bytes(data[_HEADER:]))
  struct.pack_into("<I", data, _HEADER - 4, crc)
  return bytes(data)


def _mutated(data, rng):
  """A file with a few bytes, or the number of its words, changed."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    # Fields are hit more often than the bytes of the payload.
    stop = len(data) if rng.random() < 0.3 else _HEADER
    data[rng.integers(4, stop)] = rng.choice([0, 1, 255, rng.integers(256)])
  if rng.random() < 0.2:
    words = 4 * int(rng.integers(0, 5))
    longer = bytes(data) + rng.bytes(words)
    data = bytearray(
      longer if rng.random() < 0.5 else data[: len(data) - words]
    )
  return _mended(data) if len(data) >= _HEADER else bytes(data)


def test_files_of_earlier_versions_decode():
  got = file_format.unpack(_OLD_FILE, _TOKENIZER, grid=_GRID)
  np.testing.assert_array_equal(got.ids_thw, _OLD_IDS)
  assert got.video_shape == (5, 22, 32)
  assert got.frame_rate == fractions.Fraction(30000, 1001)


@pytest.mark.parametrize("kind", _FILES)
def test_mutated_files_with_mended_checksums_are_refused_or_the_same(kind):
  """400 files; none takes long, for work is bounded by the bytes at hand."""
  data, generator, grid = _FILES[kind]
  whole = file_format.unpack(data, _TOKENIZER, generator, grid=grid)
  rng = np.random.default_rng(0)
  refused = 0
  for _ in range(400):
    forged = _mutated(data, rng)
    try:
      got = file_format.unpack(forged, _TOKENIZER, generator, "a.mvt", grid)
    except ValueError as error:
      assert str(error).startswith("a.mvt ") and "\n" not in str(error)
      refused += 1
      continue
    np.testing.assert_array_equal(got.ids_thw, whole.ids_thw)
    if kind == "written before":  # its seal does not cover the header
      assert grid.sizes.latent(grid.sizes.padded(got.video_shape)) == (2, 3, 4)
    else:
      assert dataclasses.replace(got, ids_thw=None) == dataclasses.replace(
        whole, ids_thw=None
      )
  assert refused > 300


_FIELDS = {
  "context": (20, "<B", 9, "coder 9"),
  "vocabulary": (21, "<I", 2**32 - 1, "vocabulary 4294967295"),
  "no vocabulary": (21, "<I", 0, "vocabulary 0"),
  "another vocabulary": (21, "<I", 32, "vocabulary 32, .* makes 64"),
  "tokens": (25, "<I", 2**31, "tokens .2147483648, 4, 5. of a video"),
  "no tokens": (29, "<H", 0, "tokens .3, 0, 5. of a video"),
  "fewer tokens": (25, "<I", 2, r"tokens of .*\(2, 4, 5\).* makes \(3, 4, 5\)"),
  "frames": (33, "<I", 0, "frames, height and width .0, 31, 40."),
  "other frames": (33, "<I", 8, "not those that were written together"),
  "another height": (37, "<H", 30, "not those that were written together"),
  "no rate": (45, "<I", 0, "30000/0 frames per second"),
  "another rate": (41, "<I", 15000, "not those that were written together"),
}


@pytest.mark.parametrize("field", _FIELDS)
def test_a_forged_header_is_refused_by_the_field(field):
  at, form, value, message = _FIELDS[field]
  data = bytearray(file_format.pack(_CODED))
  struct.pack_into(form, data, at, value)
  with pytest.raises(ValueError, match=f"a.mvt .*{message}"):
    file_format.unpack(_mended(data), _TOKENIZER, None, "a.mvt", _GRID)


@pytest.mark.parametrize("magic", [b"MVT\1", b"MVT\2"])
@pytest.mark.parametrize("num_words", [0, 1, 100])
def test_work_is_bounded_by_the_bytes_of_the_file(magic, num_words):
  """A header that claims 2^31 frames asks for no time and no memory."""
  data = bytearray(file_format.pack(_CODED)[:_HEADER])
  data[:4] = magic
  data[20] = 4
  struct.pack_into("<IHH", data, 25, 2**31, 4000, 4000)
  struct.pack_into("<IHH", data, 33, 2**31, 8000, 8000)
  words = np.random.default_rng(0).bytes(4 * num_words)
  tracemalloc.start()
  with pytest.raises(ValueError, match="2147483648, 4000, 4000. in .* bytes"):
    file_format.unpack(_mended(bytes(data) + words), _TOKENIZER)
  struct.pack_into("<IHH", data, 25, 10**6, 4, 5)  # within the old limit
  with pytest.raises(ValueError, match="in .* bytes|the stream ends before"):
    file_format.unpack(_mended(bytes(data) + words), _TOKENIZER)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 2**22


def test_a_still_video_gets_words_that_pay_for_its_tokens():
  ids = np.zeros((20, 32, 32), np.int32)
  still = dataclasses.replace(_CODED, ids_thw=ids, video_shape=(77, 256, 256))
  data = file_format.pack(still)
  assert len(data) == _HEADER + 4 * -(-ids.size * 6 // 2**15)
  got = file_format.unpack(data, _TOKENIZER, grid=_GRID)
  np.testing.assert_array_equal(got.ids_thw, ids)


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(ids_thw=np.zeros((0, 4, 5), np.int32)), "of no token"),
    (dict(frame_rate=fractions.Fraction(0)), "0 frames per second do not fit"),
    (dict(video_shape=(9, 2**14, 2**14)), "16384.* which cannot be"),
  ],
)
def test_what_would_not_come_back_is_not_packed(changes, message):
  with pytest.raises(ValueError, match=message):
    file_format.pack(dataclasses.replace(_CODED, **changes))
