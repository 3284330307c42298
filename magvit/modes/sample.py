"""--mode=sample: generates samples of one task, or pictures of all tasks.

  python main.py --workdir=DIR --mode=sample --task=TASK [--num=50000]
    [--label=NUMBER_OR_NAME] [--input=FILE_OR_FOLDER] [--seed=0] [--steps=24]
    [--guidance=2.0] [--output=FOLDER]

  FOLDER/samples.npz   the layout of ADM's evaluations: arr_0 uint8, images
                       (num, H, W, 3) or clips (num, T, H, W, 3); arr_1 int64
                       (num,), the classes, for tasks that have one;
                       uint8_rule, how pixels in [0, 1] became uint8: "round",
                       or of images "truncate", as the protocols have it that
                       measure them
  FOLDER/samples.png   the first samples; those of clips also as .gif and .mp4
  FOLDER/request.json  the request, and the checkpoint that served it

Samples are made in parts of one batch each, which `storage/parts.py` resumes
and shares among processes. A batch is that of the config, or a smaller one if
it holds all samples. A part depends on the request, the size of the batch and
its number alone. Memory does not grow with `num`.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import json
import logging
import os
import re
from typing import Annotated
from typing import Any

import ml_collections
import numpy as np
from PIL import Image
from PIL import ImageOps

from configs import fields
from evaluation.protocols import clips as clips_lib
from evaluation.protocols import table as protocol_table
from evaluation.show import mp4
from evaluation.show import pictures
from input_pipeline import pipeline
from input_pipeline.decoding import media
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import sampling
from magvit.generators import tasks
from magvit.modes import offline
from magvit.modes import table
from magvit.scoring import model as scored_model
from magvit.scoring import pictures as scoring_pictures
from magvit.tokenizer import describe
from magvit.workdir import folder as workdir_lib
from storage import files
from storage import npz
from storage import parts
from storage import processes
from storage import progress as progress_lib
from storage import schema
from storage import stores

log = logging.getLogger(__name__)

_RECORD = "request.json"
_SHOWN = 64  # most samples in the pictures
_REMEDY = "name another folder with --output, or remove this one"
_FRAME_RATE = 8  # frames per second of .gif and .mp4; clips carry no rate


def run(
  options: table.Sample, config: ml_collections.ConfigDict | None, workdir: str
) -> None:
  config = workdir_lib.stored_config(workdir, config)
  if options.task is None:
    with scoring_pictures.one_writer(workdir, "--mode=sample"):
      scoring_pictures.sample(offline.open_model(workdir, config))
    return
  settings = dataclasses.asdict(options)
  output = settings.pop("output")
  sample(config, workdir, Request(**settings), output)


@dataclasses.dataclass(frozen=True)
class Request:
  """A request for samples; a setting of None is the config's."""

  task: str
  num: int
  label: str | None = None  # number or name; None: every class in turn
  input: str | None = None  # file or folder; None: held-out clips of the data
  seed: int = 0
  steps: int | None = None
  guidance: float | None = None


def sample(
  config: ml_collections.ConfigDict,
  workdir: str,
  request: Request,
  output: str | None = None,
  *,
  process_index: int | None = None,
  process_count: int | None = None,
) -> None:
  """Samples with the newest checkpoint; resumes an interrupted request.

  Args:
    config: config of the generator in `workdir`.
    workdir: workdir of a trained generator.
    request: the samples to make.
    output: a folder that is new or holds this request; None for
      WORKDIR/samples/TASK_seedSEED.
    process_index: number of this process; None for JAX's.
    process_count: number of processes that share the work; None for JAX's.

  Raises:
    ValueError: a request that the model cannot serve, an input that cannot be
      read, or a folder of something else or of another process; nothing is
      sampled then.
  """
  facts = trained_lib.find_algorithm(config).facts
  if facts.kind != algorithm_lib.GENERATOR:
    raise ValueError(
      f"--mode=sample needs the workdir of {algorithm_lib.GENERATOR}, and"
      f" {workdir} holds {config.name!r}"
    )
  config = _with_settings(config, request)
  folder = output or files.inside(
    workdir, "samples", f"{request.task}_seed{request.seed}"
  )
  process = processes.place(process_index, process_count)
  with processes.one_writer(folder, "--mode=sample", index=process_index):
    _sample(config, workdir, request, folder, process)


