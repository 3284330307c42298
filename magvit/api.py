"""Trained generators for Python; magvit/tokenizer/loaded.py has tokenizers."""

from collections.abc import Iterator
import functools
import numbers
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import fields
from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import long_video
from magvit.generators import sampling
from magvit.generators import tasks
from magvit.tokenizer import coded
from magvit.tokenizer import describe
from magvit.tokenizer import given
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from models import network
from models.tokenizer.tokenizer import to_float
from storage import paths
from storage import schema

_SHOWN = 20  # names that a message lists


class LoadedGenerator(coded.Coded):
  """A generator that samples clips. Make one with `load_generator`.

  Attributes:
    config: the config that it was trained with. Fields of its section
      `sampling` may be changed between samples.
    path: its workdir or export.
    step: training steps behind its weights; None for none yet.
    tasks: names of the tasks that it was trained on.
    num_classes: number of classes: labels are in 0..num_classes - 1.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    path: str,
    step: int | None = None,
  ):
    self.config, self.path, self.step = config, path, step
    self.tasks = tuple(tasks.task_names(config))
    section = trained_lib.find_algorithm(config).facts.section
    self.num_classes = int(config[section].num_classes)
    self._programs = {}

  def __repr__(self) -> str:
    facts = (
      f"{self.config.algorithm} generator {self.config.name!r}",
      describe.title(self._tokenizer_config),
      describe.coding(self._tokenizer_config, self.clip_shape),
      f"{self.num_classes} classes",
      f"tasks {', '.join(self.tasks)}",
      f"{self.parameters:,} parameters",
      *describe.origin(self.step, self.path),
    )
    return f"<LoadedGenerator {describe.in_lines(facts)}>"

  @property
  def class_names(self) -> tuple[str, ...]:
    """Names of the classes, in order, which `label` may be.

    There are none if the data set has none, or its files are not at hand.

    Raises:
      ValueError: files of the data set that are not as they should be.
    """
    names = pipeline.class_names(self.config.dataset)
    return tuple(names[: self.num_classes])

  @functools.cached_property
  def parameters(self) -> int:
    """Number of its parameters, without those of its tokenizer."""
    config = trained_lib.resolve(self.config, self.path, training=False)
    algorithm = trained_lib.build(config, _mesh(), abstract=True)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    return network.count(state.params[algorithm.facts.network])

  @functools.cached_property
  def _tokenizer_config(self) -> ml_collections.ConfigDict:
    config = trained_lib.resolve(self.config, self.path, training=False)
    return workdir_lib.read_config(config.tokenizer_workdir)

  def sample(
    self,
    key: jax.Array | int,
    num: int,
    label: int | str | None = None,
    task: str = "class_conditional",
    condition: np.ndarray | jax.Array | list | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    temperature: float | None = None,
    choice_temperature: float | None = None,
  ) -> jax.Array:
    """Generates clips: float32 (num, T, H, W, 3) in [0, 1].

    Args:
      key: PRNG key, or a seed n for `jax.random.key(n)`; the same key gives
        the same clips.
      num: number of clips.
      label: class of all clips, a number or one of `class_names`; None for no
        class. Only tasks that are told the class take one.
      task: one of `tasks`, which the model was trained on.
      condition: clips (num, T, H, W, 3), uint8 or float in [0, 1], read where
        the task is given pixels; every task but class_conditional needs them,
        and that one takes none. Nested lists are read as arrays.
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
      ValueError: an unknown task or label, a label or a condition that the
        task does not take, a condition that does not fit or is no pixels, a
        number out of its range, or a setting that the model does not have.
    """
    key = given.check_key(key)
    fields.COUNT.check("num", num)
    class_number = self._check(task, label)
    clips_BTHWC = self._condition(task, num, condition)
    program = self._program(
      steps=steps,
      guidance=guidance,
      temperature=temperature,
      choice_temperature=choice_temperature,
    )
    return program(self._batch(task, class_number, clips_BTHWC), key)

  def sample_long(
    self,
    key: jax.Array | int,
    condition: np.ndarray | jax.Array | list,
    frames: int,
    label: int | str | None = None,
    task: str = "frame_prediction",
    **settings: float | None,
  ) -> Iterator[jax.Array]:
    """Predicts videos of any length: yields float32 (num, n, H, W, 3) in turn.

    Each clip continues the last `config.condition_frames` frames of the one
    before. Memory does not grow with `frames`, and one program serves all.

    Args:
      key: PRNG key, or a seed n for `jax.random.key(n)`; the same key gives
        the same video.
      condition: first frames (num, config.condition_frames, H, W, 3).
      frames: number of frames to predict in all.
      label: class of all videos, a number or one of `class_names`, for
        class_conditional_frame_prediction.
      task: frame_prediction or class_conditional_frame_prediction.
      **settings: steps, guidance, temperature, choice_temperature of `sample`.

    Raises:
      ValueError: another task, or what `sample` refuses.
    """
    first_key = given.check_key(key)
    fields.COUNT.check("frames", frames)
    class_number = self._check(task, label)
    if "frame_prediction" not in task:
      raise ValueError(
        f"task={task!r} must be frame_prediction or"
        " class_conditional_frame_prediction"
      )
    length, height, width = self.clip_shape
    shape = (self.config.condition_frames, height, width, 3)
    condition_BTHWC = given.check_video("condition", condition)
    if condition_BTHWC.shape[1:] != shape:
      raise ValueError(
        f"condition of shape {condition_BTHWC.shape} must be (num, {shape[0]},"
        f" {height}, {width}, 3): condition_frames={shape[0]} first frames"
      )
    program = self._program(**settings)
    predict = lambda video, key: program(
      self._batch(task, class_number, video), key
    )
    return long_video.roll(predict, first_key, condition_BTHWC, frames, length)

  def _check(self, task, label) -> int:
    """Returns the number of a label's class, if it and the task are known."""
    if task not in self.tasks:
      raise ValueError(
        f"task={schema.brief(repr(task))} must be one of {list(self.tasks)}"
      )
    if label is None:
      return self.num_classes  # it stands for "no class"
    number = self._class_number(label)
    if not tasks.TASKS[task].class_conditional:
      raise ValueError(
        f"label={label!r} is for tasks with a class, and task={task!r} has"
        " none: leave it out"
      )
    return number

  def _condition(self, task, num, condition) -> Any:
    """Returns the clips that a task completes; zeros if it is given none."""
    shape = (num, *self.clip_shape, 3)
    if condition is None:
      if tasks.needs_clip(task):
        raise ValueError(
          f"task={task!r} needs condition: give clips {shape}, floats in"
          " [0, 1] or uint8, of which the task's region is read"
        )
      return np.zeros(shape, np.uint8)
    if not tasks.needs_clip(task):
      others = [name for name in self.tasks if tasks.needs_clip(name)]
      raise ValueError(
        f"task={task!r} is given no pixels, and a condition was given: leave it"
        f" out, or name a task that reads it, of {others}"
      )
    clips_BTHWC = given.check_video("condition", condition)
    if clips_BTHWC.shape != shape:
      raise ValueError(
        f"condition of shape {clips_BTHWC.shape} must be {shape}, num clips of"
        " the model's size"
      )
    return clips_BTHWC

  def _class_number(self, label) -> int:
    classes = self.num_classes
    if isinstance(label, numbers.Integral) and not isinstance(label, bool):
      if 0 <= int(label) < classes:
        return int(label)
    text = f"label={schema.brief(repr(label))}"
    if classes < 1:
      raise ValueError(f"{text}: the model has no classes: leave it out")
    try:
      names, choice = self.class_names, ""
    except (OSError, ValueError) as error:
      names, choice = (), f" (names cannot be read: {error})"
    if isinstance(label, str) and label in names:
      return names.index(label)
    if names:
      more = f", ... ({len(names)} names)" if len(names) > _SHOWN else ""
      choice = f", one of {', '.join(map(repr, names[:_SHOWN]))}{more}"
    raise ValueError(
      f"{text} must be in 0..{classes - 1}{choice}, or None for no class"
    )

  def _batch(self, task, class_number, video):
    return {
      "task": np.int32(self.tasks.index(task)),
      "label": np.full(len(video), class_number, np.int32),
      "video": to_float(jnp.asarray(video)),  # one program for uint8, too
    }

  def _program(self, **settings):
    """Compiles (batch, key) -> clips, with these fields of config.sampling.

    The other fields are those that `config` has at the call.
    """
    changed = {k: v for k, v in settings.items() if v is not None}
    config = sampling.with_settings(self.config, changed)
    name = config.sampling.to_json()
    if name not in self._programs:
      mesh = _mesh()
      config = trained_lib.resolve(config, self.path, training=False)
      algorithm = trained_lib.build(config, mesh)
      self.step, params = trained_lib.restore(self.path, algorithm, mesh)
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
  path = paths.expand(path, urls=True)
  config = workdir_lib.read_config(path)
  if describe.is_tokenizer(config):
    raise ValueError(
      f"{path} holds {config.name!r}, which does not generate: use"
      " load_tokenizer"
    )
  facts = trained_lib.find_algorithm(config).facts
  if facts.kind != algorithm_lib.GENERATOR:
    raise ValueError(
      f"{path} holds {config.name!r}, which is {facts.kind} and does not"
      " generate: name the workdir of a generator"
    )
  step = weights_lib.latest_step(path)
  config.mesh.data, config.mesh.fsdp = 1, 1
  return LoadedGenerator(config, path, step)


def _mesh():
  """One device: samples of a key do not depend on how many there are."""
  return mesh_lib.data_mesh(jax.devices()[:1])
