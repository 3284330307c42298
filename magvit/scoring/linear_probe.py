"""--protocol=linear_probe: what the layers of a trained model know of classes.

  python main.py --mode=evaluate --protocol=linear_probe --workdir=DIR [--num=N]

Reads the features of N training clips, unmasked, at each depth of a masked or
autoregressive generator or of a recognizer, as means over the tokens, fits a
linear classifier on each, and scores it on held-out clips. A generator is told
no class.

  DIR/results/linear_probe.json   accuracy at each depth
  DIR/samples/linear_probe.png    the same as a curve
"""

from collections.abc import Sequence
import logging

import numpy as np

from evaluation import evaluators
from evaluation.metrics import linear_probe
from evaluation.show import curves
from evaluation.show import report
from input_pipeline import pipeline
from magvit.scoring import model as scored_model
from magvit.trained import Trained
from storage import files
from storage import processes
from storage import progress as progress_lib

log = logging.getLogger(__name__)

NAME = "linear_probe"
_CLIPS = 2000  # training clips that it is fitted on, if nobody says how many
# Place of the first clip of an endless set, far from those that models train
# on.
_FIRST_CLIP = 2**33


def score(trained: Trained, num: int | None = None) -> evaluators.Result:
  """Fits and scores the probes, and writes the result and the picture.

  Args:
    trained: the model.
    num: number of training clips; None for 2,000, or as many as there are.

  Raises:
    ValueError: a model without features, or a data set without classes.
  """
  names = _class_names(trained)
  features_NLD, label_N = _read(trained, "train", num)
  held_out = _read(trained, "held_out", trained.config.dataset.eval_examples)
  held_MLD, held_label_M = held_out
  accuracies, penalties = [], []
  for depth in range(features_NLD.shape[1]):
    probe = linear_probe.fit(features_NLD[:, depth], label_N, len(names))
    accuracies.append(probe.accuracy(held_MLD[:, depth], held_label_M))
    penalties.append(probe.penalty)
    log.info("depth %d: accuracy %.1f %%", depth, 100 * accuracies[-1])
  best = int(np.argmax(accuracies))
  commonest = np.bincount(held_label_M).max() / len(held_label_M)
  result = evaluators.Result(
    NAME,
    {
      **{f"accuracy_at_depth_{n}": x for n, x in enumerate(accuracies)},
      "best_accuracy": accuracies[best],
      "baseline_accuracy": float(commonest),
    },
    {
      "protocol": NAME,
      "dataset": trained.config.dataset.name,
      "training_examples": len(label_N),
      "examples": len(held_label_M),
      "classes": len(names),
      "best_depth": best,
      "penalties": penalties,
      "features": "mean over the tokens of an unmasked clip without a class;"
      " depth 0 is the input of the first layer",
      "probe": "ridge regression to one-hot classes, float64; penalty chosen on"
      " a fifth of the training clips",
      "baseline": "the commonest class",
    },
  )
  if processes.is_first():
    _publish(trained, result, accuracies)
  return result


def _class_names(trained: Trained) -> Sequence[str]:
  """Names of the classes; ValueError for a model that cannot be probed."""
  dataset = trained.config.dataset
  if "features" not in trained.algorithm.predict:
    raise ValueError(
      f"--protocol={NAME} reads the layers of a masked or autoregressive"
      f" generator or of a recognizer, and {trained.workdir} holds"
      f" {trained.config.name!r}: name the workdir of one"
    )
  names = pipeline.class_names(dataset)
  if len(names) < 2:
    raise ValueError(
      f"--protocol={NAME} needs classes, and dataset.name={dataset.name!r} has"
      f" {len(names)}: name a model of a data set with classes"
    )
  return names


def _read(
  trained: Trained, split: str, count: int | None
) -> tuple[np.ndarray, np.ndarray]:
  """Features (N, L, D) and labels (N,) of clips of a split."""
  config = trained.config
  clips = pipeline.source(config.dataset, split, training=False)
  endless = pipeline.is_endless(clips)
  count = min(_CLIPS, len(clips)) if count is None else count
  if count > len(clips):
    raise ValueError(
      f"--num={count} is more than the {len(clips)} clips of the {split!r}"
      " split: lower it"
    )
  first = _FIRST_CLIP if endless and split == "train" else 0
  order = np.arange(first, first + count)
  if not endless:  # lists are sorted by class
    rng = np.random.default_rng(config.dataset.seed)
    order = rng.permutation(len(clips))[:count]
  predict = scored_model.predictor(trained, "features")
  progress = progress_lib.Progress(f"features, {split}", count, "clips")
  size = config.batch_size
  features, labels = [], []
  for start in range(0, count, size):
    # The last batch repeats its last clip, so that all have one shape.
    places = np.arange(start, start + size).clip(max=count - 1)
    examples = [clips[int(order[place])] for place in places]
    video = np.stack([example["video"] for example in examples])
    label = np.array([example["label"] for example in examples])
    real = min(size, count - start)
    features.append(np.asarray(predict({"video": video}))[:real])
    labels.append(label[:real])
    progress.add(real)
  return np.concatenate(features), np.concatenate(labels)


def _publish(
  trained: Trained, result: evaluators.Result, accuracies: list[float]
) -> None:
  path = result.write(trained.workdir, trained.step)
  name = f"{NAME}.png"
  sheet = files.inside(trained.workdir, "samples", name)
  baseline = result.metrics["baseline_accuracy"]
  picture = curves.line_picture(
    *("depth (number of layers)", "accuracy"),
    {
      "linear probe": accuracies,
      "commonest class": [baseline] * len(accuracies),
    },
  )
  files.write_atomically(sheet, picture)
  caption = (
    "Accuracy of a linear classifier on the mean features after each layer, on"
    f" held-out clips; step {trained.step}."
  )
  report.add_caption(trained.workdir, name, "Linear probe", caption)
  log.info("%s", result.summary())
  log.info("wrote %s and %s", path, sheet)