def _sample(
  config: ml_collections.ConfigDict,
  workdir: str,
  request: Request,
  folder: str,
  process: tuple[int, int],
) -> None:
  """Samples into a folder of this job; `process` is (index, count)."""
  facts = trained_lib.find_algorithm(config).facts
  labels = _Labels(config, config[facts.section].num_classes, request)
  clips = _Clips(config, request)
  mesh = mesh_lib.local_mesh()
  trained = trained_lib.open_trained(workdir, config, mesh)
  stored = _stored_request(folder)
  rule = _uint8_rule(folder, stored, config)
  batch_size = _batch_size(
    stored, config.batch_size, request.num, mesh_lib.batch_parts(mesh)
  )
  protocol = {
    **dataclasses.asdict(request),
    "step": trained.step,
    "batch_size": batch_size,
    "sampling": json.loads(config.sampling.to_json()),
    clips_lib.UINT8_RULE: rule,
  }
  layout = parts.Layout(request.num, batch_size)
  whole = parts.Folder(folder, layout.names, *process)
  text = json.dumps(protocol, indent=2) + "\n"
  free = (clips_lib.UINT8_RULE,)
  whole.claim(_RECORD, text, "samples", free=free)
  archive = files.inside(folder, "samples.npz")
  if stores.exists(archive):
    log.info("%s is complete: nothing is left to do", archive)
    return

  run = scored_model.sampler(trained)
  _make_missing(whole, layout, request, run, labels, clips, rule)
  whole.finish(lambda paths: _join(archive, paths, config, request, rule))


def _stored_request(folder: str) -> dict[str, Any] | None:
  """The request that a folder holds, or None."""
  path = files.inside(folder, _RECORD)
  if not stores.exists(path):
    return None
  return schema.load(path, dict[str, Any], _REMEDY)


def _uint8_rule(
  folder: str, stored: dict[str, Any] | None, config: ml_collections.ConfigDict
) -> str:
  """The rule of the samples in a folder, or else of their protocols.

  A folder of before there was a rule on record has rounded parts, and goes on
  so.
  """
  if stored is None:
    return protocol_table.uint8_rule(describe.clip_shape(config)[0])
  return schema.convert(
    stored.get(clips_lib.UINT8_RULE, "round"),
    Annotated[str, schema.one_of(*pictures.UINT8_RULES)],
    files.inside(folder, _RECORD),
    _REMEDY,
    clips_lib.UINT8_RULE,
  )


