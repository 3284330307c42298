"""--mode=reconstruct: codes and decodes images and videos with a tokenizer.

  python main.py --mode=reconstruct --input=FILE_OR_FOLDER --workdir=DIR

Each file is padded to a size that the strides allow (the edge pixels repeated
at the bottom and on the right, the last frame repeated at the end), encoded,
decoded and cropped back, so that the output has the frames and the size of the
input. Every run writes new files and replaces none but the picture in the
report:

  WORKDIR/reconstructions/NAME/reconstruction/  PNG of images, MP4 of videos
  WORKDIR/reconstructions/NAME/side_by_side/    original | reconstruction
  WORKDIR/results/media_NAME.json               scores, protocol, failures,
                                                files that are left

NAME is the input's name, with a number from its second run on; characters that
do not print are replaced in what is written, and long names are shortened.
`magvit/tokenizer/frames.py` says how frames are coded, and how many at once.
Each new size has to be compiled first.
"""

import collections
import contextlib
import itertools
import logging
import os
from typing import Any

import jax
import ml_collections
import numpy as np

from evaluation.metrics import frames as frame_metrics
from evaluation.show import mp4
from evaluation.show import pictures
from evaluation.show import report
from input_pipeline.decoding import media as media_lib
from magvit import command_line
from magvit.modes import offline
from magvit.modes import table
from magvit.scoring import media_scores
from magvit.scoring import pictures as scoring_pictures
from magvit.tokenizer import describe
from magvit.tokenizer import frames as frames_lib
from magvit.tokenizer import loaded
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from storage import files
from storage import listing
from storage import progress as progress_lib
from storage import stores

log = logging.getLogger(__name__)

_SHOWN = 4  # most files that the report shows
_BAR = 2  # pixels between the two pictures: even, to keep even widths even

_PROTOCOL = {
  "padding": "to the strides: edge pixels repeated at the bottom and on the"
  " right, last frame repeated at the end; cropped back",
  "pixels": "8-bit RGB as decoded, transparency on white; the reconstruction"
  " is clipped to [0, 1], times 255, rounded; scored before any video codec",
  "psnr": f"{frame_metrics.PSNR_RULE}, per frame; mean over a file's frames,"
  " then over files",
  "ssim": "rgb, Gaussian 11, sigma 1.5, valid; means as for psnr, without"
  " files of fewer than 11 pixels",
}


def run(
  options: table.Reconstruct,
  config: ml_collections.ConfigDict | None,
  workdir: str,
) -> None:
  config = workdir_lib.stored_config(workdir, config)
  if options.input is None:
    with scoring_pictures.one_writer(workdir, "--mode=reconstruct"):
      scoring_pictures.reconstruct(offline.open_model(workdir, config))
  else:
    reconstruct(workdir, options.input)


def reconstruct(workdir: str, path: str) -> None:
  """Codes and decodes a file, or the images and videos in a folder and below.

  Within a folder a file that fails does not stop the rest. Scores and failures
  are written as the run goes, so that one that is stopped keeps those it has.

  Raises:
    ValueError: nothing to read at `path`; a workdir without a tokenizer; or,
      after the others were written, files that failed.
    OSError: outputs cannot be written.
  """
  folder, names, skipped = _sources(path)
  tokenizer = loaded.load_tokenizer(workdir)
  step = weights_lib.latest_step(workdir_lib.own_tokenizer(workdir) or workdir)
  run = _claim_name(workdir, path)
  results = media_scores.Results(
    path=_results_path(workdir, run),
    run=run,
    step=step,
    protocol={"input": listing.text(path), **_protocol(tokenizer.config)},
    left=[listing.text(name) for name in names],
    skipped=[listing.text(name) for name in skipped],
  )
  targets = _target_names(names)
  shown = []
  progress = progress_lib.Progress(run, len(names), "files", seconds=0)
  try:
    for name in names:
      file = listing.text(name)
      try:
        row, pair_HWC = _reconstruct_file(
          tokenizer, os.path.join(folder, name), workdir, run, targets[name]
        )
      except Exception as error:  # decoders and encoders raise nearly anything
        reason = command_line.reason(error)
        if not stores.is_folder(path):
          raise ValueError(f"--input={path}: {reason}") from error
        if files.is_full(error):
          raise  # no other file can be written either
        results.fail(file, reason)
        outcome = f"failed: {reason}"
      else:
        results.add({"file": file, **row})
        shown = (shown + [(file, pair_HWC)])[:_SHOWN]
        outcome = media_scores.scores_text(row)
      progress.add(1, f"{file}: {outcome}")
  finally:
    results.finish(os.path.join(workdir, "reconstructions", run))
  _report(workdir, results, shown)
  if results.failures:
    raise ValueError(_failed(results.failures, len(names), path, results.path))


def _report(
  workdir: str,
  results: media_scores.Results,
  shown: list[tuple[str, np.ndarray]],
) -> None:
  """Says what was made, in the log and in the workdir's report."""
  if shown:
    _show(workdir, shown, results.step)
    log.info("scores\n%s", "\n".join(media_scores.table(results.rows)))
    log.info("wrote %s", os.path.join(workdir, "reconstructions", results.run))
  scoring_pictures.write_report(workdir)
  log.info("wrote %s; %s", results.path, results.result().summary())
  if results.failures:
    failures = (f"{name}: {why}" for name, why in results.failures.items())
    log.info("failed\n%s", "\n".join(failures))


def _failed(
  failures: dict[str, str], count: int, path: str, results_path: str
) -> str:
  few = ", ".join(list(failures)[:3]) + ", ..." * (len(failures) > 3)
  return (
    f"{len(failures)} of {count} files in --input={path} failed ({few}), the"
    f" others are done; {results_path} says why: mend or remove them"
  )


