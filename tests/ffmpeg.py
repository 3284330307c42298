"""Videos by FFmpeg's program, whose encoders and filters PyAV lacks."""

import pathlib
import subprocess

import imageio_ffmpeg
import numpy as np


def run(*arguments: str, data: bytes = b"") -> bool:
  """Whether FFmpeg did it; it refuses codecs that a container does not hold."""
  command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-y"]
  command += ["-loglevel", "error", *arguments]
  done = subprocess.run(command, input=data, capture_output=True, check=False)
  return done.returncode == 0


def encode(path: pathlib.Path, video_THWC: np.ndarray, *options: str) -> bool:
  """Encodes uint8 (T, H, W, 3) at 25 frames per second."""
  size = f"{video_THWC.shape[2]}x{video_THWC.shape[1]}"
  source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "25"]
  data = np.ascontiguousarray(video_THWC).tobytes()
  return run(*source, "-i", "-", *options, str(path), data=data)


def copy(source: pathlib.Path, target: pathlib.Path, *options: str) -> bool:
  """Stores the packets of a file in another; starts at `-ss` if it is given."""
  start = options[:2] if options[:1] == ("-ss",) else ()
  rest = options[len(start) :]
  return run(*start, "-i", str(source), "-c", "copy", *rest, str(target))
