"""Trained generators for Python; magvit/tokenizer/loaded.py has tokenizers."""

from collections.abc import Iterator
import numbers
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import fields
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import long_video
from magvit.generators import sampling
from magvit.generators import tasks
from magvit.tokenizer import describe
from magvit.tokenizer import given
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from models.tokenizer.tokenizer import to_float
from storage import paths


class LoadedGenerator:
  """A generator that samples clips. Make one with `load_generator`."""

  def __init__(self, config: ml_collections.ConfigDict, workdir: str):
    self.config = config
    self._workdir = workdir
    self._programs = {}
    section = trained_lib.find_algorithm(config).facts.section
    self._num_classes = config[section].num_classes

  def sample(
    self,
    key: jax.Array,
    num: int,
    label: int | None = None,
    task: str = "class_conditional",
    condition: np.ndarray | jax.Array | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    choice_temperature: float | None = None,
  ) -> jax.Array:
    """Generates clips: float32 (num, T, H, W, 3) in [0, 1].

    Args:
      key: PRNG key; the same key gives the same clips.
      num: number of clips.
      label: class of all clips; None for no class.
      task: one of the tasks that the model was trained on.
      condition: clips (num, T, H, W, 3), uint8 or float in [0, 1], read where
        the task is given pixels; every task but class_conditional needs them.
      steps: number of predictions of a masked model; None for the config's. An
        autoregressive model has as many steps as tokens, and takes none.
      guidance: strength of guidance, 0 for none; None for the config's.
        `magvit.generators.sampling.guidance_of_scale` converts a paper's scale.
        This setting and the next two make completions of a masked model
        samples, whatever config.sampling.completion says.
      temperature: temperature of drawing tokens; None for the config's. 0
        takes the likeliest of a masked model.
      choice_temperature: noise of a masked model in the choice of the tokens
        to keep; None for the config's.

    Raises:
      ValueError: an unknown task or label, a condition that does not fit or is
        no pixels, a number out of its range, or a setting that the model does
        not have.
    """
    given.check_key(key)
    fields.COUNT.check("num", num)
    self._check(task, label)
    shape = (num, *describe.clip_shape(self.config), 3)
    if condition is None:
      if tasks.needs_clip(task):
        raise ValueError(f"task={task!r} needs condition, clips {shape}")
      condition = np.zeros(shape, np.uint8)
    clips_BTHWC = given.check_video("condition", condition)
    if clips_BTHWC.shape != shape:
      raise ValueError(
        f"condition of shape {clips_BTHWC.shape} must be {shape}, num clips of"
        " the model's size"
      )
    program = self._program(
      steps=steps,
      guidance=guidance,
      temperature=temperature,
      choice_temperature=choice_temperature,
    )
    return program(self._batch(task, label, clips_BTHWC), key)

  def sample_long(
    self,
    key: jax.Array,
    condition: np.ndarray | jax.Array,
    frames: int,
    label: int | None = None,
    task: str = "frame_prediction",
    **settings: float | None,
  ) -> Iterator[jax.Array]:
    """Predicts videos of any length: yields float32 (num, n, H, W, 3) in turn.

    Each clip continues the last `config.condition_frames` frames of the one
    before. Memory does not grow with `frames`, and one program serves all.

    Args:
      key: PRNG key; the same key gives the same video.
      condition: first frames (num, config.condition_frames, H, W, 3).
      frames: number of frames to predict in all.
      label: class of all videos, read by class_conditional_frame_prediction.
      task: frame_prediction or class_conditional_frame_prediction.
      **settings: steps, guidance, temperature, choice_temperature of `sample`.

    Raises:
      ValueError: another task, or what `sample` refuses.
    """
    given.check_key(key)
    fields.COUNT.check("frames", frames)
    self._check(task, label)
    if "frame_prediction" not in task:
      raise ValueError(
        f"task={task!r} must be frame_prediction or"
        " class_conditional_frame_prediction"
      )
    length, height, width = describe.clip_shape(self.config)
    shape = (self.config.condition_frames, height, width, 3)
    condition = given.check_video("condition", condition)
    if condition.shape[1:] != shape:
      raise ValueError(
        f"condition of shape {condition.shape} must be (num, {shape[0]},"
        f" {height}, {width}, 3): condition_frames={shape[0]} first frames"
      )
    program = self._program(**settings)
    predict = lambda video, key: program(self._batch(task, label, video), key)
    return long_video.roll(predict, key, condition, frames, length)

  def _check(self, task, label) -> None:
    names = tasks.task_names(self.config)
    if task not in names:
      raise ValueError(f"task={task!r} must be one of {names}")
    classes = self._num_classes
    is_whole = isinstance(label, numbers.Integral)
    if label is not None and not (is_whole and 0 <= int(label) < classes):
      raise ValueError(f"label={label!r} must be in 0..{classes - 1}, or None")

  def _batch(self, task, label, video):
    if label is None:
      label = self._num_classes
    return {
      "task": np.int32(tasks.task_names(self.config).index(task)),
      "label": np.full(len(video), label, np.int32),
      "video": to_float(jnp.asarray(video)),  # one program for uint8, too
    }

  def _program(self, **settings):
    """Compiles (batch, key) -> clips, with these fields of config.sampling."""
    changed = {k: v for k, v in settings.items() if v is not None}
    name = tuple(sorted(changed.items()))
    if name not in self._programs:
      config = sampling.with_settings(self.config, changed)
      mesh = mesh_lib.data_mesh(jax.devices()[:1])
      config = trained_lib.resolve(config, self._workdir, training=False)
      algorithm = trained_lib.build(config, mesh)
      _, params = trained_lib.restore(self._workdir, algorithm, mesh)
      params |= algorithm.frozen
      sample = jax.jit(algorithm.predict["sample"])
      self._programs[name] = lambda batch, key: sample(params, batch, key)[
        "video"
      ]
    return self._programs[name]


def load_generator(path: str | os.PathLike) -> LoadedGenerator:
  """Loads the generator of a workdir or of an export.

  `path` may begin with ~ and have $VARIABLES.

  Raises:
    ValueError: nothing was trained there, another kind of model, or an export
      that was changed.
  """
  path = paths.expand(path)
  config = workdir_lib.read_config(path)
  if describe.is_tokenizer(config):
    raise ValueError(
      f"{path} holds {config.name!r}, which does not generate: use"
      " load_tokenizer"
    )
  weights_lib.latest_step(path)
  config.mesh.data, config.mesh.fsdp = 1, 1
  return LoadedGenerator(config, path)
