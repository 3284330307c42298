"""Pictures of a trained model's work, and the report that shows them."""

import dataclasses
import logging
import os

import numpy as np

from evaluation import evaluators
from evaluation.show import pictures
from evaluation.show import report
from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit.generators import tasks as tasks_lib
from magvit.scoring import model as scored_model
from magvit.tokenizer import describe
from magvit.trained import Trained
from storage import files
from storage import processes

log = logging.getLogger(__name__)

_SHOWN = 8  # clips in a picture
_ROWS = 4  # clips of which the frames are shown side by side


def one_writer(workdir: str, mode: str):
  """Lets no other job make pictures meanwhile; the workdir may be trained."""
  samples = files.inside(workdir, "samples")
  return processes.one_writer(samples, mode, beside=True)


def reconstruct(trained: Trained) -> None:
  """Pictures of held-out clips beside their reconstructions.

  Raises:
    ValueError: a model that does not reconstruct.
  """
  config = trained.config
  _require(trained, "reconstruct", algorithm_lib.TOKENIZER)
  predict = scored_model.predictor(trained, "reconstruct")
  count = _shown(config)
  video = scored_model.held_out(config, count)["video"]
  outputs = [
    predict({"video": batch["video"]})["video"][:real]
    for batch, real in scored_model.batches(config, count)
  ]
  pairs = pictures.side_by_side([video, np.concatenate(outputs)])
  title = "Reconstructions of held-out clips"
  caption = f"Original left, reconstruction right; step {trained.step}."
  caption += _whose(config)
  _publish(trained.workdir, "reconstruction", pairs, 4, title, caption)
  write_report(trained.workdir)


def sample(trained: Trained) -> None:
  """Pictures of generated clips, one for each task of the model.

  Raises:
    ValueError: a model that does not generate.
  """
  _require(trained, "sample", algorithm_lib.GENERATOR)
  predict = scored_model.sampler(trained)
  for name in tasks_lib.task_names(trained.config):
    title = name.replace("_", " ").capitalize()
    draw = _completions if tasks_lib.needs_clip(name) else _classes
    drawn = draw(trained, predict, name)
    caption = f"{drawn.caption}; step {trained.step}.{_whose(trained.config)}"
    _publish(trained.workdir, name, drawn.video, drawn.columns, title, caption)
  write_report(trained.workdir)


@dataclasses.dataclass(frozen=True)
class _Drawn:
  """Clips that are drawn on one sheet."""

  video: np.ndarray  # (B, T, H, W, 3): clips of a sheet
  columns: int  # number of columns of the sheet
  caption: str  # text below the sheet, to which the step is added


def _classes(trained: Trained, predict, task: str) -> _Drawn:
  config = trained.config
  columns = min(trained.num_classes, 10)
  label = np.tile(np.arange(columns, dtype=np.int32), 4)
  shape = (len(label), *describe.clip_shape(config), 3)
  nothing = np.zeros(shape, np.uint8)
  video = evaluators.sample_all(
    predict, task, label, nothing, config.batch_size, config.seed
  )
  names = pipeline.class_names(config.dataset)[:columns]
  caption = f"Columns: {', '.join(names or map(str, range(columns)))}"
  if columns < trained.num_classes:
    caption += f", the first {columns} of {trained.num_classes} classes"
  return _Drawn(video, columns, f"{caption}; four samples each")


def _completions(trained: Trained, predict, task: str) -> _Drawn:
  config = trained.config
  batch = scored_model.held_out(config, _shown(config))
  real = batch["video"]
  given = tasks_lib.given_pixels(task, real.shape[1:4], config.condition_frames)
  completed = evaluators.sample_all(
    predict, task, batch["label"], real, config.batch_size, config.seed
  )
  hidden = np.where(given[..., None], real, 96).astype(np.uint8)
  video = pictures.side_by_side([real, hidden, completed])
  caption = (
    "Held-out clip, what the model is given (the rest grey), its completion"
  )
  return _Drawn(video, 2, caption)


def _whose(config) -> str:
  """Words on whose the clips are, to end a caption."""
  attribution = pipeline.attribution(config.dataset)
  return f" Clips: {attribution}." if attribution else ""


def _shown(config) -> int:
  """Number of clips in a picture; small sets have fewer."""
  clips = pipeline.source(config.dataset, "held_out")
  return min(_SHOWN, len(clips))


def _require(trained: Trained, name: str, kind: str) -> None:
  if name not in trained.algorithm.predict:
    raise ValueError(
      f"--mode={name} needs the workdir of {kind}, and {trained.workdir} holds"
      f" {trained.config.name!r}"
    )


def _publish(workdir, name, videos, columns, title, caption) -> None:
  """Writes samples/NAME.gif and .png, and their captions for the report.

  Clips of one frame do not move: of them there is NAME.png alone, with all.
  """
  if not processes.is_first():
    return
  frames = videos.shape[1]
  if frames == 1:
    sheet = files.inside(workdir, "samples", f"{name}.png")
    pictures.write_png(sheet, pictures.tile(videos, columns)[0])
    report.add_caption(workdir, f"{name}.png", title, caption)
    log.info("wrote %s", sheet)
    return
  gif = files.inside(workdir, "samples", f"{name}.gif")
  pictures.write_gif(gif, pictures.tile(videos, columns))
  strip = files.inside(workdir, "samples", f"{name}.png")
  rows = videos[:_ROWS]
  pictures.write_png(strip, pictures.filmstrip(rows, every=2))
  report.add_caption(workdir, f"{name}.gif", title, caption)
  report.add_caption(
    workdir,
    f"{name}.png",
    f"{title}, frame by frame",
    f"The first {len(rows)}, one a row; every second frame of {frames} from"
    " left to right, beginning with the first.",
  )
  log.info("wrote %s and %s", gif, strip)


def write_report(workdir: str) -> None:
  """Writes WORKDIR/report.html, from process 0."""
  if processes.is_first():
    path = os.path.join(workdir, "report.html")
    log.info("wrote %s", report.write_report([workdir], path))
