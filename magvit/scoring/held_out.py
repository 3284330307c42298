"""Evaluation on held-out clips: scores, pictures and a workdir's report."""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import json
import logging
from typing import Any

import ml_collections
import numpy as np

from evaluation import evaluators
from evaluation.metrics import digit_judge
from evaluation.metrics import lpips
from evaluation.protocols import run as protocol_run
from input_pipeline import pipeline
from magvit.generators import tasks as tasks_lib
from magvit.scoring import model as scored_model
from magvit.scoring import pictures as scoring_pictures
from magvit.scoring import recognition as scoring_recognition
from magvit.tokenizer import describe
from magvit.trained import Trained
from storage import processes
from storage import progress as progress_lib

log = logging.getLogger(__name__)

_FEWEST = 8  # held-out clips that a training's evaluation reads at least
_JUDGE_CLIPS = 2000  # real training clips that the judge is fitted on
_JUDGE_FIRST_CLIP = 2**32  # place of the first, far from those models train on


def training_count(config: ml_collections.ConfigDict) -> int:
  """Number of held-out clips that the evaluations of a training read.

  They are `dataset.eval_examples`, but at most a quarter as many as the clips
  that the training sees, so that a short one is not mostly evaluation; and at
  least a batch, or eight, of which statistics can be made. A number of steps
  is the same on every process and in every resumed run, as time is not.
  """
  quarter = config.num_steps // 4 * config.batch_size
  fewest = max(quarter, config.batch_size, _FEWEST)
  return min(config.dataset.eval_examples, fewest)


def evaluate_all(
  trained: Trained, count: int | None = None
) -> list[evaluators.Result]:
  """Runs the algorithm's evaluators and the protocols of config.evaluation.

  Args:
    trained: the model.
    count: number of held-out clips that the evaluators read; None for all
      `dataset.eval_examples`.
  """
  with progress_lib.phase(f"evaluating step {trained.step}", at_once=True):
    return _evaluate_all(trained, count)


def _evaluate_all(
  trained: Trained, count: int | None
) -> list[evaluators.Result]:
  results = evaluate(trained, count)
  if trained.config.evaluation.protocols:
    model = scored_model.Model(trained)
    results += protocol_run.run_configured(
      trained.config, trained.workdir, model
    )
    scoring_pictures.write_report(trained.workdir)
  return results


def evaluate(
  trained: Trained, count: int | None = None
) -> list[evaluators.Result]:
  """Runs the evaluators of the model's algorithm on `count` held-out clips.

  Writes results/*.json, samples/ and report.html, and prints the scores.
  """
  config = trained.config
  every = config.dataset.eval_examples
  clips = every if count is None else count
  if clips < every:
    log.info(
      "evaluating %d of %d held-out clips, for a training on %d clips;"
      " --mode=evaluate reads all",
      *(clips, every, config.num_steps * config.batch_size),
    )
  chosen = [EVALUATORS[name] for name in trained.algorithm.facts.evaluators]
  results = [
    result for evaluator in chosen for result in evaluator.score(trained, clips)
  ]
  if processes.is_first():
    for result in results:
      result.write(trained.workdir, trained.step)
      log.info("%s", result.summary())
  with progress_lib.phase("drawing pictures and the report"):
    for evaluator in chosen:
      evaluator.draw(trained)
  return results


def flat(results: list[evaluators.Result]) -> dict[str, float]:
  """The scores as {"eval/EVALUATOR/METRIC": value}."""
  return {
    f"eval/{r.evaluator}/{name}": value
    for r in results
    for name, value in r.metrics.items()
  }


def _score_reconstruction(
  trained: Trained, count: int
) -> list[evaluators.Result]:
  config = trained.config
  predict = scored_model.predictor(trained, "reconstruct")
  return evaluators.evaluate_reconstruction(
    lambda video: predict({"video": video}),
    _clips_with_progress(config, count),
    describe.vocabulary(config),
    _protocol(config),
    _lpips(config.evaluation.lpips_weights),
  )


def _clips_with_progress(
  config, count: int
) -> Iterator[tuple[np.ndarray, int]]:
  """(clips, number of clips that count) of batches, with lines of progress."""
  progress = progress_lib.Progress("reconstructing", count, "clips")
  for batch, real in scored_model.batches(config, count):
    yield batch["video"], real
    progress.add(real)


@functools.cache
def _lpips(weights: str) -> lpips.Lpips | None:
  return lpips.Lpips(weights) if weights else None


def _score_samples(trained: Trained, count: int) -> list[evaluators.Result]:
  config = trained.config
  predict = scored_model.sampler(trained)
  real = scored_model.held_out(config, count)
  per_class = config.sampling.samples_per_class
  # Fewer samples of a class, too, where fewer clips are read.
  per_class = max(1, per_class * count // config.dataset.eval_examples)
  common: dict[str, Any] = dict(
    sample=predict,
    real_video=real["video"],
    real_label=real["label"],
    batch_size=config.batch_size,
    seed=config.seed,
    protocol={**_protocol(config), **config.sampling.to_dict()},
  )
  results = []
  for name in tasks_lib.task_names(config):
    if not tasks_lib.needs_clip(name):
      if not knows_classes(config.dataset):
        log.info(
          "%s is not scored, because no judge knows the classes of %s: name"
          " protocols in config.evaluation.protocols",
          *(name, config.dataset.name),
        )
        continue
      results += evaluators.evaluate_class_samples(
        judge=fitted_judge(config.dataset.to_json()),
        samples_per_class=per_class,
        **common,
      )
    else:
      given = tasks_lib.given_pixels(
        name, real["video"].shape[1:4], config.condition_frames
      )
      results.append(
        evaluators.evaluate_completion(task=name, given_THW=given, **common)
      )
  return results


def knows_classes(dataset: ml_collections.ConfigDict) -> bool:
  """Whether `fitted_judge` knows the classes of a section `dataset`."""
  return (dataset.name, dataset.format) == ("digits", "embedded")


@functools.cache
def fitted_judge(dataset_json: str) -> digit_judge.DigitJudge:
  """The judge of the digits of a config's section `dataset`, as JSON."""
  dataset = ml_collections.ConfigDict(json.loads(dataset_json))
  clips = pipeline.source(dataset, "train")
  with progress_lib.phase(f"fitting a judge of {_JUDGE_CLIPS} real clips"):
    examples = [clips[_JUDGE_FIRST_CLIP + i] for i in range(_JUDGE_CLIPS)]
    return digit_judge.DigitJudge(
      np.stack([e["video"] for e in examples]),
      np.stack([e["label"] for e in examples]),
    )


def _protocol(config) -> dict[str, Any]:
  return {"dataset": config.dataset.name, "split": "held_out"}


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """A way to score a model on held-out clips, and to draw pictures of it."""

  score: Callable[[Trained, int], list[evaluators.Result]]  # number of clips
  draw: Callable[[Trained], None]


EVALUATORS = {  # keys are the names in `Facts.evaluators`
  "reconstruction": Evaluator(
    _score_reconstruction, scoring_pictures.reconstruct
  ),
  "samples": Evaluator(_score_samples, scoring_pictures.sample),
  "recognition": Evaluator(scoring_recognition.score, scoring_recognition.draw),
}
