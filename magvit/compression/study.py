"""Compression study: our tokens against HEVC and VVC, over a folder of videos.

  python -m magvit.compress --input=FOLDER --output=FOLDER --workdirs=A,B,...

Each workdir is one point of the curve "tokens": its tokenizer codes every video
(`magvit/tokenizer/frames.py`), the ids become a file (`file_format.py`), and
the video decoded from that file is scored; `python -m magvit.decompress` shows
it. The workdir of a generator codes its tokenizer's ids by the generator's
probabilities, on the curve "tokens, generator". x265 and vvenc
(`video_codecs.py`) code the same frames at six quantization parameters each.
Rates count all bytes of the files, headers too.

  OUTPUT/study.json       settings, means, BD-rates, values at a rate, failures
  OUTPUT/study.png        rate against distortion
  OUTPUT/items/VIDEO/     one result and one coded file of each point

The same command again makes what is missing.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import fractions
import functools
import itertools
import json
import logging
import os
import time
from typing import Annotated
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from evaluation.metrics import frames as frame_metrics
from evaluation.metrics import lpips
from input_pipeline.decoding import media
from magvit import command_line
from magvit.compression import decode as decode_file
from magvit.compression import file_format
from magvit.compression import rate_distortion
from magvit.compression import video_codecs
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.tokenizer import frames as frames_lib
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from storage import files
from storage import listing
from storage import parts
from storage import progress as progress_lib
from storage import schema
from storage.version import VERSION

log = logging.getLogger(__name__)

_SCORE = Annotated[float, schema.FINITE] | None
_POSITIVE = schema.Rule("above 0", lambda value: value > 0)
_FRAMES_AT_ONCE = 4  # frames that are scored together
_PROTOCOL = {
  "frames": "cut centrally to the aspect, resized (Pillow, bicubic,"
  " antialiased) to 8-bit RGB, which all are given and compared with",
  "rate": "8 x all bytes of the file / (frames x height x width)",
  "x265": "Annex-B; constant QP, -tune psnr, keyint=-1: intra at the start and"
  " where x265 sees a scene cut",
  "vvenc": "Annex-B; constant QP, qpa=0, 10 bits, period longer than the video:"
  " intra at the start",
  "conversion": "BT.709, limited range, 4:2:0, bicubic, both ways",
  "tokens": "file of magvit/compression/file_format.py",
  "scores": "on 8-bit RGB, per frame, mean over frames, then over videos; PSNR"
  " at most 100 dB; MS-SSIM of five scales on RGB; LPIPS v0.1, VGG-16",
}


@dataclasses.dataclass(frozen=True)
class Study:
  """Settings of a study; they are flags of --mode=compress."""

  workdirs: tuple[str, ...]
  codecs: tuple[video_codecs.VideoCodec, ...]
  height: int = 360
  width: int = 640
  frames: int | None = None  # first frames of each video; None: all
  at_bpp: float = 0.0384
  lpips: str | None = None  # file of weights; None: LPIPS is not measured


@dataclasses.dataclass(frozen=True)
class _Contestant:
  """A point of a curve: a way to code videos."""

  curve: str
  point: str
  suffix: str
  # (video (T, H, W, 3), frame rate, path) -> (decoded video, more results).
  code: Callable[..., tuple[np.ndarray, dict[str, Any]]]


def compress(study: Study, input_path: str, output_path: str) -> dict[str, Any]:
  """Runs what is missing of a study; writes and returns its results.

  Raises:
    ValueError: no videos, a workdir without a tokenizer, an output of another
      study; or, after all else was written, videos that failed.
  """
  names, settings = _check(study, input_path, output_path)
  contestants = list(_contestants(study))
  whole = parts.Folder(
    output_path,
    [
      f"items/{listing.safe(name)}/{_file_name(c)}.json"
      for name in names
      for c in contestants
    ],
  )
  progress = progress_lib.Progress(
    "compress", len(whole.mine()), "items", seconds=0
  )
  distance = None if study.lpips is None else lpips.load_distance(study.lpips)
  rows, failures = [], {}
  for number, name in enumerate(names):
    first = number * len(contestants)
    results = [whole.part(first + i) for i in range(len(contestants))]
    read = functools.partial(_read, os.path.join(input_path, name), study)
    name = listing.text(name)
    try:
      _make_missing(name, contestants, results, read, distance, progress)
      # A video counts with all its points or not at all, so that all means are
      # over the same videos.
      rows += [files.read_json(path) for path in results]
    except Exception as error:  # decoders and encoders raise nearly anything
      if files.is_full(error):
        raise
      failures[name] = command_line.reason(error)
      log.info("%s failed: %s", name, failures[name])
  results = _summary(study, settings, rows, failures)
  target = os.path.join(output_path, "study.json")
  files.write_json(target, results)
  if rows:
    plot = rate_distortion.plot(results["curves"])
    files.write_atomically(os.path.join(output_path, "study.png"), plot)
  log.info("wrote %s", target)
  if failures:
    raise ValueError(
      f"{len(failures)} of {len(names)} videos in {input_path} failed and are"
      f" in no mean ({', '.join(list(failures)[:3])}); {target} says why: mend"
      " or remove them"
    )
  return results


def _make_missing(name, contestants, results, read, distance, progress) -> None:
  """Measures the points of one video whose result files are missing."""
  video_THWC = None
  for contestant, path in zip(contestants, results, strict=True):
    if _is_measured(path, name, contestant):
      continue
    if video_THWC is None:
      video_THWC, rate = read()
    folder = os.path.dirname(path)
    row = _measure(contestant, video_THWC, rate, folder, distance)
    files.write_json(path, {"video": name, **row})
    progress.add(1, f"{name}: {_text(row)}")


def _is_measured(path: str, name: str, contestant: _Contestant) -> bool:
  """Whether a result is there, and of this point of this video.

  One that a power loss cut is not.
  """
  if not os.path.exists(path):
    return False
  kinds = dict.fromkeys(frame_metrics.at("study"), _SCORE) | {
    "video": Annotated[str, schema.one_of(name)],
    "curve": Annotated[str, schema.one_of(contestant.curve)],
    "point": Annotated[str, schema.one_of(contestant.point)],
    "bpp": Annotated[float, schema.FINITE, _POSITIVE],
  }
  again = "it is measured again"
  try:
    row = schema.load(path, dict[str, Any], again)
    for field, kind in kinds.items():
      schema.convert(row.get(field), kind, path, again, field)
  except ValueError as error:
    log.warning("%s", error)
    return False
  return True


def _check(study, input_path, output_path):
  """Returns (videos, settings); claims the output for this study."""
  for side in ("height", "width"):
    if getattr(study, side) < 16 or getattr(study, side) % 2:
      raise ValueError(
        f"{side}={getattr(study, side)} must be even, for 4:2:0, and at least"
        " 16"
      )
  if study.frames is not None and study.frames < 1:
    raise ValueError(f"--frames={study.frames} must be at least 1")
  points = [_file_name(contestant) for contestant in _contestants(study)]
  if len(set(points)) < len(points):
    raise ValueError(
      f"--workdirs={','.join(study.workdirs)}: two folders, or two quantization"
      " parameters, have one name, which results are kept by: rename one, or"
      " name each once"
    )
  if not os.path.isdir(input_path):
    raise ValueError(f"--input={input_path} is not a folder of videos")
  names = [
    name
    for name in media.find(input_path)[0]
    if name.lower().endswith(media.VIDEO_SUFFIXES)
  ]
  if not names:
    raise ValueError(
      f"--input={input_path} holds no videos: their names must end in one of"
      f" {' '.join(media.VIDEO_SUFFIXES)}"
    )
  settings = {
    **dataclasses.asdict(study),
    "tokens": {w: _describe(w) for w in study.workdirs},
    "ffmpeg": video_codecs.version(),
    "jax": f"{jax.__version__} on {jax.devices()[0].device_kind}",
    "protocol": _PROTOCOL,
  }
  text = json.dumps(settings, indent=2) + "\n"
  # Settings may change that only the summary of results depends on.
  whole = parts.Folder(output_path, ())
  whole.claim("settings.json", text, "study settings", free=("at_bpp",))
  return names, json.loads(text)


def _describe(workdir: str) -> dict[str, Any]:
  source = workdir_lib.own_tokenizer(workdir) or workdir
  config = workdir_lib.read_config(source)
  if describe.is_tokenizer(config):
    describe.require_ids(config, f"--workdirs={workdir}: --mode=compress")
  sizes = describe.sizes(config)
  return {
    "tokenizer": fingerprint.read_fingerprint(source),
    "strides": f"{sizes.time} in time, {sizes.space} in space",
    "vocabulary": describe.vocabulary(config),
    "frames": describe.manner(config),
    "step": weights_lib.latest_step(source),
    "coded by": "adaptive contexts"
    if source == workdir
    else f"the generator in {workdir}",
  }


def _contestants(study: Study) -> Iterator[_Contestant]:
  for workdir in study.workdirs:
    is_generator = workdir_lib.own_tokenizer(workdir) is not None
    curve = "tokens, generator" if is_generator else "tokens"
    point = os.path.basename(os.path.abspath(workdir))
    yield _Contestant(curve, point, file_format.SUFFIX, _tokens(workdir))
  for each in study.codecs:
    for qp in each.qps:
      code = functools.partial(_video_codec, each, qp)
      yield _Contestant(each.name, f"qp {qp}", f".{each.format}", code)


def _tokens(workdir: str):
  """Makes a function that codes with a workdir's tokenizer or generator."""
  models = functools.cache(lambda: decode_file.models(workdir))

  def code(video_THWC, rate, path):
    tokenizer, name, generator = models()
    shape = video_THWC.shape[:3]
    vocabulary = describe.vocabulary(tokenizer.config)
    ids_thw = np.concatenate(
      list(frames_lib.encode_frames(tokenizer, video_THWC))
    )
    coded = file_format.Coded(ids_thw, vocabulary, shape, rate, name)
    files.write_atomically(path, file_format.pack(coded, generator))
    with open(path, "rb") as f:
      data = f.read()
    grid = decode_file.tokenizer_grid(tokenizer)
    coded = file_format.unpack(data, name, generator, path, grid)
    if not np.array_equal(coded.ids_thw, ids_thw):
      raise ValueError(f"{path} does not decode to the tokens that went in")
    padded = describe.padded_shape(tokenizer.config, shape)
    pixels = np.prod(shape)
    further = {
      "bpp_uncoded": ids_thw.size * float(np.log2(vocabulary) / pixels),
      "padding_share": float(1 - pixels / np.prod(padded)),
    }
    decoded = frames_lib.decode_frames(tokenizer, [coded.ids_thw], shape)
    return np.stack(list(decoded)), further

  return code


