"""A trained model as the protocols use it: it generates, or reconstructs."""

from collections.abc import Callable
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from evaluation import evaluators
from evaluation.protocols import clips as clips_lib
from evaluation.protocols.clips import Clips
from evaluation.protocols.table import Protocol
from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import tasks as tasks_lib
from magvit.tokenizer import describe
from magvit.trained import Trained
from magvit.workdir import commits
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from models.quantizers import build as quantizer_build
from models.tokenizer import tokenizer as tokenizer_network
from storage import progress as progress_lib
from storage import stores


class Model:
  """A model to be measured, with jitted programs of `batch_size` clips.

  Attributes: config; step; batch_size; generates, whether it makes samples.
  """

  def __init__(self, trained: Trained, saved: int | None = None):
    """Takes the time of saving, in ns, to tell checkpoints of a step apart.

    Features of the model's clips are kept under its description.
    """
    self.config, self.step = trained.config, trained.step
    self.batch_size = trained.config.batch_size
    self.generates = "sample" in trained.algorithm.predict
    self._trained, self._saved = trained, saved
    self._programs = {}

  def describe(self) -> dict[str, Any]:
    """Describes the model for JSON, equally for equal features."""
    described = {"name": self.config.name, "workdir": self._trained.workdir}
    described |= {"step": self.step, "saved_ns": self._saved}
    if self.generates:
      described["sampling"] = self.config.sampling.to_dict()
    return described

  def samples(
    self, protocol: Protocol, given: Clips | None, num: int, seed: int
  ) -> Clips:
    """Describes `num` samples of a protocol's task, to be made when read.

    Raises:
      ValueError: a model that does not generate, or was not trained on the
        task.
    """
    if not self.generates:
      raise ValueError(
        f"--protocol={protocol.name} needs the workdir of a generator, and"
        f" {self._trained.workdir} holds {self.config.name!r}: name one, or"
        " give clips by --input"
      )
    if not self.config.tasks[protocol.task]:
      raise ValueError(
        f"--protocol={protocol.name} samples {protocol.task}, and"
        f" {self.config.name!r} has tasks.{protocol.task}=0: name a model that"
        " was trained on it"
      )
    shape = describe.clip_shape(self.config)
    clips_lib.check_frames(shape[0], protocol, "the model")
    run = sampler(self._trained)
    return clips_lib.generate_clips(
      run,
      self.describe(),
      protocol,
      given,
      shape,
      self._trained.num_classes,
      self.batch_size,
      num,
      seed,
    )

  def given_frames(self, task: str) -> np.ndarray:
    shape = describe.clip_shape(self.config)
    frames = self.config.condition_frames
    return tasks_lib.given_frames(task, shape, frames)

  def reconstructions(self, protocol: Protocol, originals: Clips) -> Clips:
    return clips_lib.reconstruct_clips(
      lambda video: self._predict("reconstruct", {"video": video})["video"],
      self.describe(),
      protocol,
      originals,
      self.batch_size,
    )

  def tokenized(self, video: np.ndarray, task: str) -> np.ndarray:
    tokenize = lambda clips: jnp.asarray(
      self._predict("tokenized", {"video": np.asarray(clips)})["video"]
    )
    video_BTHWC = tokenizer_network.to_float(jnp.asarray(video))
    table = tasks_lib.TaskTable.from_config(self.config)
    finished = table.finish(
      self.config.sampling,
      table.names.index(task),
      tokenize(video_BTHWC),
      video_BTHWC,
      self.config.condition_frames,
      tokenize,
    )
    return np.asarray(finished)

  @property
  def vocabulary(self) -> int:
    describe.require_ids(self.config, "--protocol=codebook")
    return describe.vocabulary(self.config)

  def bits(self) -> int:
    """Number of bits of a token; ValueError for codes that are not signs."""
    settings = self.config.quantizer
    if not quantizer_build.kind(settings.name).signs:
      raise ValueError(
        "--protocol=pfid needs the nearest codes, which are known for"
        f" quantizer.name={' and '.join(quantizer_build.names('signs'))}, and"
        f" {self.config.name!r} has {settings.name}: name another workdir"
      )
    return tokenizer_network.describe_quantizer(**settings).latent_channels

  def encode(self, video: np.ndarray) -> np.ndarray:
    """Encodes clips, uint8 (B, T, H, W, 3), to ids, int32 (B, t, h, w)."""
    return self._predict("encode", {"video": video})

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """Decodes ids, int32 (B, t, h, w), to clips, float32 (B, T, H, W, 3)."""
    return self._predict("decode", {"ids": ids})

  def _predict(self, name: str, batch: dict[str, np.ndarray]) -> Any:
    """Runs a program on up to `batch_size` clips, repeated to fill a batch."""
    if name not in self._trained.algorithm.predict:
      raise ValueError(
        "reconstructions need the workdir of a tokenizer, and"
        f" {self._trained.workdir} holds {self.config.name!r}: name one"
      )
    if name not in self._programs:
      self._programs[name] = predictor(self._trained, name)
    count = len(next(iter(batch.values())))
    place = np.arange(self.batch_size) % count
    outputs = self._programs[name]({k: x[place] for k, x in batch.items()})
    if isinstance(outputs, dict):
      return {k: x[:count] for k, x in outputs.items() if np.ndim(x)}
    return outputs[:count]


