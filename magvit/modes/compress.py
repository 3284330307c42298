"""--mode=compress: codes videos as files of tokens, against video codecs.

  python main.py --mode=compress --input=FOLDER --output=FOLDER --workdirs=A,B

`python -m magvit.compress` is the same. `magvit/compression/study.py` does the
work.
"""

import ml_collections

from configs import fields
from magvit.compression import study
from magvit.compression import video_codecs
from magvit.modes import table
from storage import lock
from storage import stores


def run(
  options: table.Compress,
  config: ml_collections.ConfigDict | None,
  workdir: str | None,
) -> None:
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
  for name in ("input", "output", "lpips"):
    value = getattr(options, name)
    if value and stores.is_url(value):
      raise ValueError(
        f"--{name}={value} is an address, and a study reads and writes disks"
        " alone: copy it to a disk, and name that folder"
      )
  with lock.held(options.output, "--mode=compress"):
    study.compress(compared, options.input, options.output)
