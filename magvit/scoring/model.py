"""A trained model as the protocols use it: it generates, or reconstructs."""

import os
from typing import Any

import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from evaluation import evaluators
from evaluation.protocols import clips as clips_lib
from evaluation.protocols.clips import Clips
from evaluation.protocols.table import Protocol
from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit.generators import tasks
from magvit.tokenizer import describe
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from models.quantizers import build as quantizer_build
from models.tokenizer import tokenizer as tokenizer_network


class Model:
  """Attributes: config, step, batch_size (of its programs), generates."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str,
    mesh: Mesh,
    algorithm: algorithm_lib.Algorithm,
    params: Any,
    step: int,
    saved: int | None = None,
  ):
    """`saved` tells checkpoints of one step apart: features are kept."""
    self.config, self.step = config, step
    self.batch_size = config.batch_size
    self.generates = "sample" in algorithm.predict
    self._mesh, self._algorithm, self._params = mesh, algorithm, params
    self._workdir, self._saved = workdir, saved
    self._programs = {}

  def describe(self) -> dict[str, Any]:
    """Which model this is, as JSON: equal for equal features."""
    described = {"name": self.config.name, "workdir": self._workdir}
    described |= {"step": self.step, "saved_ns": self._saved}
    if self.generates:
      described["sampling"] = self.config.sampling.to_dict()
    return described

  def samples(
    self, protocol: Protocol, given: Clips | None, num: int, seed: int
  ) -> Clips:
    """Raises ValueError for a model that does not generate, or not the task."""
    if not self.generates:
      raise ValueError(
        f"--protocol={protocol.name} needs the workdir of a generator, and"
        f" {self._workdir} holds {self.config.name!r}; or give --input"
      )
    if not self.config.tasks[protocol.task]:
      raise ValueError(
        f"--protocol={protocol.name} samples {protocol.task}, and"
        f" {self.config.name!r} was not trained on it"
      )
    shape = describe.clip_shape(self.config)
    clips_lib.check_frames(shape[0], protocol, "the model")
    run = sampler(self.config, self._mesh, self._algorithm, self._params)
    classes = self.config.transformer.num_classes
    return clips_lib.of_samples(
      run,
      self.describe(),
      protocol,
      given,
      shape,
      classes,
      self.batch_size,
      num,
      seed,
    )

  def reconstructions(self, protocol: Protocol, originals: Clips) -> Clips:
    return clips_lib.of_reconstructions(
      lambda video: self._predict("reconstruct", {"video": video})["video"],
      self.describe(),
      protocol,
      originals,
      self.batch_size,
    )

  @property
  def vocabulary(self) -> int:
    return describe.vocabulary(self.config)

  def bits(self) -> int:
    """Raises ValueError for codes that are not signs."""
    settings = self.config.quantizer
    if not quantizer_build.kind(settings.name).signs:
      raise ValueError(
        "--protocol=pfid knows the nearest codes of"
        f" {' and '.join(quantizer_build.names('signs'))}, and"
        f" {self.config.name!r} has {settings.name}"
      )
    return tokenizer_network.describe_quantizer(**settings).latent_channels

  def encode(self, video: np.ndarray) -> np.ndarray:
    """uint8 (B, T, H, W, 3) to int32 (B, t, h, w)."""
    return self._predict("encode", {"video": video})

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """int32 (B, t, h, w) to float32 (B, T, H, W, 3)."""
    return self._predict("decode", {"ids": ids})

  def _predict(self, name: str, batch: dict[str, np.ndarray]) -> Any:
    """Of any number of clips up to a batch, which is filled up."""
    if name not in self._algorithm.predict:
      raise ValueError(
        f"reconstructions need the workdir of a tokenizer, and {self._workdir}"
        f" holds {self.config.name!r}"
      )
    if name not in self._programs:
      self._programs[name] = predictor(
        self._algorithm, name, self._mesh, self._params
      )
    count = len(next(iter(batch.values())))
    place = np.arange(self.batch_size) % count
    outputs = self._programs[name]({k: x[place] for k, x in batch.items()})
    if isinstance(outputs, dict):
      return {k: x[:count] for k, x in outputs.items() if np.ndim(x)}
    return outputs[:count]


def open_model(
  config: ml_collections.ConfigDict, workdir: str, protocol: Protocol, opener
) -> Model:
  """The model of a workdir; of a generator, its tokenizer if that is measured.

  `opener` is train.open_trained, which imports this package's evaluation.
  """
  if protocol.made == "reconstructions":
    own = workdir_lib.own_tokenizer(workdir)
    if own is not None:
      workdir, config = own, workdir_lib.read_config(own)
  mesh = mesh_lib.local_mesh()
  algorithm, params, step = opener(config, workdir, mesh)
  path = os.path.join(workdir, "checkpoints", str(step))
  if exports.is_export(workdir):
    path = os.path.join(workdir, exports.WEIGHTS)
  saved = os.stat(path).st_mtime_ns
  return Model(config, workdir, mesh, algorithm, params, step, saved)


def batches(config, count):
  return pipeline.eval_batches(
    config.dataset, "held_out", count, config.batch_size
  )


def held_out(config, count) -> dict[str, np.ndarray]:
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
  names = tasks.task_names(config)

  def run(task, label, video, seed):
    batch = {
      "task": np.int32(names.index(task)),
      "label": label.astype(np.int32),
      "video": video,
    }
    return predict(batch, seed)

  return run
