"""One side of `benchmarks/duel.py`: training by the clock, and its scores.

  python -m benchmarks.duel_run FOLDER

trains the side that FOLDER/settings.json describes, and writes
FOLDER/history.json after each evaluation. `benchmarks/duel.py` writes the
settings and runs this.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
import logging
import math
import pathlib
import sys
import time
from typing import Any
from typing import Protocol

import jax
import ml_collections
import numpy as np

from evaluation.metrics import frames
from evaluation.show import pictures
from input_pipeline import pipeline
from magvit.tokenizer import describe
from magvit.workdir import folder as workdir_lib
from models.features import perceptual
from storage import files
from storage import progress

OURS = "ours"
# Scores of a row -> its title, and whether lower is better.
SCORES = {
  "psnr": ("PSNR, dB", False),
  "ssim": ("SSIM", False),
  "squeezenet": ("distance, SqueezeNet", True),
  "efficientnet_lite0": ("distance, EfficientNet-Lite0", True),
  "entropy_bits": ("entropy of codes, bits", False),
  "codes_used": ("codes used", False),
}
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
# Steps that are timed before: a cycle of our lazy R1, unless they take longer
# than these seconds. One more before them warms up.
_PROBED_STEPS, _PROBED_SECONDS = 16, 20.0
_SHOWN_CLIPS = 4  # reconstructions that are kept for a picture
_QUIET = 10.0  # seconds between two lines of progress

Reconstruction = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a side of a duel is run with; `config.json` lies beside it.

  side: its name, "ours" or "peer_" and a learning rate.
  seconds: training time, by `clock`.
  points: evaluations over this time, at equal distances.
  clips: held-out clips of an evaluation.
  clock: "wall", or "cpu" seconds of the process.
  cores: CPU cores that the process may use.
  weights: file with SqueezeNet's weights.
  judge: file with EfficientNet-Lite0's weights; "" for none.
  peer: of the peer, folder of the checkout, sizes and recipe; {} for ours.
  """

  side: str
  seconds: float
  points: int
  clips: int
  clock: str
  cores: int
  weights: str
  judge: str
  peer: dict[str, Any]


class Contestant(Protocol):
  """A tokenizer, and how it trains."""

  def begin(self, num_steps: int) -> None:
    """Draws the first weights, for a training of so many steps."""

  def train(self, batch: Mapping[str, np.ndarray]) -> None:
    """Trains one step, and waits for the end of it."""

  def reconstruct(self, video_BTHWC: np.ndarray) -> Reconstruction:
    """Reconstructions in [0, 1] and ids by averaged weights, of uint8 clips."""

  def facts(self) -> dict[str, Any]:
    """Sizes, versions and the recipe, for the JSON."""


class Examination:
  """The held-out clips and the scores of reconstructions of them."""

  def __init__(self, config: ml_collections.ConfigDict, settings: Settings):
    self._vocabulary = describe.vocabulary(config)
    self._batches = [
      (batch["video"], real)
      for batch, real in pipeline.eval_batches(
        config.dataset, "held_out", settings.clips, config.batch_size
      )
    ]
    self._distances = {
      name: _distance(name, path)
      for name, path in (
        ("squeezenet", settings.weights),
        ("efficientnet_lite0", settings.judge),
      )
      if path
    }

  @property
  def first_frames(self) -> np.ndarray:
    """The first frames of the first clips, float32 (B, H, W, 3) in [0, 1]."""
    return self._batches[0][0][:, 0].astype(np.float32) / 255.0

  def score(
    self, contestant: Contestant
  ) -> tuple[dict[str, float], np.ndarray] | None:
    """(scores, uint8 reconstructions of some clips); None if not finite."""
    scores, all_ids, shown = {}, [], []
    for video, real in self._batches:
      output, ids = contestant.reconstruct(video)
      if not np.isfinite(output).all():
        return None
      output = pictures.to_uint8(output, "round", "outputs", 0)
      shown += list(output[:real])[: _SHOWN_CLIPS - len(shown)]
      all_ids.append(np.asarray(ids).reshape(len(video), -1)[:real])
      for name, values in self._score_clips(video, output).items():
        scores.setdefault(name, []).append(values[:real])
    use = frames.codebook(np.concatenate(all_ids), self._vocabulary)
    means = {k: float(np.concatenate(v).mean()) for k, v in scores.items()}
    used = {name: use[name] for name in ("entropy_bits", "codes_used")}
    return {**means, **used}, np.stack(shown)

  def _score_clips(self, video_BTHWC, output_BTHWC) -> dict[str, np.ndarray]:
    """Scores of uint8 clips by name, (B,)."""
    video, output = (
      x.astype(np.float32) / 255.0 for x in (video_BTHWC, output_BTHWC)
    )
    scores = {
      "psnr": frames.psnr(video, output).mean(1),
      "ssim": frames.ssim(video, output).mean(1),
    }
    for name, distance in self._distances.items():
      scores[name] = distance(video, output)
    return scores


def _distance(name: str, path: str) -> Callable:
  """Mean distance (B,) of two clips' frames, by a network on the CPU.

  Both sides have it from the CPU, whatever they train on, so that it is the
  same function of the pixels.
  """
  cpu = jax.local_devices(backend="cpu")[0]
  with jax.default_device(cpu):
    compare, params = perceptual.load(name, path)
    params = jax.device_put(params, cpu)
    compiled = jax.jit(compare)

  def distance(video_BTHWC, output_BTHWC):
    flat = lambda x: jax.device_put(x.reshape(-1, *x.shape[2:]), cpu)
    values = compiled(params, flat(video_BTHWC), flat(output_BTHWC))
    return np.asarray(values).reshape(len(video_BTHWC), -1).mean(1)

  return distance


