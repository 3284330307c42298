"""HEVC and VVC as one compares with them: FFmpeg's libx265 and libvvenc.

Frames go in as 8-bit RGB, are converted to BT.709 limited-range 4:2:0 (8 bits
for x265, 10 for vvenc, which takes no other), and are coded at a constant
quantization parameter as one sequence with one intra period: it begins with
the only planned intra frame. Files are raw Annex-B streams: no container, no
comments of the encoder. FFmpeg decodes them, and converts back.
"""

import dataclasses
import fractions
import math
import subprocess

import imageio_ffmpeg
import numpy as np

_SCALE = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_TO_YUV = f"scale=out_color_matrix=bt709:out_range=tv:{_SCALE}"
_TO_RGB = f"scale=in_color_matrix=bt709:in_range=tv:{_SCALE}"


@dataclasses.dataclass(frozen=True)
class VideoCodec:
  """One encoder and how it is run."""

  name: str
  format: str  # FFmpeg's name of its raw stream, and the suffix of files
  pixels: str  # what it is fed
  preset: str
  qps: tuple[int, ...]

  def settings(self, qp: int, seconds: float) -> list[str]:
    """FFmpeg's arguments of the encoder, for a video of this length."""
    if self.name == "x265":
      # Tuned for PSNR: psycho-visual gains cost PSNR, MS-SSIM and so BD-rate.
      params = f"qp={qp}:keyint=-1:info=0:log-level=error"
      tuned = ["-tune", "psnr", "-x265-params", params]
    else:
      period = str(math.ceil(seconds) + 1)  # seconds, longer than the video
      tuned = ["-qp", str(qp), "-qpa", "0", "-period", period]
    encoder = ["-c:v", f"lib{self.name}", "-preset", self.preset, *tuned]
    return [*encoder, "-f", self.format]


def x265(preset: str, qps: tuple[int, ...]) -> VideoCodec:
  return VideoCodec("x265", "hevc", "yuv420p", preset, qps)


def vvenc(preset: str, qps: tuple[int, ...]) -> VideoCodec:
  return VideoCodec("vvenc", "vvc", "yuv420p10le", preset, qps)


def encode(
  codec: VideoCodec,
  qp: int,
  video_THWC: np.ndarray,
  frame_rate: fractions.Fraction,
  path: str,
) -> None:
  """Codes uint8 (T, H, W, 3), of even H and W, into a file.

  Raises:
    ValueError: an odd size, or FFmpeg failed; with what it said.
  """
  frames, height, width = video_THWC.shape[:3]
  if height % 2 or width % 2:
    raise ValueError(
      f"frames of {height} x {width} pixels must have even sides for 4:2:0"
    )
  size = ["-s", f"{width}x{height}", "-r", str(frame_rate)]
  source = ["-f", "rawvideo", "-pix_fmt", "rgb24", *size, "-i", "-"]
  convert = ["-fps_mode", "passthrough", "-vf", _TO_YUV]
  convert += ["-pix_fmt", codec.pixels]
  _ffmpeg(
    [*source, *convert, *codec.settings(qp, frames / frame_rate), path],
    np.ascontiguousarray(video_THWC).tobytes(),
  )


def decode(
  codec: VideoCodec, path: str, shape: tuple[int, int, int]
) -> np.ndarray:
  """uint8 (T, H, W, 3) of a file that `encode` wrote.

  Raises:
    ValueError: FFmpeg failed, or another number of frames than `shape` says.
  """
  source = ["-f", codec.format, "-i", path, "-fps_mode", "passthrough"]
  sink = ["-vf", _TO_RGB, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
  data = _ffmpeg([*source, *sink])
  if len(data) != math.prod(shape) * 3:
    raise ValueError(
      f"{path} decodes to {len(data)} bytes of RGB, and {shape[0]} frames of"
      f" {shape[1]} x {shape[2]} have {math.prod(shape) * 3}: code it again"
    )
  return np.frombuffer(data, np.uint8).reshape(*shape, 3)


def version() -> str:
  """Of the FFmpeg that is run: its first line about itself."""
  text = _ffmpeg(["-version"]).decode()
  return text.splitlines()[0]


def _ffmpeg(arguments: list[str], data: bytes = b"") -> bytes:
  command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-y"]
  command += ["-loglevel", "error", *arguments]
  result = subprocess.run(command, input=data, capture_output=True, check=False)
  if result.returncode:
    said = " ".join(result.stderr.decode(errors="replace").split()[:60])
    raise ValueError(f"FFmpeg failed: {said or result.returncode}")
  return result.stdout