def _sources(path: str) -> tuple[str, list[str], list[str]]:
  """Returns (folder, files to read in it, other files in it)."""
  if jax.process_count() > 1:
    raise ValueError(
      f"--input={path} is read by one process, and {jax.process_count()} were"
      " started: run again without --distributed"
    )
  if stores.is_file(path):
    held = stores.fetched(path)
    return os.path.dirname(held), [os.path.basename(held)], []
  if not stores.is_folder(path):
    raise ValueError(
      f"--input={path} is neither a file nor a folder: give the path of an"
      " image, a video, or a folder of them"
    )
  held = stores.fetched_folder(path)
  names, others = media_lib.find(held)
  if not names:
    suffixes = " ".join(media_lib.IMAGE_SUFFIXES + media_lib.VIDEO_SUFFIXES)
    raise ValueError(
      f"--input={path} is a folder with {len(others)} files and none of them"
      f" an image or a video: their names must end in one of {suffixes}"
    )
  if others:
    log.info("skipping %d files of other types in %s", len(others), path)
  return held, names, others


def _claim_name(workdir: str, path: str) -> str:
  """Makes reconstructions/NAME for this run alone, and returns NAME.

  It is the name of the input, with a number if another run took it, be it one
  that goes on at the same time.
  """
  stem = listing.safe(_stem(os.path.basename(stores.absolute(path)))) or "input"
  numbered = (f"{stem}-{number}" for number in itertools.count(2))
  return next(
    name
    for name in itertools.chain([stem], numbered)
    if not _is_taken(_results_path(workdir, name))
    if files.claim_folder(files.inside(workdir, "reconstructions", name))
  )


def _is_taken(path: str) -> bool:
  return stores.exists(path) or os.path.lexists(path)


def _results_path(workdir: str, run: str) -> str:
  return files.inside(workdir, "results", f"media_{run}.json")


def _target_names(names: list[str]) -> dict[str, str]:
  """File -> the name of its outputs, without .png or .mp4.

  The name has no suffix, except for files that share the rest, as a.png and
  a.jpg do. Names that differ in capitals alone count as the same, as they are
  on some file systems. Those that are long or do not print are changed.
  """
  stems = collections.Counter(_stem(name).lower() for name in names)
  targets, taken = {}, set()
  for name in names:
    wanted = _stem(name) if stems[_stem(name).lower()] == 1 else name
    wanted = listing.safe(wanted)
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    targets[name] = next(
      target
      for target in itertools.chain([wanted], numbered)
      if target.lower() not in taken
    )
    taken.add(targets[name].lower())
  return targets


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]


def _reconstruct_file(
  tokenizer: loaded.LoadedTokenizer,
  path: str,
  workdir: str,
  run: str,
  target: str,
) -> tuple[dict[str, Any], np.ndarray]:
  """Returns a file's (entry of the results, first pair of frames (H, W, 3))."""
  listing.check_file(path)
  media = media_lib.probe(path)
  suffix = ".mp4" if media.kind == "video" else ".png"
  alone, beside = (
    files.inside(workdir, "reconstructions", run, kind, target + suffix)
    for kind in ("reconstruction", "side_by_side")
  )
  scores = {name: [] for name in frame_metrics.at("files")}
  with contextlib.ExitStack() as stack:
    if media.kind == "video":
      writers = [
        stack.enter_context(mp4.Writer(name, media.video_rate))
        for name in (alone, beside)
      ]
    frames = frames_lib.reconstruct_frames(tokenizer, media.frames())
    for count, (original_HWC, output_HWC) in enumerate(frames, start=1):
      real_BTHWC, fake_BTHWC = (
        frame_HWC[None, None] / np.float64(255.0)
        for frame_HWC in (original_HWC, output_HWC)
      )
      scored = frame_metrics.scores("files", real_BTHWC, fake_BTHWC)
      for name, score in scored.items():
        scores[name].append(score.item())
      pair_HWC = pictures.side_by_side(
        [original_HWC[None, None], output_HWC[None, None]], _BAR
      )[0, 0]
      if count == 1:
        first_HWC = pair_HWC
      if media.kind == "video":
        writers[0].add(output_HWC)
        writers[1].add(pair_HWC)
      else:
        pictures.write_png(alone, output_HWC, scale=1)
        pictures.write_png(beside, pair_HWC, scale=1)
  height, width = original_HWC.shape[:2]
  padded = describe.padded_shape(tokenizer.config, (count, height, width))
  row = {
    "kind": media.kind,
    "coding": media.coding,
    "frames": count,
    "height": height,
    "width": width,
    "frame_rate": media.frame_rate and str(media.frame_rate),
    "padded_frames": padded[0],
    "padded_height": padded[1],
    "padded_width": padded[2],
    **{k: float(np.mean(v)) if v else None for k, v in scores.items()},
    "reconstruction": os.path.relpath(alone, workdir),
    "side_by_side": os.path.relpath(beside, workdir),
  }
  return row, first_HWC


def _protocol(config) -> dict[str, Any]:
  sizes = describe.sizes(config)
  return {
    "strides": f"{sizes.time} in time, {sizes.space} in space",
    "frames": describe.manner(config),
    **_PROTOCOL,
  }


def _show(workdir: str, shown: list[tuple[str, np.ndarray]], step: int) -> None:
  """Puts the first pairs of a run into the report."""
  sheet_HWC = pictures.stack([pair_HWC for _, pair_HWC in shown])
  path = files.inside(workdir, "samples", "media.png")
  pictures.write_png(path, sheet_HWC)
  report.add_caption(
    workdir,
    "media.png",
    "Your own media",
    f"Original left, reconstruction right; first frames of"
    f" {', '.join(name for name, _ in shown)}; step {step}.",
  )
