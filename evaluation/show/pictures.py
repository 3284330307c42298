"""Pictures of clips (grids, film strips, GIF, PNG) with Pillow and NumPy only.

Names: B clips, T frames, H W height and width, C = 3 colour channels. Every
picture is uint8 RGB; grey-scale clips come as three equal channels.
"""

import io

import numpy as np
from PIL import Image

from evaluation import values
from storage import files

UINT8_RULES = ("round", "truncate")  # from [0, 1] to uint8

# Mid grey: visible on black digits, on white paper and in dark mode.
SEPARATOR = 128

# A decoder overshoots [0, 1] a little; a clip in [-1, 1] or [0, 255] has many
# more values this far outside. Both limits are generous on purpose.
_OVERSHOOT = 0.25
_MAX_FRACTION_OUTSIDE = 0.25


def tile(videos_BTHWC, columns, padding=2):
  """Arranges B clips row by row in a grid of at most `columns` columns.

  Args:
    videos_BTHWC: uint8, or floats in [0, 1] (see `to_uint8`).
    columns: clips in a row; fewer clips than that make one shorter row.
    padding: pixels of neutral grey between neighbours; none at the border.

  Returns:
    One clip THWC, uint8, with the H and W of the grid. Unused cells are grey.
  """
  videos_BTHWC = _check_rgb("videos_BTHWC", to_uint8(videos_BTHWC), "BTHWC")
  clips, frames, height, width, channels = videos_BTHWC.shape
  if columns < 1:
    raise ValueError(f"columns={columns} must be at least 1.")
  if padding < 0:
    raise ValueError(f"padding={padding} must be at least 0.")
  columns = min(columns, clips)
  rows = -(-clips // columns)
  canvas_THWC = np.full(
    (
      frames,
      rows * (height + padding) - padding,
      columns * (width + padding) - padding,
      channels,
    ),
    SEPARATOR,
    np.uint8,
  )
  for index, video_THWC in enumerate(videos_BTHWC):
    row, column = divmod(index, columns)
    top, left = row * (height + padding), column * (width + padding)
    canvas_THWC[:, top : top + height, left : left + width] = video_THWC
  return canvas_THWC


def side_by_side(videos, padding=1):
  """Joins batches of one shape along width: original | reconstruction | ...

  Args:
    videos: list of BTHWC arrays, uint8 or floats in [0, 1], of one shape.
    padding: pixels of neutral grey between the members of a pair; keep it
      below the padding of `tile`, so that a grid of pairs reads as pairs.

  Returns:
    BTHWC uint8, with the W of a whole pair.
  """
  videos = [
    _check_rgb(f"videos[{i}]", to_uint8(video_BTHWC), "BTHWC")
    for i, video_BTHWC in enumerate(videos)
  ]
  if not videos:
    raise ValueError("videos=[] must hold at least one batch of clips.")
  shapes = [video_BTHWC.shape for video_BTHWC in videos]
  if len(set(shapes)) > 1:
    raise ValueError(
      f"videos have shapes {shapes}, but clips side by side must have one "
      "shape; crop or resize them first."
    )
  bar_BTHWC = np.full(
    (*shapes[0][:3], padding, shapes[0][4]), SEPARATOR, np.uint8
  )
  parts = [videos[0]]
  for video_BTHWC in videos[1:]:
    parts += [bar_BTHWC, video_BTHWC]
  return np.concatenate(parts, axis=3)


def filmstrip(videos_BTHWC, every=1, padding=2):
  """One still picture HWC (uint8): a row per clip, a column per frame.

  Shows frames 0, every, 2 * every, ...
  """
  videos_BTHWC = _check_rgb("videos_BTHWC", to_uint8(videos_BTHWC), "BTHWC")
  if every < 1:
    raise ValueError(f"every={every} must be at least 1.")
  shown_BTHWC = videos_BTHWC[:, ::every]
  clips, frames = shown_BTHWC.shape[:2]
  stills_BTHWC = shown_BTHWC.reshape(clips * frames, 1, *shown_BTHWC.shape[2:])
  return tile(stills_BTHWC, columns=frames, padding=padding)[0]


def stack(images, max_width=1200, padding=4):
  """Stacks pictures into one, each below the last, on neutral grey.

  Args:
    images: list of HWC arrays, uint8 or floats in [0, 1], of any sizes.
    max_width: pixels; a wider picture is reduced to this width.
    padding: pixels of grey between pictures.

  Returns:
    HWC uint8, with the H and W of the whole.
  """
  if not images:
    raise ValueError("images=[] must hold at least one picture.")
  rows = []
  for index, image_HWC in enumerate(images):
    image_HWC = _check_rgb(f"images[{index}]", to_uint8(image_HWC), "HWC")
    row = Image.fromarray(np.ascontiguousarray(image_HWC))
    if row.width > max_width:
      row = row.resize(
        (max_width, max(1, round(row.height * max_width / row.width)))
      )
    rows.append(row)
  height = sum(row.height + padding for row in rows) - padding
  canvas = Image.new(
    "RGB", (max(row.width for row in rows), height), (SEPARATOR,) * 3
  )
  top = 0
  for row in rows:
    canvas.paste(row, (0, top))
    top += row.height + padding
  return np.asarray(canvas)


def to_uint8(video, rule="round", name="video", first=0):
  """Floats in [0, 1], of any shape, to uint8: clipped, scaled by 255, rounded.

  uint8 passes through. Decoders produce a few values outside [0, 1], which are
  clipped; not-a-number, or more than a quarter of the values far outside, is a
  ValueError, for the video was never in [0, 1].

  Args:
    video: the pixels.
    rule: one of UINT8_RULES: "round" to the nearest, or "truncate" to the next
      below, like guided-diffusion.
    name: the video in errors.
    first: number of its first clip among those that it is a part of.
  """
  if rule not in UINT8_RULES:
    raise ValueError(f"rule={rule!r} must be one of {UINT8_RULES}")
  video = np.asarray(video)
  if video.dtype == np.uint8:
    return video
  if not values.is_floating(video.dtype):
    raise ValueError(
      f"{name} has dtype {video.dtype}, expected uint8 or floats in [0, 1]; "
      "cast integers in [0, 255] with .astype(np.uint8)."
    )
  video = video.astype(np.float32)
  values.check_range(name, video, first=first)
  outside = (video < -_OVERSHOOT) | (video > 1 + _OVERSHOOT)
  if video.size and outside.mean() > _MAX_FRACTION_OUTSIDE:
    raise ValueError(
      f"{name} has values in [{video.min():.4g}, {video.max():.4g}], expected "
      "floats in [0, 1]; map [-1, 1] by (x + 1) / 2 and [0, 255] by x / 255."
    )
  scaled = np.clip(video, 0, 1) * 255
  return (np.rint(scaled) if rule == "round" else scaled).astype(np.uint8)


def write_gif(path, video_THWC, fps=8, scale=None):
  """Writes one clip as a GIF that loops for ever; returns the path.

  Up to 256 colours (so every grey-scale clip) are stored exactly; more are
  reduced to one palette for the whole clip, without dithering: a palette per
  frame would make still backgrounds flicker, which looks like a model's fault.

  Args:
    path: file, written atomically; missing folders are made.
    video_THWC: uint8, or floats in [0, 1].
    fps: frames per second, at most 50 (players slow faster GIFs down). GIF
      counts in 1/100 s, so the rate is approximate.
    scale: integer nearest-neighbour enlargement; None picks one that makes the
      picture at most 800 pixels wide.
  """
  video_THWC = _check_rgb("video_THWC", to_uint8(video_THWC), "THWC")
  if not 0 < fps <= 50:
    raise ValueError(f"fps={fps} must be above 0 and at most 50 in a GIF.")
  ids_THW, palette = _quantize(video_THWC)
  frames = []
  for ids_HW in _enlarge(ids_THW, 1, scale):
    frame = Image.fromarray(ids_HW)
    frame.putpalette(palette.tobytes())
    frames.append(frame)
  buffer = io.BytesIO()
  frames[0].save(
    buffer,
    format="GIF",
    save_all=True,
    append_images=frames[1:],
    duration=10 * round(100 / fps),
    loop=0,
  )
  return files.write_atomically(path, buffer.getvalue())


def write_png(path, image_HWC, scale=None):
  """Writes one picture, exactly; `path` and `scale` as in `write_gif`."""
  image_HWC = _check_rgb("image_HWC", to_uint8(image_HWC), "HWC")
  buffer = io.BytesIO()
  enlarged_HWC = np.ascontiguousarray(_enlarge(image_HWC, 0, scale))
  Image.fromarray(enlarged_HWC).save(buffer, format="PNG", optimize=True)
  return files.write_atomically(path, buffer.getvalue())


def _quantize(video_THWC):
  """Palette indices THW (uint8) and the palette, [at most 256, 3] uint8."""
  tall_HWC = video_THWC.reshape(-1, *video_THWC.shape[2:])
  # Median cut alone is exact up to 256 colours; k-means refines it above, until
  # fewer than 1 % of the pixels change their colour: on noise, waiting for the
  # last of them takes ten times longer and gains nothing.
  quantized = Image.fromarray(tall_HWC).quantize(
    256,
    Image.Quantize.MEDIANCUT,
    kmeans=max(1, tall_HWC.size // 300),
    dither=Image.Dither.NONE,
  )
  palette = np.array(quantized.getpalette(), np.uint8).reshape(-1, 3)
  return np.asarray(quantized).reshape(video_THWC.shape[:3]), palette


def _enlarge(array, height_axis, scale):
  """Repeats pixels along height and the next axis, width."""
  height, width = array.shape[height_axis : height_axis + 2]
  if scale is None:
    # The height limits only tall pictures, which would not fit on a screen.
    scale = max(1, min(800 // width, 1600 // height))
  if not isinstance(scale, int) or scale < 1:
    raise ValueError(
      f"scale={scale!r} must be an integer of at least 1, or None."
    )
  return array.repeat(scale, height_axis).repeat(scale, height_axis + 1)


def _check_rgb(name, array, dims):
  """The array, if it has these dimensions, none empty, and C = 3."""
  if array.ndim != len(dims) or 0 in array.shape or array.shape[-1] != 3:
    raise ValueError(
      f"{name} has shape {array.shape}, expected {dims} ({len(dims)} "
      "dimensions, none empty) with C = 3; repeat a single grey channel."
    )
  return array
