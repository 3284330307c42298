"""Held-out scores and pictures of recognizers, pretrained ones included."""

from collections.abc import Iterator
import logging
from typing import Any

import numpy as np

from evaluation import evaluators
from evaluation import recognition
from evaluation.show import pictures
from evaluation.show import report
from input_pipeline import pipeline
from magvit.scoring import model as scored_model
from magvit.scoring import pictures as scoring_pictures
from magvit.trained import Trained
from storage import files
from storage import processes
from storage import progress as progress_lib

log = logging.getLogger(__name__)

_CONFUSION = "confusion"  # name of the table in results/, and of its picture


def score(trained: Trained, count: int) -> list[evaluators.Result]:
  """Accuracies of `count` held-out clips; of masked tokens in pretraining."""
  config = trained.config
  dataset = config.dataset
  views = pipeline.views(dataset)
  batches = _with_progress(
    pipeline.eval_batches(dataset, "held_out", count, config.batch_size, views),
    count,
  )
  protocol = {
    "dataset": dataset.name,
    "split": "held_out",
    "input": config.recognizer.input,
  }
  if "classify" not in trained.algorithm.predict:
    return [_score_masked(trained, batches, protocol)]
  predict = scored_model.predictor(trained, "classify")
  names = pipeline.class_names(dataset)
  scored = recognition.evaluate(
    lambda video: predict({"video": video}), batches, views, names, protocol
  )
  if processes.is_first():
    path = files.inside(trained.workdir, "results", f"{_CONFUSION}.csv")
    files.write_atomically(path, recognition.as_csv(scored.confusion_VV, names))
    log.info("wrote %s", path)
    sheet = recognition.picture(scored.confusion_VV)
    path = files.inside(trained.workdir, "samples", f"{_CONFUSION}.png")
    pictures.write_png(path, sheet)
    caption = (
      "Rows: true classes, in order; columns: what they are taken for; white is"
      f" all of them; step {trained.step}."
    )
    report.add_caption(
      trained.workdir, f"{_CONFUSION}.png", "Classes of held-out clips", caption
    )
  return [scored.result]


def draw(trained: Trained) -> None:
  """Writes the report; the picture is drawn with the scores."""
  scoring_pictures.write_report(trained.workdir)


def _with_progress(batches, count: int) -> Iterator[Any]:
  progress = progress_lib.Progress("recognising", count, "clips")
  for batch, real in batches:
    yield batch, real
    progress.add(real)


def _score_masked(
  trained: Trained, batches, protocol: dict[str, Any]
) -> evaluators.Result:
  """Loss and accuracy of masked tokens of held-out clips."""
  predict = scored_model.predictor(trained, "complete")
  loss, hits, hidden, clips = 0.0, 0, 0, 0
  for batch, count in batches:
    outputs = predict({"video": batch["video"]}, trained.config.seed + clips)
    rows = {name: np.asarray(x)[:count] for name, x in outputs.items()}
    loss += float((rows["loss"] * rows["hidden"]).sum(dtype=np.float64))
    hits += int((rows["hits"] & rows["hidden"]).sum())
    hidden += int(rows["hidden"].sum())
    clips += count
  return evaluators.Result(
    "masked_tokens",
    {"masked_loss": loss / hidden, "masked_accuracy": hits / hidden},
    {**protocol, "examples": clips, "masked_tokens": hidden},
  )