def _batch_size(
  stored: dict[str, Any] | None, largest: int, num: int, devices: int
) -> int:
  """Number of samples that the program makes at once, and of those in a part.

  A request that a smaller batch holds has that one, of as many as the devices
  can split. A folder that was begun on other devices, or before small requests
  had small batches, goes on with its own batch if these devices can split it.
  """
  fewest = min(num, largest)
  fitting = -(-fewest // devices) * devices
  begun = None if stored is None else stored.get("batch_size")
  if (
    isinstance(begun, int)
    and fewest <= begun <= max(fitting, largest)
    and begun % devices == 0
  ):
    return begun
  return fitting


def _make_missing(whole, layout, request, run, labels, clips, rule) -> None:
  """Writes the parts of this process that are not there yet."""
  missing = whole.mine(
    is_whole=lambda part, path: npz.is_whole(path, len(layout.places(part)))
  )
  total = sum(len(layout.places(part)) for part in missing)
  progress = progress_lib.Progress(request.task, total, "samples")
  for part in missing:
    place = layout.places(part).start + np.arange(layout.per_part)
    # SeedSequence makes seeds of parts and of requests unrelated to each other.
    sequence = np.random.SeedSequence((request.seed, part))
    label = labels.take(place)
    video = run(
      request.task, label, clips.take(place), int(sequence.generate_state(1)[0])
    )["video"]
    wanted = place < request.num  # the last batch may hold more samples
    pixels = pictures.to_uint8(video, rule, "samples", int(place[0]))
    arrays = {"arr_0": pixels, "arr_1": label}
    arrays = {name: array[wanted] for name, array in arrays.items()}
    files.write_npz(whole.part(part), arrays)
    progress.add(int(wanted.sum()))


def _with_settings(config, request: Request):
  """Returns the config with the request's settings of sampling."""
  names = tasks.task_names(config)
  if request.task not in names:
    raise ValueError(f"--task={request.task} must be one of {names}")
  fields.COUNT.check("--num", request.num)
  fields.SEED.check("--seed", request.seed)
  settings = {"steps": request.steps, "guidance": request.guidance}
  given = {k: v for k, v in settings.items() if v is not None}
  return sampling.with_settings(config, given)


class _Labels:
  """Classes of the samples, by their index."""

  def __init__(self, config, num_classes: int, request: Request):
    self._classes = num_classes
    self._only = None
    if request.label is None:
      return
    if not tasks.TASKS[request.task].class_conditional:
      raise ValueError(
        f"--label={request.label} is for tasks with a class, and"
        f" --task={request.task} has none: leave it out"
      )
    names = pipeline.class_names(config.dataset)
    if request.label in names:
      self._only = names.index(request.label)
    elif re.fullmatch("[0-9]+", request.label) and (
      int(request.label) < self._classes
    ):
      self._only = int(request.label)
    else:
      known = f", or of {list(names)}" if names else ""
      raise ValueError(
        f"--label={request.label} must be in 0..{self._classes - 1}{known}"
      )

  def take(self, index: np.ndarray) -> np.ndarray:
    if self._only is None:
      return index % self._classes
    return np.full_like(index, self._only)


class _Clips:
  """Clips that the samples complete, by index; zeros if the task needs none."""

  def __init__(self, config, request: Request):
    self._shape = describe.clip_shape(config)
    self._needed = tasks.needs_clip(request.task)
    if request.input is not None and not self._needed:
      raise ValueError(
        f"--input={request.input} is for tasks that are given a clip, and"
        f" --task={request.task} is not: leave it out"
      )
    self._clips: pipeline.Source | Sequence[dict[str, Any]] | None = None
    if request.input is not None:
      given = tasks.given_pixels(
        request.task, self._shape, config.condition_frames
      )
      frames = 1 + int(np.flatnonzero(given.any((1, 2)))[-1])
      self._clips = [
        _read_clip(path, frames, self._shape) for path in _paths(request.input)
      ]
    elif self._needed:
      source = pipeline.source(config.dataset, "held_out", length=request.num)
      self._clips = source

  def take(self, index: np.ndarray) -> np.ndarray:
    """uint8 (B, T, H, W, 3); files are taken in turn."""
    if self._clips is None:
      return np.zeros((len(index), *self._shape, 3), np.uint8)
    chosen = [self._clips[int(i) % len(self._clips)] for i in index]
    return np.stack([c["video"] for c in chosen])


def _paths(path: str) -> list[str]:
  if not stores.is_folder(path):
    return [stores.fetched(path) if stores.is_file(path) else path]
  held = stores.fetched_folder(path)
  names, _ = media.find(held)
  if not names:
    raise ValueError(
      f"--input={path} holds no images or videos: name a folder of them"
    )
  return [os.path.join(held, name) for name in names]


def _read_clip(path: str, frames: int, shape: Sequence[int]):
  """Reads the first frames of a file, in the shape of the model's clips.

  Frames are resized to cover the model's size, and the centre is kept. Those
  after the last given frame are not read: it is repeated in their place.
  """
  length, height, width = shape
  source = itertools.islice(media.probe(path).frames(), frames)
  clip = [_fit(frame, height, width) for frame in source]
  if len(clip) < frames:
    raise ValueError(
      f"--input: {path} has {len(clip)} frames, and the task is given"
      f" {frames}: choose a longer one"
    )
  clip += [clip[-1]] * (length - frames)
  return {"video": np.stack(clip)}


def _fit(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
  image = Image.fromarray(frame_HWC)
  return np.asarray(
    ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
  )


def _join(
  archive: str, paths: Sequence[str], config, request: Request, rule: str
) -> None:
  """Writes the parts as one .npz, with one part in memory at a time."""
  folder = os.path.dirname(archive)
  _show(folder, paths, config)

  def videos():
    for path in paths:
      video = npz.load(path, "arr_0")
      # Images are stored without the axis of time.
      yield video[:, 0] if video.shape[1] == 1 else video

  arrays = {"arr_0": videos()}
  if tasks.TASKS[request.task].class_conditional:
    arrays["arr_1"] = (npz.load(path, "arr_1") for path in paths)
  npz.write(archive, request.num, arrays, {clips_lib.UINT8_RULE: rule})
  stores.remove_folder(os.path.join(folder, "parts"))
  log.info("wrote %s and pictures beside it", archive)


def _show(folder: str, paths: Sequence[str], config) -> None:
  """Writes pictures and films of the first samples."""
  shown = itertools.islice(
    (clip for path in paths for clip in npz.load(path, "arr_0")), _SHOWN
  )
  video = np.stack(list(shown))
  columns = int(np.ceil(len(video) ** 0.5))
  grid_THWC = pictures.tile(video, columns)
  name = os.path.join(folder, "samples")
  if len(grid_THWC) == 1:
    pictures.write_png(f"{name}.png", grid_THWC[0])
    return
  pictures.write_png(f"{name}.png", pictures.filmstrip(video[:8], every=2))
  pictures.write_gif(f"{name}.gif", grid_THWC, fps=_FRAME_RATE)
  with mp4.Writer(f"{name}.mp4", _FRAME_RATE) as film:
    for frame_HWC in grid_THWC:
      film.add(frame_HWC)
