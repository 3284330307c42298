"""One arm of `benchmarks/arms.py`: training by the clock, then sampling.

  python -m benchmarks.arms_run FOLDER

trains the arm that FOLDER/settings.json and FOLDER/config.json describe, and
writes FOLDER/history.json after each evaluation, and after that of each number
of sampling steps. `benchmarks/arms.py` writes the settings and runs this.
"""

from collections.abc import Sequence
import dataclasses
import json
import logging
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import clocked
from benchmarks import clocked_algorithm
from evaluation.show import pictures
from input_pipeline import pipeline
from magvit import trained as trained_lib
from magvit.generators import tasks as tasks_lib
from magvit.scoring import held_out
from magvit.scoring import model as scored_model
from magvit.workdir import folder as workdir_lib
from models import network
from storage import progress

_SHOWN_CLIPS = 4  # samples that are kept for a picture
_TIMED = 3  # runs of the sampler, the median of which counts


@dataclasses.dataclass(frozen=True)
class Settings(clocked.Settings):
  """How an arm is trained and sampled; `config.json` lies beside it.

  steps: values of sampling.steps that the trained arm is sampled with.
  """

  steps: tuple[int, ...]


class Arm(clocked_algorithm.Trainee):
  """A generator, and the scores of its samples."""

  def score(self) -> clocked.Scored:
    """Scores by "RESULT/METRIC" and a few samples; None if not finite."""
    trained = self._trained(self.algorithm.config)
    if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(trained.params)):
      return None
    shown, _ = self._sample(trained, repeats=0)
    return _scores(trained), shown

  def sweep(self, steps: int | None) -> dict[str, float]:
    """Scores and seconds of a sample with another number of sampling steps.

    None samples as the config says, for an arm that has no such number.
    """
    changed = {} if steps is None else {"sampling.steps": steps}
    trained = self._trained(
      trained_lib.with_fields(self.algorithm.config, changed)
    )
    _, seconds = self._sample(trained, repeats=_TIMED)
    per_clip = seconds / trained.config.batch_size
    return {"seconds_per_clip": per_clip, **_scores(trained)}

  def facts(self) -> dict[str, Any]:
    name = self.algorithm.facts.network
    return {
      "parameters": network.count(self.state.params[name]),
      "device": self.mesh.devices.flat[0].device_kind,
      "jax": jax.__version__,
    }

  def _trained(self, config: ml_collections.ConfigDict) -> trained_lib.Trained:
    algorithm = self.algorithm
    if config is not algorithm.config:
      algorithm = trained_lib.build(config, self.mesh)
    params = self.state.predict_params()
    return trained_lib.Trained(
      "", config, self.mesh, algorithm, params, self.steps
    )

  def _sample(
    self, trained: trained_lib.Trained, repeats: int
  ) -> tuple[np.ndarray, float]:
    """Samples of a batch, uint8, and the median seconds of more of them."""
    config = trained.config
    sample = scored_model.sampler(trained)
    task = tasks_lib.task_names(config)[0]
    clips = scored_model.held_out(config, config.batch_size)
    label = np.arange(config.batch_size) % trained.num_classes
    run = lambda seed: sample(task, label, clips["video"], seed)["video"]
    shown = pictures.to_uint8(run(0)[:_SHOWN_CLIPS], "round", "samples", 0)
    seconds = []
    for repeat in range(repeats):
      start = time.perf_counter()
      run(repeat)
      seconds.append(time.perf_counter() - start)
    return shown, statistics.median(seconds) if seconds else 0.0


def _scores(trained: trained_lib.Trained) -> dict[str, float]:
  count = trained.config.dataset.eval_examples
  results = held_out.EVALUATORS["samples"].score(trained, count)
  return {
    f"{result.evaluator}/{name}": value
    for result in results
    for name, value in result.metrics.items()
  }


def _sweep(arm: Arm, steps: Sequence[int]) -> list[dict[str, Any]]:
  """The scores of each number of sampling steps, in rows."""
  numbers = list(steps) if "steps" in arm.config.sampling else [None]
  rows = []
  for number in numbers:
    progress.say(f"sampling with {number or 'its'} steps")
    rows.append({"steps": number, **arm.sweep(number)})
  return rows


def main() -> None:
  # absl has a handler by now.
  logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
  logging.getLogger("absl").setLevel(logging.WARNING)
  folder = pathlib.Path(sys.argv[1])
  stored = json.loads((folder / "settings.json").read_text())
  settings = Settings(**{**stored, "steps": tuple(stored["steps"])})
  config = workdir_lib.read_config(str(folder))
  batches = lambda: pipeline.train_batches(config.dataset, config.batch_size)
  arm = Arm(config)
  after = lambda: {"sampling": _sweep(arm, settings.steps)}
  try:
    clocked.train(settings, arm, arm.score, batches, folder, after)
  except ValueError as error:
    sys.exit(f"{settings.side}: {error}")


if __name__ == "__main__":
  main()
