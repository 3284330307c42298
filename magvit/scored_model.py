"""A trained model as the protocols use it: it generates, or reconstructs."""

import os
from typing import Any

from jax.sharding import Mesh
import ml_collections
import numpy as np

from evaluation.protocols import Protocol
from magvit import checkpoint
from magvit import clip_sources
from magvit import evaluate
from magvit import exported
from magvit import mesh as mesh_lib
from magvit import state as state_lib
from magvit import tokenizer
from magvit.clip_sources import Clips


class Model:
  """Attributes: config, step, batch_size (of its programs), generates."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str,
    mesh: Mesh,
    algorithm: state_lib.Algorithm,
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

  def of(self) -> dict[str, Any]:
    """Which model, in JSON."""
    of = {"name": self.config.name, "workdir": self._workdir}
    of |= {"step": self.step, "saved_ns": self._saved}
    if self.generates:
      of["sampling"] = self.config.sampling.to_dict()
    return of

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
    shape = tokenizer.clip_shape(self.config)
    clip_sources.check_frames(shape[0], protocol, "the model")
    run = evaluate.sampler(
      self.config, self._mesh, self._algorithm, self._params
    )
    classes = self.config.transformer.num_classes
    return clip_sources.of_samples(
      run,
      self.of(),
      protocol,
      given,
      shape,
      classes,
      self.batch_size,
      num,
      seed,
    )

  def reconstructions(self, protocol: Protocol, originals: Clips) -> Clips:
    return clip_sources.of_reconstructions(
      lambda video: self._predict("reconstruct", {"video": video})["video"],
      self.of(),
      protocol,
      originals,
      self.batch_size,
    )

  @property
  def vocabulary(self) -> int:
    return tokenizer.vocabulary(self.config)

  def bits(self) -> int:
    """Raises ValueError for codes that are not signs."""
    if self.config.quantizer.name not in ("lfq", "bsq"):
      raise ValueError(
        "--protocol=pfid knows the nearest codes of lfq and bsq, and"
        f" {self.config.name!r} has {self.config.quantizer.name}"
      )
    return self.config.quantizer.bits

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
      self._programs[name] = evaluate.predictor(
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
    own = checkpoint.own_tokenizer(workdir)
    if own is not None:
      workdir, config = own, checkpoint.read_config(own)
  mesh = mesh_lib.local_mesh()
  algorithm, params, step = opener(config, workdir, mesh)
  path = os.path.join(workdir, "checkpoints", str(step))
  if exported.is_export(workdir):
    path = os.path.join(workdir, exported.WEIGHTS)
  saved = os.stat(path).st_mtime_ns
  return Model(config, workdir, mesh, algorithm, params, step, saved)