def _video_codec(codec_, qp, video_THWC, rate, path):
  video_codecs.encode(codec_, qp, video_THWC, rate, path)
  output_THWC = video_codecs.decode(codec_, path, video_THWC.shape[:3])
  seconds = video_THWC.shape[0] / rate
  return output_THWC, {"ffmpeg": codec_.settings(qp, seconds)}


def _read(path: str, study: Study) -> tuple[np.ndarray, fractions.Fraction]:
  """Reads (uint8 (T, H, W, 3) of the study's size, frames per second)."""
  source = media.probe(path)
  if source.kind != "video":
    raise ValueError(f"{path} is an image, not a video")
  frames = itertools.islice(source.frames(), study.frames)
  size = (study.height, study.width)
  return np.stack([_resize(f, *size) for f in frames]), source.video_rate


def _resize(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
  h, w = frame_HWC.shape[:2]
  scale = min(h / height, w / width)
  top, left = (h - scale * height) / 2, (w - scale * width) / 2
  box = (left, top, w - left, h - top)
  image = Image.fromarray(np.ascontiguousarray(frame_HWC))
  resized = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
  return np.asarray(resized)


def _measure(contestant, video_THWC, rate, folder, distance) -> dict[str, Any]:
  path = files.inside(folder, _file_name(contestant) + contestant.suffix)
  start = time.monotonic()
  output_THWC, further = contestant.code(video_THWC, rate, path)
  seconds = time.monotonic() - start
  size = os.path.getsize(path)
  frames, height, width = video_THWC.shape[:3]
  return {
    "curve": contestant.curve,
    "point": contestant.point,
    "frames": frames,
    "frame_rate": str(rate),
    "bytes": size,
    "bpp": 8 * size / (frames * height * width),
    **_scores(video_THWC, output_THWC, distance),
    "seconds": seconds,  # time to encode and decode, compilation included
    **further,
  }


def _scores(video_THWC, output_THWC, distance) -> dict[str, float | None]:
  def distances(*pair_1THWC):
    real_THWC, fake_THWC = (jnp.asarray(x[0], jnp.float32) for x in pair_1THWC)
    return np.asarray(distance(real_THWC, fake_THWC))[None]

  networks = {} if distance is None else {"lpips": distances}
  values = {name: [] for name in frame_metrics.at("study")}
  for at in range(0, len(video_THWC), _FRAMES_AT_ONCE):
    real_1THWC, fake_1THWC = (
      video[None, at : at + _FRAMES_AT_ONCE] / np.float64(255)
      for video in (video_THWC, output_THWC)
    )
    scores = frame_metrics.scores("study", real_1THWC, fake_1THWC, networks)
    for name, score_1T in scores.items():
      values[name] += score_1T[0].tolist()
  return {k: float(np.mean(v)) if v else None for k, v in values.items()}


def _summary(study, settings, rows, failures) -> dict[str, Any]:
  curves = rate_distortion.mean_curves(rows)
  return {
    "version": VERSION,
    "settings": settings,
    "psnr": f"{frame_metrics.PSNR_RULE}; mean over frames, then videos",
    "curves": curves,
    "bd_rate": {
      "of": "the mean curves, pchip in log(bpp), percent of the second's rate",
      **rate_distortion.compare(curves),
    },
    "at_rate": {
      "bpp": study.at_bpp,
      **rate_distortion.at_rate(curves, study.at_bpp),
    },
    "videos": len({row["video"] for row in rows}),
    "items": rows,
    "failures": failures,
  }


def _file_name(contestant: _Contestant) -> str:
  return f"{contestant.curve}-{contestant.point}".replace(" ", "_")


def _text(row: dict[str, Any]) -> str:
  return (
    f"{row['curve']} {row['point']}, {row['bpp']:.4f} bpp, {row['psnr']:.2f} dB"
  )
