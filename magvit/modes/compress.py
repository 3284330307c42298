"""--mode=compress: codes videos as files of tokens, against video codecs.

  python main.py --mode=compress --input=FOLDER --output=FOLDER --workdirs=A,B

`python -m magvit.compress` is the same. `magvit/compression/study.py` does the
work.
"""

import dataclasses
from typing import ClassVar

import ml_collections

from configs import fields
from magvit import command_line
from storage import lock

_QPS = (22, 26, 30, 34, 38, 42)


@dataclasses.dataclass(frozen=True)
class Options:
  READS_CONFIG: ClassVar = False
  NEEDS_WORKDIR: ClassVar = False

  input: str = command_line.option(
    "Folder of the videos to code", needed="FOLDER", is_path=True
  )
  output: str = command_line.option(
    "Folder of the results, new or of the same study",
    needed="FOLDER",
    is_path=True,
  )
  workdirs: tuple[str, ...] = command_line.option(
    "Workdirs of tokenizers or generators, separated by commas; each is a point"
    " of a curve",
    (),
    is_path=True,
  )
  size: str = command_line.option(
    "Size that videos are cut and resized to, WIDTHxHEIGHT in pixels", "640x360"
  )
  frames: int | None = command_line.option(
    "Number of frames of each video, from the first; all if it is left out",
    allowed=fields.COUNT,
  )
  x265_preset: str = command_line.option("Preset of the encoder x265", "slow")
  x265_qps: tuple[int, ...] = command_line.option(
    "Quantization parameters of x265, separated by commas",
    _QPS,
    allowed=fields.whole(0, 51),
  )
  vvenc_preset: str = command_line.option("Preset of the encoder vvenc", "fast")
  vvenc_qps: tuple[int, ...] = command_line.option(
    "Quantization parameters of vvenc, separated by commas",
    _QPS,
    allowed=fields.whole(0, 63),
  )
  at_bpp: float = command_line.option(
    "Bits per pixel at which the curves are compared; the paper's is 0.0384",
    0.0384,
    allowed=fields.Range(0, low_open=True),
  )
  lpips: str | None = command_line.option(
    "File of LPIPS's weights, written by models.weights.convert; no LPIPS if it"
    " is left out",
    is_path=True,
  )


def run(
  options: Options,
  config: ml_collections.ConfigDict | None,
  workdir: str | None,
) -> None:
  # Its libraries would make every other mode start later.
  from magvit.compression import study
  from magvit.compression import video_codecs

  del config, workdir
  try:
    width, height = (int(side) for side in options.size.split("x"))
    fields.COUNT.check("width", width)
    fields.COUNT.check("height", height)
  except ValueError as error:
    raise ValueError(
      f"--size={options.size} must be WIDTHxHEIGHT, like 640x360"
    ) from error
  compared = study.Study(
    workdirs=tuple(filter(None, options.workdirs)),
    codecs=(
      video_codecs.x265(options.x265_preset, options.x265_qps),
      video_codecs.vvenc(options.vvenc_preset, options.vvenc_qps),
    ),
    height=height,
    width=width,
    frames=options.frames,
    at_bpp=options.at_bpp,
    lpips=options.lpips,
  )
  with lock.held(options.output, "--mode=compress"):
    study.compress(compared, options.input, options.output)
