"""--mode=decompress: turns a file of coded tokens back into a video.

  python main.py --mode=decompress --input=FILE.mvt --output=FILE.mp4 \
    --workdir=DIR

`python -m magvit.decompress` is the same. `magvit/compression/decode.py` does
the work.
"""

import dataclasses
from typing import ClassVar

import ml_collections

from magvit import command_line


@dataclasses.dataclass(frozen=True)
class Options:
  READS_CONFIG: ClassVar = False

  input: str = command_line.option(
    "File of coded tokens", needed="FILE.mvt", is_path=True
  )
  output: str = command_line.option(
    "Video to write", needed="FILE.mp4", is_path=True
  )


def run(
  options: Options, config: ml_collections.ConfigDict | None, workdir: str
) -> None:
  # Its libraries would make every other mode start later.
  from magvit.compression import decode

  del config
  decode.decompress(options.input, options.output, workdir)
