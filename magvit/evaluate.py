"""Evaluation, pictures and the report of a workdir, from predict functions."""

from collections.abc import Callable
import functools
import json
import logging
import os
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from evaluation import digit_judge
from evaluation import evaluators
from evaluation import files
from evaluation import lpips
from evaluation import pictures
from evaluation import report
from input_pipeline import pipeline
from magvit import masking
from magvit import mesh as mesh_lib
from magvit import state as state_lib
from magvit import tokenizer

log = logging.getLogger(__name__)

_JUDGE_CLIPS = 2000  # real training clips that the judge is fitted on
_JUDGE_FIRST_CLIP = 2**32  # far from those a model is trained on
_SHOWN = 8  # clips in a picture


def evaluate(
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: Mesh,
  algorithm: state_lib.Algorithm,
  params: Any,
  step: int,
) -> list[evaluators.Result]:
  """Runs the evaluators that fit the algorithm's predict functions.

  Writes results/*.json, samples/ and report.html, and prints the scores.
  """
  results = []
  if "reconstruct" in algorithm.predict:
    results += _score_reconstruction(config, mesh, algorithm, params)
  if "sample" in algorithm.predict:
    results += _score_samples(config, mesh, algorithm, params)
  if jax.process_index() == 0:
    for result in results:
      result.write(workdir, step)
      log.info("%s", result.summary())
  for draw in (reconstruct, sample):
    if draw.__name__ in algorithm.predict:
      draw(config, workdir, mesh, algorithm, params, step)
  return results


def reconstruct(config, workdir, mesh, algorithm, params, step) -> None:
  """Pictures of held-out clips beside their reconstructions."""
  _require(algorithm, "reconstruct", config, "a tokenizer")
  predict = predictor(algorithm, "reconstruct", mesh, params)
  count = _shown(config)
  video = _held_out(config, count)["video"]
  outputs = [
    predict({"video": batch["video"]})["video"][:real]
    for batch, real in _batches(config, count)
  ]
  pairs = pictures.side_by_side([video, np.concatenate(outputs)])
  title = "Reconstructions of held-out clips"
  caption = f"Original left, reconstruction right; step {step}."
  _publish(workdir, "reconstruction", pairs, 4, title, caption)
  write_report(workdir)


def sample(config, workdir, mesh, algorithm, params, step) -> None:
  """Pictures of generated clips, one for each task of the model."""
  _require(algorithm, "sample", config, "a generator")
  names = masking.task_names(config)
  predict = sampler(config, mesh, algorithm, params)
  seed = config.seed
  for name in names:
    title = name.replace("_", " ").capitalize()
    if not masking.needs_clip(name):
      classes = config.transformer.num_classes
      label = np.tile(np.arange(min(classes, 10), dtype=np.int32), 4)
      shape = (len(label), *tokenizer.clip_shape(config), 3)
      nothing = np.zeros(shape, np.uint8)
      shown = evaluators.sample_all(
        predict, name, label, nothing, config.batch_size, seed
      )
      columns = min(classes, 10)
      caption = f"One class a column, four samples each; step {step}."
    else:
      batch = _held_out(config, _shown(config))
      real = batch["video"]
      given = masking.given_pixels(
        name, real.shape[1:4], config.condition_frames
      )
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


MODES: dict[str, Callable] = {
  "evaluate": evaluate,
  "sample": sample,
  "reconstruct": reconstruct,
}


def flat(results: list[evaluators.Result]) -> dict[str, float]:
  """{"eval/EVALUATOR/METRIC": value}."""
  return {
    f"eval/{r.evaluator}/{name}": value
    for r in results
    for name, value in r.metrics.items()
  }


def _score_reconstruction(config, mesh, algorithm, params):
  predict = predictor(algorithm, "reconstruct", mesh, params)
  batches = (
    (batch["video"], real)
    for batch, real in _batches(config, config.dataset.eval_examples)
  )
  return evaluators.evaluate_reconstruction(
    lambda video: predict({"video": video}),
    batches,
    tokenizer.vocabulary(config),
    _protocol(config),
    _lpips(config.evaluation.lpips_weights),
  )


@functools.cache
def _lpips(weights: str) -> lpips.Lpips | None:
  return lpips.Lpips(weights) if weights else None