class Clock:
  """Seconds of training; what runs outside of `measure` does not count."""

  def __init__(self, read: Callable[[], float]):
    self._read = read
    self.seconds = 0.0

  def measure(self, run: Callable[[], None]) -> None:
    start = self._read()
    run()
    self.seconds += self._read() - start


def train(
  settings: Settings,
  contestant: Contestant,
  examination: Examination,
  batches: Callable[[], Any],
  folder: pathlib.Path,
) -> None:
  """Trains a side for its seconds, and writes its history and pictures.

  Args:
    settings: of this side.
    contestant: the side.
    examination: the scores.
    batches: makes the iterator of training batches, from the first one on.
    folder: folder of the side.
  """
  began = time.monotonic()
  rate = _probe(contestant, batches(), _CLOCKS[settings.clock])
  num_steps = max(2, math.ceil(settings.seconds / rate))
  contestant.begin(num_steps)
  data = batches()
  contestant.train(next(data))  # compiles or warms up
  contestant.begin(num_steps)
  data = batches()
  history = {
    "settings": dataclasses.asdict(settings),
    "facts": contestant.facts(),
    "probed_seconds_per_step": rate,
    "planned_steps": num_steps,
    "start_up_seconds": time.monotonic() - began,
    "rows": [],
    "diverged_at_step": None,
    "finished": False,
  }
  _Training(settings, contestant, examination, history, folder).run(data)


def _probe(contestant: Contestant, data: Any, read) -> float:
  """Seconds of a step; the run after it begins with new weights."""
  contestant.begin(1 + _PROBED_STEPS)
  step = lambda: contestant.train(next(data))
  step()
  clock, done = Clock(read), 0
  while done < _PROBED_STEPS and (done < 3 or clock.seconds < _PROBED_SECONDS):
    clock.measure(step)
    done += 1
  return clock.seconds / done


class _Training:
  """The steps of a side, and its evaluations."""

  def __init__(self, settings, contestant, examination, history, folder):
    self._settings, self._history, self._folder = settings, history, folder
    self._contestant, self._examination = contestant, examination
    self._clock = Clock(_CLOCKS[settings.clock])
    self._steps = 0
    self._evaluation_seconds = 0.0
    self._said = time.monotonic()

  def run(self, data: Any) -> None:
    settings = self._settings
    moments = [
      settings.seconds * k / settings.points for k in range(settings.points + 1)
    ]
    while moments and self._evaluate_at(moments):
      while moments and self._clock.seconds < moments[0]:
        self._clock.measure(lambda: self._contestant.train(next(data)))
        self._steps += 1
        self._say()
    self._history["finished"] = True
    self._write()

  def _evaluate_at(self, moments: list[float]) -> bool:
    """Adds the row of each moment that has come; False if values are lost."""
    start = time.monotonic()
    scored = self._examination.score(self._contestant)
    self._evaluation_seconds = time.monotonic() - start
    if scored is None:
      self._history["diverged_at_step"] = self._steps
      progress.say(f"{self._settings.side}: diverged by step {self._steps}")
      return False
    scores, shown = scored
    while moments and moments[0] <= self._clock.seconds:
      row = {
        "moment": moments.pop(0),
        "seconds": self._clock.seconds,
        "steps": self._steps,
        **scores,
      }
      self._history["rows"].append(row)
    files.write_npz(self._folder / "clips.npz", {"video": shown})
    self._write()
    self._say(row)
    return True

  def _write(self) -> None:
    files.write_json(self._folder / "history.json", self._history)

  def _say(self, row: dict[str, float] | None = None) -> None:
    """A line on the progress, at most every few seconds; of rows always."""
    now, settings = time.monotonic(), self._settings
    if row is None and now - self._said < _QUIET:
      return
    self._said = now
    rows_left = settings.points + 1 - len(self._history["rows"])
    seconds_left = max(0.0, settings.seconds - self._clock.seconds)
    left = seconds_left + rows_left * self._evaluation_seconds
    per_step = self._clock.seconds / max(1, self._steps)
    line = (
      f"{settings.side}: {self._clock.seconds:.0f} of {settings.seconds:.0f} s"
      f" of training, step {self._steps}, {per_step:.3g} s a step, about"
      f" {left / 60:.0f} min left with evaluations"
    )
    if row is not None:
      line += f" | PSNR {row['psnr']:.2f} dB, distance {row['squeezenet']:.4f},"
      line += f" {row['entropy_bits']:.1f} bits"
    progress.say(line)


def main():
  # absl has a handler by now.
  logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
  logging.getLogger("absl").setLevel(logging.WARNING)
  folder = pathlib.Path(sys.argv[1])
  settings = Settings(**json.loads((folder / "settings.json").read_text()))
  config = workdir_lib.read_config(str(folder))
  examination = Examination(config, settings)
  if settings.side == OURS:
    from benchmarks import duel_ours

    contestant = duel_ours.Ours(config)
  else:
    from benchmarks import duel_peer

    contestant = duel_peer.Peer(config, settings, examination.first_frames)
  batches = lambda: pipeline.train_batches(config.dataset, config.batch_size)
  try:
    train(settings, contestant, examination, batches, folder)
  except ValueError as error:
    sys.exit(f"{settings.side}: {error}")


if __name__ == "__main__":
  main()
