"""Frames of a stream of packets, as it is read from a video file."""

from collections.abc import Iterator

import av
import av.container


def decoded(
  container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.VideoFrame]:
  """Yields all frames of a stream as FFmpeg decodes them.

  In Theora a packet without bytes repeats the frame before it.
  """
  last, repeats = None, stream.codec_context.name == "theora"
  for packet in packets(container, stream):
    if not is_empty(packet):
      for last in packet.decode():
        yield last
    elif repeats and last is not None:
      yield last


def packets(
  container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.Packet]:
  """Yields the packets of a stream, from where the container stands.

  PyAV keeps 260 bytes of each of its own iterators that is neither read to its
  end nor closed. `yield from` closes it together with this one, unlike `for`.
  """
  yield from container.demux(stream)


def is_empty(packet: av.Packet) -> bool:
  """Whether a packet has no bytes, which decoders refuse.

  One without a buffer is none: it ends the stream.
  """
  return not packet.size and bool(packet.buffer_ptr)
