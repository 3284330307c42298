"""Tests of magvit/compression/file_format.py."""

import dataclasses
import fractions

import numpy as np
import pytest

from magvit.compression import file_format

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
