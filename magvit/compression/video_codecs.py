"""Video codecs to compare with: FFmpeg's libx264, libx265 and libvvenc.

Frames are 8-bit RGB. They are converted to BT.709 limited-range 4:2:0 (8 bits;
10 for vvenc, which takes no other) and coded at a constant
quantization parameter, as one sequence of one intra period: the only planned
intra frame is the first. Files are raw Annex-B streams, without a container or
comments of the encoder. FFmpeg decodes them, and converts back.
"""

import dataclasses
import fractions
import math
import subprocess

import imageio_ffmpeg
import numpy as np

from storage import files

_SCALE = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_TO_YUV = f"scale=out_color_matrix=bt709:out_range=tv:{_SCALE}"
_TO_RGB = f"scale=in_color_matrix=bt709:in_range=tv:{_SCALE}"


@dataclasses.dataclass(frozen=True)
class VideoCodec:
  """An encoder and its settings."""

  name: str
  format: str  # FFmpeg's name for the raw stream, and the suffix of files
  pixels: str  # FFmpeg's name for the format of the encoder's input
  preset: str
  qps: tuple[int, ...]  # quantization parameters

  def settings(self, qp: int, seconds: float) -> list[str]:
    """Arguments of FFmpeg for the encoder, and a video of this length."""
    if self.name == "x265":
      # It is tuned for PSNR: psycho-visual gains would cost PSNR and MS-SSIM,
      # and so BD-rate.
      params = f"qp={qp}:keyint=-1:info=0:log-level=error"
      tuned = ["-tune", "psnr", "-x265-params", params]
    elif self.name == "x264":
      # Units of type 6 hold the encoder's comment, which no decoder needs.
      tuned = ["-tune", "psnr", "-x264-params", f"qp={qp}:keyint=infinite"]
      tuned += ["-bsf:v", "filter_units=remove_types=6"]
    else:
      period = str(math.ceil(seconds) + 1)  # seconds, longer than the video
      tuned = ["-qp", str(qp), "-qpa", "0", "-period", period]
    encoder = ["-c:v", f"lib{self.name}", "-preset", self.preset, *tuned]
    return [*encoder, "-f", self.format]


def x264(preset: str, qps: tuple[int, ...]) -> VideoCodec:
  return VideoCodec("x264", "h264", "yuv420p", preset, qps)


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
    ValueError: an odd size, or a failure of FFmpeg, whose message is told.
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
  settings = codec.settings(qp, frames / frame_rate)
  with files.published(path) as temporary:
    _ffmpeg(
      [*source, *convert, *settings, str(temporary)],
      np.ascontiguousarray(video_THWC).tobytes(),
    )


def decode(
  codec: VideoCodec, path: str, shape: tuple[int, int, int]
) -> np.ndarray:
  """Decodes a file that `encode` wrote to uint8 (T, H, W, 3).

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
  """Version of the FFmpeg that is run: the first line it prints about it."""
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
