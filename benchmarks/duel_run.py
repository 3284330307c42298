"""One side of `benchmarks/duel.py`: training by the clock, and its scores.

  python -m benchmarks.duel_run FOLDER

trains the side that FOLDER/settings.json describes, and writes
FOLDER/history.json after each evaluation. `benchmarks/duel.py` writes the
settings and runs this.
"""

from collections.abc import Callable
import dataclasses
import json
import logging
import pathlib
import sys
from typing import Any
from typing import Protocol

import jax
import ml_collections
import numpy as np

from benchmarks import clocked
from evaluation.metrics import frames
from evaluation.show import pictures
from input_pipeline import pipeline
from magvit.tokenizer import describe
from magvit.workdir import folder as workdir_lib
from models.features import perceptual

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
_SHOWN_CLIPS = 4  # reconstructions that are kept for a picture

Reconstruction = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Settings(clocked.Settings):
  """What a side of a duel is run with; `config.json` lies beside it.

  `side` is "ours", or "peer_" and a learning rate.

  clips: held-out clips of an evaluation.
  cores: CPU cores that the process may use.
  weights: file with SqueezeNet's weights.
  judge: file with EfficientNet-Lite0's weights; "" for none.
  peer: of the peer, folder of the checkout, sizes and recipe; {} for ours.
  """

  clips: int
  cores: int
  weights: str
  judge: str
  peer: dict[str, Any]


class Contestant(clocked.Contestant, Protocol):
  """A tokenizer, and how it trains."""

  def reconstruct(self, video_BTHWC: np.ndarray) -> Reconstruction:
    """Reconstructions in [0, 1] and ids by averaged weights, of uint8 clips."""


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

  def score(self, contestant: Contestant) -> clocked.Scored:
    """Scores, and reconstructions of some clips."""
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
    score = lambda: examination.score(contestant)
    clocked.train(settings, contestant, score, batches, folder)
  except ValueError as error:
    sys.exit(f"{settings.side}: {error}")


if __name__ == "__main__":
  main()
