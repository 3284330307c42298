"""Clips a second from 340 x 256 videos, against bare decoding of their frames.

  python -m benchmarks.pipeline [--clips=100] [--output=FILE]

The video has 10 seconds, a pan over a photograph with some noise, in H.264 as
`input_pipeline.prepare --reencode` writes it (a keyframe every 12 frames), and
as x264 does by itself (every 250). A clip is 17 consecutive frames from a
random place, a random crop of 128 x 128. `bare` only decodes the same frames
with PyAV: from the keyframe before the clip, whose place it knows, to the
clip's last frame, with all 17 as RGB. Both run in one thread, in turn, and are
measured in CPU seconds of this process.
"""

import argparse
import io
import json
import statistics
import time

import av
import numpy as np
from PIL import Image
from sklearn import datasets as photos

from configs import base
from configs import datasets
from input_pipeline import clips as clips_lib
from input_pipeline.decoding import frame_reader

_FRAMES, _SIZE = 300, (340, 256)  # width, height
_ROUNDS = 5  # timed rounds of all clips


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--clips", type=int, default=100, help="clips a round")
  parser.add_argument("--output", default="", help="JSON to write as well")
  args = parser.parse_args()
  results = {
    f"keyframes {n}": measure(encode(n), args.clips) for n in (12, 250)
  }
  text = json.dumps(results, indent=1)
  print(text)
  if args.output:
    with open(args.output, "w") as f:
      f.write(text + "\n")


def encode(keyframes: int) -> bytes:
  photo = Image.fromarray(photos.load_sample_images().images[0])
  rng = np.random.default_rng(0)
  file = io.BytesIO()
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
    stream.width, stream.height = _SIZE
    stream.pix_fmt, stream.gop_size = "yuv420p", keyframes
    for i in range(_FRAMES):
      left = i * (photo.width - _SIZE[0]) / _FRAMES
      box = (left, 80, left + _SIZE[0], 80 + _SIZE[1])
      frame_HWC = np.asarray(photo.resize(_SIZE, Image.Resampling.BICUBIC, box))
      noisy = frame_HWC + rng.normal(0, 3, frame_HWC.shape)
      frame = av.VideoFrame.from_ndarray(
        noisy.clip(0, 255).astype(np.uint8), format="rgb24"
      )
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return file.getvalue()


class _OneVideo:
  class_names = ()

  def __init__(self, data: bytes):
    self.chosen = []
    self._encoded = frame_reader.Encoded("video", 0, (data,))

  def __len__(self) -> int:
    return 1

  def __getitem__(self, index: int) -> frame_reader.Encoded:
    return self._encoded


def measure(data: bytes, count: int) -> dict[str, float]:
  config = base.tokenizer()
  datasets.ucf101(config)
  store = _OneVideo(data)
  source = clips_lib.Clips(store, config.dataset, "train", training=True)
  index = frame_reader._index(data)
  starts = []
  for epoch in range(count):  # windows as the source draws them
    rng = np.random.default_rng((*source._seed, epoch, 0))
    starts.append(source._window.choose(_FRAMES, 0, rng.random())[0])
  wanted = [index.times[start : start + 17] for start in starts]
  ours, bare = [], []
  for _ in range(_ROUNDS):
    start = time.process_time()
    for epoch in range(count):
      source.draw(0, epoch)
    ours.append(time.process_time() - start)
    start = time.process_time()
    for times in wanted:
      _bare(data, index, times)
    bare.append(time.process_time() - start)
  ratios = [b / a for a, b in zip(ours, bare, strict=True)]
  return {
    "bytes": len(data),
    "clips per CPU second": round(count / statistics.median(ours), 1),
    "bare clips per CPU second": round(count / statistics.median(bare), 1),
    "share of bare": round(statistics.median(ratios), 3),
    "smallest and largest": [round(min(ratios), 3), round(max(ratios), 3)],
  }


def _bare(data: bytes, index: frame_reader._Index, times: list[int]) -> None:
  key = max(time for time in index.keyframes if time <= times[0])
  decoded = 0
  with av.open(io.BytesIO(data)) as container:
    stream = container.streams.video[0]
    stream.thread_count = 1
    container.seek(key, stream=stream)
    for frame in container.decode(stream):
      if frame.pts >= times[0]:
        frame.to_ndarray(format="rgb24")
        decoded += 1
      if frame.pts >= times[-1]:
        break
  assert decoded == len(times)


if __name__ == "__main__":
  main()
