"""Tests of packets and frames: what is left early is closed at once."""

import contextlib
import types

import pytest

from input_pipeline.decoding import streams

_STREAM = types.SimpleNamespace(
  codec_context=types.SimpleNamespace(name="h264")
)


class _Demuxed:
  """Three packets of nothing, that say whether they were closed."""

  def __init__(self):
    self.closed, self._left = False, 3

  def __iter__(self):
    return self

  def __next__(self):
    if not self._left:
      raise StopIteration
    self._left -= 1
    return _Packet()

  def close(self):
    self.closed = True


class _Packet:
  size, buffer_ptr = 1, 1

  def decode(self):
    return ["frame"]


class _Container:
  def __init__(self):
    self.demuxed = _Demuxed()

  def demux(self, stream):
    del stream
    return self.demuxed


@pytest.mark.parametrize("read", [streams.packets, streams.decoded])
@pytest.mark.parametrize("count", [1, 3])
def test_packets_are_closed_wherever_reading_ends(read, count):
  container = _Container()
  with contextlib.closing(read(container, _STREAM)) as items:
    for _ in range(count):
      next(items)
    assert not container.demuxed.closed
  assert container.demuxed.closed
