"""Evaluation, pictures and the report of a workdir, from predict functions."""

import functools
import json
import logging
from typing import Any

from jax.sharding import Mesh
import ml_collections
import numpy as np

from evaluation import evaluators
from evaluation.metrics import digit_judge
from evaluation.metrics import lpips
from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit.generators import tasks
from magvit.scoring import model as scored_model
from magvit.scoring import pictures as scoring_pictures
from magvit.tokenizer import describe
from storage import processes

log = logging.getLogger(__name__)


_JUDGE_CLIPS = 2000  # real training clips that the judge is fitted on
_JUDGE_FIRST_CLIP = 2**32  # far from those a model is trained on


def evaluate(
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: Mesh,
  algorithm: algorithm_lib.Algorithm,
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
  if processes.is_first():
    for result in results:
      result.write(workdir, step)
      log.info("%s", result.summary())
  for draw in (scoring_pictures.reconstruct, scoring_pictures.sample):
    if draw.__name__ in algorithm.predict:
      draw(config, workdir, mesh, algorithm, params, step)
  return results


def flat(results: list[evaluators.Result]) -> dict[str, float]:
  """{"eval/EVALUATOR/METRIC": value}."""
  return {
    f"eval/{r.evaluator}/{name}": value
    for r in results
    for name, value in r.metrics.items()
  }


def _score_reconstruction(config, mesh, algorithm, params):
  predict = scored_model.predictor(algorithm, "reconstruct", mesh, params)
  batches = (
    (batch["video"], real)
    for batch, real in scored_model.batches(
      config, config.dataset.eval_examples
    )
  )
  return evaluators.evaluate_reconstruction(
    lambda video: predict({"video": video}),
    batches,
    describe.vocabulary(config),
    _protocol(config),
    _lpips(config.evaluation.lpips_weights),
  )


@functools.cache
def _lpips(weights: str) -> lpips.Lpips | None:
  return lpips.Lpips(weights) if weights else None


def _score_samples(config, mesh, algorithm, params):
  predict = scored_model.sampler(config, mesh, algorithm, params)
  real = scored_model.held_out(config, config.dataset.eval_examples)
  common = dict(
    sample=predict,
    real_video=real["video"],
    real_label=real["label"],
    batch_size=config.batch_size,
    seed=config.seed,
    protocol={**_protocol(config), **config.sampling.to_dict()},
  )
  results = []
  for name in tasks.task_names(config):
    if not tasks.needs_clip(name):
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
      given = tasks.given_pixels(
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
