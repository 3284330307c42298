"""Pictures of a trained model's work, and the report that shows them."""

import logging
import os

import numpy as np

from evaluation import evaluators
from evaluation.show import pictures
from evaluation.show import report
from input_pipeline import pipeline
from magvit.generators import tasks
from magvit.scoring import model as scored_model
from magvit.tokenizer import describe
from storage import processes

log = logging.getLogger(__name__)

_SHOWN = 8  # clips in a picture


def reconstruct(config, workdir, mesh, algorithm, params, step) -> None:
  """Pictures of held-out clips beside their reconstructions."""
  _require(algorithm, "reconstruct", config, "a tokenizer")
  predict = scored_model.predictor(algorithm, "reconstruct", mesh, params)
  count = _shown(config)
  video = scored_model.held_out(config, count)["video"]
  outputs = [
    predict({"video": batch["video"]})["video"][:real]
    for batch, real in scored_model.batches(config, count)
  ]
  pairs = pictures.side_by_side([video, np.concatenate(outputs)])
  title = "Reconstructions of held-out clips"
  caption = f"Original left, reconstruction right; step {step}."
  _publish(workdir, "reconstruction", pairs, 4, title, caption)
  write_report(workdir)


def sample(config, workdir, mesh, algorithm, params, step) -> None:
  """Pictures of generated clips, one for each task of the model."""
  _require(algorithm, "sample", config, "a generator")
  names = tasks.task_names(config)
  predict = scored_model.sampler(config, mesh, algorithm, params)
  seed = config.seed
  for name in names:
    title = name.replace("_", " ").capitalize()
    if not tasks.needs_clip(name):
      classes = config.transformer.num_classes
      label = np.tile(np.arange(min(classes, 10), dtype=np.int32), 4)
      shape = (len(label), *describe.clip_shape(config), 3)
      nothing = np.zeros(shape, np.uint8)
      shown = evaluators.sample_all(
        predict, name, label, nothing, config.batch_size, seed
      )
      columns = min(classes, 10)
      caption = f"One class a column, four samples each; step {step}."
    else:
      batch = scored_model.held_out(config, _shown(config))
      real = batch["video"]
      given = tasks.given_pixels(name, real.shape[1:4], config.condition_frames)
      completed = evaluators.sample_all(
        predict, name, batch["label"], real, config.batch_size, seed
      )
      hidden = np.where(given[..., None], real, 96).astype(np.uint8)
      shown = pictures.side_by_side([real, hidden, completed])
      columns = 2
      caption = (
        "Held-out clip, what the model is given (the rest grey), its"
        f" completion; step {step}."
      )
    _publish(workdir, name, shown, columns, title, caption)
  write_report(workdir)


def _shown(config) -> int:
  """Clips in a picture: small sets have fewer."""
  clips = pipeline.source(config.dataset, "held_out")
  return min(_SHOWN, len(clips))


def _require(algorithm, name, config, what) -> None:
  if name not in algorithm.predict:
    raise ValueError(
      f"--mode={name} needs the workdir of {what}, and this one holds"
      f" {config.name!r}"
    )


def _publish(workdir, name, videos, columns, title, caption) -> None:
  """Writes samples/NAME.gif and .png, and their captions for the report."""
  if not processes.is_first():
    return
  folder = os.path.join(workdir, "samples")
  os.makedirs(folder, exist_ok=True)
  gif = os.path.join(folder, f"{name}.gif")
  pictures.write_gif(gif, pictures.tile(videos, columns))
  strip = os.path.join(folder, f"{name}.png")
  pictures.write_png(strip, pictures.filmstrip(videos[:4], every=2))
  report.add_caption(workdir, f"{name}.gif", title, caption)
  report.add_caption(
    workdir,
    f"{name}.png",
    f"{title}, frame by frame",
    "The first of them; every second frame from left to right.",
  )
  log.info("wrote %s and %s", gif, strip)


def write_report(workdir: str) -> None:
  """Writes WORKDIR/report.html, from process 0."""
  if processes.is_first():
    path = os.path.join(workdir, "report.html")
    log.info("wrote %s", report.write_report([workdir], path))