def _score_samples(config, mesh, algorithm, params):
  predict = sampler(config, mesh, algorithm, params)
  real = _held_out(config, config.dataset.eval_examples)
  common = dict(
    sample=predict,
    real_video=real["video"],
    real_label=real["label"],
    batch_size=config.batch_size,
    seed=config.seed,
    protocol={**_protocol(config), **config.sampling.to_dict()},
  )
  results = []
  for name in masking.task_names(config):
    if not masking.needs_clip(name):
      if config.dataset.name != "digits":
        log.info(
          "%s is not scored: of %s there is no judge of classes; name"
          " protocols in config.evaluation.protocols",
          *(name, config.dataset.name),
        )
        continue
      results += evaluators.evaluate_class_samples(
        judge=_digit_judge(config.dataset.to_json()),
        samples_per_class=config.sampling.samples_per_class,
        **common,
      )
    else:
      given = masking.given_pixels(
        name, real["video"].shape[1:4], config.condition_frames
      )
      results.append(
        evaluators.evaluate_completion(task=name, given_THW=given, **common)
      )
  return results


@functools.cache
def _digit_judge(dataset_json: str) -> digit_judge.DigitJudge:
  dataset = ml_collections.ConfigDict(json.loads(dataset_json))
  clips = pipeline.source(dataset, "train")
  examples = [clips[_JUDGE_FIRST_CLIP + i] for i in range(_JUDGE_CLIPS)]
  return digit_judge.DigitJudge(
    np.stack([e["video"] for e in examples]),
    np.stack([e["label"] for e in examples]),
  )


def _protocol(config) -> dict[str, Any]:
  return {"dataset": config.dataset.name, "split": "held_out"}


def _batches(config, count):
  return pipeline.eval_batches(
    config.dataset, "held_out", count, config.batch_size
  )


def _shown(config) -> int:
  """Clips in a picture: small sets have fewer."""
  clips = pipeline.source(config.dataset, "held_out")
  return min(_SHOWN, len(clips))


def _held_out(config, count) -> dict[str, np.ndarray]:
  batch, _ = next(
    pipeline.eval_batches(config.dataset, "held_out", count, count)
  )
  return batch


def predictor(algorithm, name, mesh, params):
  """Numpy in, numpy out, the whole batch on every process."""
  function = jax.jit(
    algorithm.predict[name], out_shardings=mesh_lib.replicated(mesh)
  )

  def run(batch, seed: int = 0):
    placed = mesh_lib.place_global(batch, mesh)
    return jax.device_get(function(params, placed, jax.random.key(seed)))

  return run


def sampler(config, mesh, algorithm, params) -> evaluators.Sample:
  """(task, labels, clips, seed) -> clips, by the algorithm's "sample"."""
  predict = predictor(algorithm, "sample", mesh, params)
  names = masking.task_names(config)

  def run(task, label, video, seed):
    batch = {
      "task": np.int32(names.index(task)),
      "label": label.astype(np.int32),
      "video": video,
    }
    return predict(batch, seed)

  return run


def _require(algorithm, name, config, what) -> None:
  if name not in algorithm.predict:
    raise ValueError(
      f"--mode={name} needs the workdir of {what}, and this one holds"
      f" {config.name!r}"
    )


def _publish(workdir, name, videos, columns, title, caption) -> None:
  """Writes samples/NAME.gif and .png, and their captions for the report."""
  if jax.process_index() != 0:
    return
  folder = os.path.join(workdir, "samples")
  os.makedirs(folder, exist_ok=True)
  gif = os.path.join(folder, f"{name}.gif")
  pictures.write_gif(gif, pictures.tile(videos, columns))
  strip = os.path.join(folder, f"{name}.png")
  pictures.write_png(strip, pictures.filmstrip(videos[:4], every=2))
  add_caption(workdir, f"{name}.gif", title, caption)
  add_caption(
    workdir,
    f"{name}.png",
    f"{title}, frame by frame",
    "The first of them; every second frame from left to right.",
  )
  log.info("wrote %s and %s", gif, strip)


def add_caption(workdir: str, picture: str, title: str, caption: str) -> None:
  """Says in the report what samples/PICTURE shows."""
  path = os.path.join(workdir, "samples", "captions.json")
  captions = {}
  if os.path.exists(path):
    with open(path) as f:
      captions = json.load(f)
  captions[picture] = {"title": title, "caption": caption}
  files.write_atomically(path, json.dumps(captions, indent=2))


def write_report(workdir: str) -> None:
  """Writes WORKDIR/report.html, from process 0."""
  if jax.process_index() == 0:
    path = os.path.join(workdir, "report.html")
    log.info("wrote %s", report.write_report([workdir], path))
