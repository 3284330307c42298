"""Sizes up to which files are read: a few bytes can claim any size.

A GIF of 250 bytes may declare a picture that fills the memory, and one of 460
kB as many pictures as take hours. What a file declares is checked before it is
decoded, and what it decodes to is checked again. Below these limits the largest
file takes less than 1 GiB beside the frames that the reader keeps.
"""

import os

from storage import listing

# Pixels of a frame of a video or an animation: 4096 x 4096, or 5760 x 2880. A
# decoder of H.264 may keep 17 frames, so that 8192 x 4320 took 1.5 GiB.
MAX_PIXELS = 2**24
MAX_PICTURE_PIXELS = 2**26  # pixels of a single picture: 8192 x 8192
MAX_PAGES = 10_000  # pictures in a file that Pillow reads
# Pixels of all pictures in such a file: 1,035 of 1920 x 1080.
MAX_PAGES_PIXELS = 2**31
# Pixels of the frames that are kept together: 0.75 GiB as RGB.
MAX_CLIP_PIXELS = 2**28
# Times that a frame is repeated in a copy of a higher frame rate.
MAX_REPEATS = 1000


def check_regular(file: str | bytes) -> None:
  """Raises ValueError for a path of a pipe, device, socket or folder.

  Opening one of them may wait for ever, or act on the device. Links to files
  are followed; the contents of a file (bytes) pass.
  """
  if isinstance(file, bytes):
    return
  reason = listing.irregular(os.stat(file).st_mode)
  if reason:
    raise ValueError(reason)


def check_frame(height: int, width: int) -> None:
  """Raises ValueError for a frame of more than MAX_PIXELS pixels."""
  _check("a frame", height, width, "MAX_PIXELS", MAX_PIXELS)


def check_picture(height: int, width: int) -> None:
  """Raises ValueError for a picture of more than MAX_PICTURE_PIXELS pixels."""
  limit = MAX_PICTURE_PIXELS
  _check("the picture", height, width, "MAX_PICTURE_PIXELS", limit)


def check_pages(count: int, height: int, width: int) -> None:
  """Raises ValueError for too many pictures, or too many pixels, in a file."""
  if count > MAX_PAGES:
    raise ValueError(
      f"it holds more than MAX_PAGES={MAX_PAGES:,} pictures: make a video of"
      " them, like MP4, or cut it"
    )
  if count * height * width > MAX_PAGES_PIXELS:
    raise ValueError(
      f"{count} pictures of {height} x {width} are more than"
      f" MAX_PAGES_PIXELS={MAX_PAGES_PIXELS:,} pixels: make a video of them,"
      " like MP4, or make them smaller or fewer"
    )


def check_clip(pixels: int) -> None:
  """Raises ValueError for frames of more than MAX_CLIP_PIXELS together."""
  if pixels > MAX_CLIP_PIXELS:
    raise ValueError(
      f"the frames of a clip have more than MAX_CLIP_PIXELS="
      f"{MAX_CLIP_PIXELS:,} pixels: make copies with a smaller short side (as"
      " `python -m input_pipeline.prepare --reencode --short_side=N` does), or"
      " take fewer frames"
    )


def _check(
  subject: str, height: int, width: int, name: str, limit: int
) -> None:
  if height * width > limit:
    raise ValueError(
      f"{subject} has {height} x {width} pixels, more than {name}={limit:,}:"
      " make it smaller"
    )
