"""Trained models for Python: tokens out of clips, and clips out of tokens."""

from collections.abc import Iterable
from collections.abc import Iterator
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from magvit import checkpoint
from magvit import masking
from magvit import mesh as mesh_lib
from magvit import rolling
from magvit import sampling
from magvit import streaming
from magvit import tokenizer as tokenizer_lib
from magvit import train
from models import network
from models.tokenizer import to_float


class LoadedTokenizer:
  """Clips to ids and back. Make one with `load_tokenizer`."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    generator: network.Network,
    params: Any,
  ):
    self.config = config
    self._params = {"generator": params}
    functions = tokenizer_lib.predict_functions(generator)
    self._encode = jax.jit(functions["encode"])
    self._decode = jax.jit(functions["decode"])
    self._streaming = streaming.Streaming(
      generator, params, tokenizer_lib.sizes(config).time
    )

  def encode(self, video: np.ndarray | jax.Array) -> jax.Array:
    """Video (B, T, H, W, 3) to ids, int32 (B, t, h, w).

    Pixels are float in [0, 1] or uint8; an image is a clip of one frame.

    Raises:
      ValueError: another rank, range or number of channels, or a size that
        the strides do not divide.
    """
    video = np.asarray(video) if isinstance(video, list) else video
    return self._encode(
      self._params, {"video": self._checked_video(video)}, None
    )

  def encode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Consecutive frames (B, n, H, W, 3), any n, to ids (B, m, h, w).

    The ids are those of the whole clip, however it is cut, and come as soon as
    their frames are there: one for the first frame, then for each `stride` of
    them; memory does not grow with the clip. Pixels are as in `encode`.

    Raises:
      ValueError: as in `encode`; at the end, for a clip that is not of 1 + a
        multiple of the stride frames; a tokenizer that needs whole clips.
    """
    return self._streaming.encode(map(self._checked_video, chunks))

  def decode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Consecutive ids (B, m, h, w), any m, to frames (B, n, H, W, 3).

    The inverse of `encode_stream`: float32 in [0, 1], the first id one frame,
    each later one `stride` of them.

    Raises:
      ValueError: as in `decode`; a tokenizer that needs whole clips.
    """
    return self._streaming.decode(map(self._checked_ids, chunks))

  def _checked_video(self, video):
    if video.ndim != 5 or video.shape[-1] != 3:
      raise ValueError(
        f"video of shape {video.shape} must be (batch, frames, height, width,"
        " 3)"
      )
    is_float = video.dtype != jnp.uint8
    if is_float and video.size and (video.min() < 0 or video.max() > 1):
      raise ValueError(
        f"video has values in [{video.min()}, {video.max()}]: give floats in"
        " [0, 1], or uint8"
      )
    return video

  def decode(self, ids: np.ndarray | jax.Array) -> jax.Array:
    """Ids (B, t, h, w) to video, float32 (B, T, H, W, 3) in [0, 1].

    Raises:
      ValueError: another rank, or ids outside the vocabulary.
    """
    return self._decode(self._params, {"ids": self._checked_ids(ids)}, None)

  def _checked_ids(self, ids):
    vocabulary = tokenizer_lib.vocabulary(self.config)
    if ids.ndim != 4 or not jnp.issubdtype(ids.dtype, jnp.integer):
      raise ValueError(
        f"ids of shape {ids.shape} and type {ids.dtype} must be integers"
        " (batch, time, height, width)"
      )
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
      raise ValueError(
        f"ids in [{ids.min()}, {ids.max()}] must be in 0..{vocabulary - 1}"
      )
    return ids


class LoadedGenerator:
  """Samples clips. Make one with `load_generator`."""

  def __init__(self, config: ml_collections.ConfigDict, workdir: str):
    self.config = config
    self._workdir = workdir
    self._programs = {}

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
      num: how many.
      label: class of all of them; None for no class.
      task: one of the tasks that the model was trained on.
      condition: clips (num, T, H, W, 3), read where the task is given pixels;
        needed by every task but class_conditional.
      steps: predictions of a masked model; None for the config's, as in the
        next three. Any of those makes a masked model's completions samples, too
        (config.sampling.completion). An autoregressive model has as many steps
        as tokens, and no choice_temperature.
      guidance: 0 is unguided; `magvit.sampling.guidance_of_scale` makes it of
        the papers' scale.
      temperature: of drawing tokens; 0 takes the likeliest of a masked model.
      choice_temperature: of choosing which tokens to keep.

    Raises:
      ValueError: an unknown task or label, a condition that does not fit, or a
        setting that the model does not have.
    """
    self._check(task, label)
    shape = (num, *tokenizer_lib.clip_shape(self.config), 3)
    if condition is None:
      if masking.needs_clip(task):
        raise ValueError(f"task={task!r} needs condition, clips {shape}")
      condition = np.zeros(shape, np.uint8)
    if condition.shape != shape:
      raise ValueError(
        f"condition of shape {condition.shape} must be {shape}: the model's"
        " clips"
      )
    program = self._program(
      steps=steps,
      guidance=guidance,
      temperature=temperature,
      choice_temperature=choice_temperature,
    )
    return program(self._batch(task, label, condition), key)

  def sample_long(
    self,
    key: jax.Array,
    condition: np.ndarray | jax.Array,
    frames: int,
    label: int | None = None,
    task: str = "frame_prediction",
    **settings: float | None,
  ) -> Iterator[jax.Array]:
    """Predicts on and on: float32 (num, n, H, W, 3) at a time.

    Each clip continues the last `config.condition_frames` frames of the one
    before. Memory does not grow with `frames`, and one program serves all.

    Args:
      key: PRNG key; the same key gives the same video.
      condition: the first frames (num, config.condition_frames, H, W, 3).
      frames: how many to predict in all.
      label: class of all of them, read by class_conditional_frame_prediction.
      task: that, or frame_prediction.
      **settings: steps, guidance, temperature, choice_temperature of `sample`.

    Raises:
      ValueError: another task, or a condition that does not fit.
    """
    self._check(task, label)
    if "frame_prediction" not in task:
      raise ValueError(f"task={task!r} must be a frame prediction")
    length, height, width = tokenizer_lib.clip_shape(self.config)
    shape = (self.config.condition_frames, height, width, 3)
    if condition.shape[1:] != shape:
      raise ValueError(
        f"condition of shape {condition.shape} must be (num, {shape[0]},"
        f" {height}, {width}, 3): condition_frames={shape[0]} first frames"
      )
    program = self._program(**settings)
    predict = lambda video, key: program(self._batch(task, label, video), key)
    return rolling.roll(predict, key, condition, frames, length)

  def _check(self, task, label) -> None:
    names = masking.task_names(self.config)
    if task not in names:
      raise ValueError(f"task={task!r} must be one of {names}")
    classes = self.config.transformer.num_classes
    if label is not None and not 0 <= label < classes:
      raise ValueError(f"label={label} must be in 0..{classes - 1}, or None")

  def _batch(self, task, label, video):
    if label is None:
      label = self.config.transformer.num_classes
    return {
      "task": np.int32(masking.task_names(self.config).index(task)),
      "label": np.full(len(video), label, np.int32),
      "video": to_float(jnp.asarray(video)),  # one program for uint8, too
    }

  def _program(self, **settings):
    """(batch, key) -> clips, with these fields of config.sampling."""
    changed = {k: v for k, v in settings.items() if v is not None}
    name = tuple(sorted(changed.items()))
    if name not in self._programs:
      config = sampling.with_settings(self.config, changed)
      mesh = mesh_lib.data_mesh(jax.devices()[:1])
      algorithm = train.build(config, self._workdir, mesh)
      params = {**self._params(algorithm, mesh), **algorithm.frozen}
      sample = jax.jit(algorithm.predict["sample"])
      self._programs[name] = lambda batch, key: sample(params, batch, key)[
        "video"
      ]
    return self._programs[name]

  def _params(self, algorithm, mesh):
    abstract = jax.eval_shape(algorithm.init, jax.random.key(0))
    part = {"params": abstract.params}
    return checkpoint.restore_part(self._workdir, part, mesh)["params"]


def load_tokenizer(path: str) -> LoadedTokenizer:
  """The tokenizer of a workdir or of an export, a generator's included.

  Raises:
    ValueError: nothing was trained there, or an export that was changed.
  """
  config = checkpoint.read_config(path)
  if config.algorithm != "tokenizer":
    path = os.path.join(path, "tokenizer")
    config = checkpoint.read_config(path)
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  return LoadedTokenizer(config, *tokenizer_lib.restore_generator(path, mesh))


def load_generator(path: str) -> LoadedGenerator:
  """The generator of a workdir or of an export.

  Raises:
    ValueError: nothing was trained there, something else, or an export that was
      changed.
  """
  config = checkpoint.read_config(path)
  if config.algorithm == "tokenizer":
    raise ValueError(
      f"{path} holds {config.name!r}, which does not generate: use"
      " load_tokenizer"
    )
  checkpoint.latest_step(path)
  config.mesh.data, config.mesh.fsdp = 1, 1
  return LoadedGenerator(config, path)