def open_model(
  workdir: str, config: ml_collections.ConfigDict, protocol: Protocol
) -> Model:
  """The model of a workdir, or the tokenizer in it if that is measured.

  Raises:
    ValueError: nothing was trained there, or another network.
  """
  if protocol.made == "reconstructions":
    own_tokenizer = workdir_lib.own_tokenizer(workdir)
    if own_tokenizer is not None:
      workdir, config = own_tokenizer, workdir_lib.read_config(own_tokenizer)
  trained = trained_lib.open_trained(workdir, config)
  path = os.path.join(workdir, "checkpoints", str(trained.step))
  if stores.is_url(workdir):  # where folders have no time of change
    path = os.path.join(path, commits.COMMITTED)
  if exports.is_export(workdir):
    path = os.path.join(workdir, exports.WEIGHTS)
  return Model(trained, stores.changed(path))


def batches(config, count):
  return pipeline.eval_batches(
    config.dataset, "held_out", count, config.batch_size
  )


def held_out(config, count) -> dict[str, np.ndarray]:
  batch, _ = next(
    pipeline.eval_batches(config.dataset, "held_out", count, count)
  )
  return batch


def predictor(trained: Trained, name: str) -> Callable[..., Any]:
  """Makes a compiled predict function, whole on every process.

  It takes and returns arrays of numpy, and compiles when it is first called.
  """
  mesh = trained.mesh
  function = jax.jit(
    trained.algorithm.predict[name], out_shardings=mesh_lib.replicated(mesh)
  )

  compiled = set()  # shapes of batches

  def run(batch, seed: int = 0):
    placed = mesh_lib.place_global(batch, mesh)
    key = jax.random.key(seed)
    shapes = tuple((k, np.shape(x)) for k, x in sorted(batch.items()))
    if shapes not in compiled:
      with progress_lib.phase(f"compiling the model's function {name!r}"):
        function.lower(trained.params, placed, key).compile()
      compiled.add(shapes)
    return jax.device_get(function(trained.params, placed, key))

  return run


def sampler(trained: Trained) -> evaluators.Sample:
  """The algorithm's "sample" as (task, labels, clips, seed) -> clips."""
  predict = predictor(trained, "sample")
  names = tasks_lib.task_names(trained.config)

  def run(task, label, video, seed):
    batch = {
      "task": np.int32(names.index(task)),
      "label": label.astype(np.int32),
      "video": video,
    }
    return predict(batch, seed)

  return run
