"""--mode=decompress: turns a file of coded tokens back into a video.

  python main.py --mode=decompress --input=FILE.mvt --output=FILE.mp4 \
    --workdir=DIR

`python -m magvit.decompress` is the same. `magvit/compression/decode.py` does
the work.
"""

import ml_collections

from magvit.compression import decode
from magvit.modes import table


def run(
  options: table.Decompress,
  config: ml_collections.ConfigDict | None,
  workdir: str,
) -> None:
  del config
  decode.decompress(options.input, options.output, workdir)
