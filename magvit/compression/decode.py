"""Decoding of a file of coded tokens to a video that any player shows.

  python -m magvit.decompress --input=FILE.mvt --output=FILE.mp4 --workdir=DIR

DIR is the workdir, or the export, that `magvit.compress` coded the file with;
another tokenizer or generator is refused. The tokens come out bit for bit. The
MP4 is for looking at: H.264 adds losses, and a study scores the frames before
it.
"""

import logging

import numpy as np

from evaluation.show import mp4
from magvit.compression import file_format
from magvit.compression import generator_coder
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.tokenizer import frames as frames_lib
from magvit.tokenizer import loaded
from magvit.workdir import folder as workdir_lib
from storage import stores

log = logging.getLogger(__name__)


def decompress(input_path: str, output_path: str, workdir: str) -> None:
  """Decodes one file.

  Raises:
    ValueError: no such file, a damaged one, or one of other models; or an
      output that exists.
  """
  if not output_path.endswith(".mp4"):
    raise ValueError(f"--output={output_path} must end in .mp4")
  if stores.exists(output_path):
    raise ValueError(f"--output={output_path} exists: name another file")
  if not stores.is_file(input_path):
    raise ValueError(
      f"--input={input_path} is no file: name one that --mode=compress wrote"
    )
  tokenizer, name, generator = models(workdir)
  data = stores.read(input_path)
  grid = tokenizer_grid(tokenizer)
  coded = file_format.unpack(data, name, generator, input_path, grid)
  frames, height, width = coded.video_shape
  log.info("%d frames of %d x %d", frames, height, width)
  with mp4.Writer(output_path, coded.frame_rate) as writer:
    decoded = frames_lib.decode_frames(
      tokenizer, [coded.ids_thw], coded.video_shape
    )
    for frame_HWC in decoded:
      writer.add(np.ascontiguousarray(frame_HWC))
  log.info("wrote %s", output_path)


def models(
  workdir: str,
) -> tuple[loaded.LoadedTokenizer, str, generator_coder.GeneratorCoder | None]:
  """Opens (tokenizer, its fingerprint, coder of the generator if it is one)."""
  copied = workdir_lib.own_tokenizer(workdir)  # in the workdir of a generator
  generator = None if copied is None else generator_coder.load(workdir)
  name = fingerprint.read_fingerprint(copied or workdir)
  return loaded.load_tokenizer(workdir), name, generator


def tokenizer_grid(tokenizer: loaded.LoadedTokenizer) -> file_format.Grid:
  """What the headers of a tokenizer's files have to agree with."""
  config = tokenizer.config
  return file_format.Grid(describe.vocabulary(config), describe.sizes(config))
