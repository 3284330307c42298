"""--mode=tokenize: stores a data set as tokens, for training generators.

  python main.py --workdir=DIR --mode=tokenize --output=FOLDER --num=N

`input_pipeline/sources/token_shards.py` says what the folder holds. Its shards
are the parts that `storage/parts.py` resumes and shares. Until the last one is
written, FOLDER/unfinished.json describes them.

Ids of latents at a tie between codes depend on the hardware and on the number
of clips encoded at once, as they do when training from pixels.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import itertools
import logging
import os
from typing import Any

import grain
import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from input_pipeline import pipeline
from input_pipeline import stores
from input_pipeline.sources import token_shards
from magvit import mesh as mesh_lib
from magvit.generators import hints
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from magvit.modes import table
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import folder as workdir_lib
from models.tokenizer import tokenizer as tokenizer_network
from storage import parts
from storage import processes
from storage import progress as progress_lib
from storage import shards as shards_lib
from storage import stores as stores_lib

log = logging.getLogger(__name__)

_UNFINISHED = "unfinished.json"
_CONDITION_FRAMES = 5  # those of K600 (spec), where no config says otherwise


def run(
  options: table.Tokenize,
  config: ml_collections.ConfigDict | None,
  workdir: str,
) -> None:
  tokenize(
    workdir,
    options.output,
    config,
    options.split,
    options.num,
    options.tasks,
  )


def tokenize(
  workdir: str,
  folder: str,
  config: ml_collections.ConfigDict | None = None,
  split: str = "train",
  num: int | None = None,
  tasks: Sequence[str] | None = None,
  *,
  examples_per_shard: int = 4096,
  process_index: int | None = None,
  process_count: int | None = None,
) -> None:
  """Writes the tokens of a data set into `folder`, or those still missing.

  Args:
    workdir: workdir of a trained tokenizer, or of a generator, which holds one.
    folder: a folder that is new, empty, or has some of the same tokens; all
      processes share it.
    config: config of the generator to train, which gives the data set, the
      size of clips and condition_frames; None: the tokenizer's data.
    split: split of the data set.
    num: number of clips, from the first; None for all of a finite set.
    tasks: tasks whose condition clips are tokenized, too; None for those of
      the config that need it, or without a config for all that do.
    examples_per_shard: number of clips in a file.
    process_index: number of this process; None for JAX's.
    process_count: number of processes that share the work; None for JAX's.

  Raises:
    ValueError: no tokenizer, arguments that cannot work, a folder of something
      else or of another process, or a damaged shard in it.
  """
  place = processes.place(process_index, process_count)
  label = f"--output={folder}"
  with processes.one_writer(
    folder, "--mode=tokenize", label=label, index=process_index
  ):
    _tokenize(
      *(workdir, folder, config, split, num, tasks, examples_per_shard, place)
    )


def _tokenize(
  workdir, folder, config, split, num, tasks, examples_per_shard, place
) -> None:
  """Writes the tokens into a folder of this job; `place` is (index, count)."""
  workdir = workdir_lib.own_tokenizer(workdir) or workdir
  made_by = workdir_lib.read_config(workdir)
  if describe.is_tokenizer(made_by):
    describe.require_ids(made_by, f"workdir={workdir}: --mode=tokenize")
  settings = _settings(workdir, config or made_by)
  mesh = mesh_lib.local_mesh()
  tokens = tokens_lib.open_tokenizer(settings, mesh)
  clips = pipeline.source(settings.dataset, split)
  contents = token_shards.Contents(
    tokenizer=fingerprint.fingerprint(made_by, tokens.params),
    dataset=_describe_clips(settings.dataset, split),
    examples=_check_num(num, clips, settings.dataset.name),
    examples_per_shard=examples_per_shard,
    clip_shape=describe.clip_shape(settings),
    latent_shape=tokens.latent_shape,
    vocabulary=tokens.vocabulary,
    bits=(tokens.vocabulary - 1).bit_length(),
    ids=describe.id_convention(made_by),
    dtype=np.min_scalar_type(tokens.vocabulary - 1).name,
    tasks=_check_tasks(tasks, config, tokens.sizes.causal),
    condition_frames=settings.condition_frames,
  )
  whole = parts.Folder(folder, contents.layout.names, *place)
  checked = _claim(whole, contents)
  encode = _encoder(contents, tokens, mesh)
  batch_size = _batch_size(made_by, whole.count, mesh)
  known = {shard.name for shard in checked}
  _write_missing(whole, contents, clips, encode, batch_size, known)
  whole.finish(lambda _: _finish(folder, contents, checked))


def _settings(workdir: str, config) -> ml_collections.ConfigDict:
  """Settings of the clips, from the config of a generator or a tokenizer."""
  if "transformer" in config:
    hints.check_clips(config, f"--config={config.name}")
  frames = config.get("condition_frames", _CONDITION_FRAMES)
  dataset = {**config.dataset.to_dict(), "joint_images": 0}  # clips alone
  return ml_collections.ConfigDict(
    {
      "tokenizer_workdir": workdir,
      "dataset": dataset,
      "condition_frames": frames,
    }
  )


def _describe_clips(dataset, split: str) -> dict[str, Any]:
  # The chosen folder tells tokens of "val" from those of "test".
  folder = split == "held_out" and stores.held_out_folder(dataset)
  return {**tokens_lib.clips_of(dataset), "split": folder or split}


def _claim(
  whole: parts.Folder, contents: token_shards.Contents
) -> list[shards_lib.Shard]:
  """Claims the folder for these tokens; returns shards that are there, checked.

  Raises:
    ValueError: a folder of something else, or a damaged shard in it.
  """
  checked = token_shards.FORMAT.claim(
    whole, shards_lib.to_json(contents), _UNFINISHED
  )
  for shard in checked:
    token_shards.FORMAT.check(whole.path, shard, contents=True)
  return checked


def _batch_size(
  config: ml_collections.ConfigDict, processes_count: int, mesh: Mesh
) -> int:
  """Batch that gives a device as many clips as training on these devices."""
  devices = processes_count * mesh.size
  return -(-config.batch_size // devices) * mesh.size


def _check_num(num: int | None, clips, name: str) -> int:
  if num is None and pipeline.is_endless(clips):
    raise ValueError(
      f"dataset.name={name!r} is endless: say with --num=N how many clips"
    )
  num = len(clips) if num is None else num
  if not 1 <= num <= len(clips):
    raise ValueError(
      f"--num={num} must be in 1..{len(clips)}, as {name!r} has that many clips"
    )
  return num


def _check_tasks(
  tasks: Sequence[str] | None,
  config: ml_collections.ConfigDict | None,
  causal: bool,
) -> tuple[str, ...]:
  needed = tuple(
    name
    for name in tasks_lib.TASKS
    if tokens_lib.needs_condition_tokens(name, causal)
  )
  if tasks is None and config is not None and "tasks" in config:
    tasks = [name for name in tasks_lib.task_names(config) if name in needed]
  elif tasks is None:
    return needed
  if set(tasks) - set(needed):
    raise ValueError(
      f"--tasks={','.join(tasks)} must name some of {list(needed)}; other tasks"
      " need no condition tokens, because the tokens of their clips serve"
    )
  return tuple(name for name in needed if name in tasks)


def _write_missing(
  whole: parts.Folder,
  contents: token_shards.Contents,
  clips,
  encode,
  batch_size: int,
  known: set[str],
) -> None:
  """Writes the shards of this process that are not there yet.

  Shards in `known` have been compared with their checksums.
  """

  def is_whole(number: int, path: str) -> bool:
    count = len(contents.layout.places(number))
    return whole.names[number] in known or shards_lib.is_whole(path, count)

  places = {i: contents.layout.places(i) for i in whole.mine(is_whole=is_whole)}
  total = sum(map(len, places.values()))
  progress = progress_lib.Progress("tokens", total, "clips")

  def records(number):
    for record in _records(clips, places[number], contents, encode, batch_size):
      yield token_shards.pack(record)
      progress.add(1)

  for number in places:
    shards_lib.write(whole.part(number), records(number))


def _encoder(
  contents: token_shards.Contents, tokens: tokens_lib.Tokens, mesh: Mesh
) -> Callable[[np.ndarray], dict[str, jax.Array]]:
  """Makes a function of uint8 clips (B, T, H, W, 3).

  It returns {"ids", "condition/TASK"}, each (B, N).
  """

  def condition(task: str, video_BTHWC: jax.Array) -> jax.Array:
    given_THW = tasks_lib.given_pixels(
      task, video_BTHWC.shape[1:4], contents.condition_frames
    )
    return tasks_lib.TASKS[task].fill(
      tokenizer_network.to_float(video_BTHWC), given_THW
    )

  views: dict[str, Callable] = {"ids": tokenizer_network.to_float}
  for task in contents.tasks:
    views[token_shards.CONDITION + task] = functools.partial(condition, task)
  views = {key: jax.jit(view) for key, view in views.items()}
  encode = jax.jit(tokens.encode)  # compiled once for all views

  def run(video_BTHWC: np.ndarray) -> dict[str, jax.Array]:
    placed = mesh_lib.place_global(video_BTHWC, mesh)
    return {
      key: encode(tokens.params, view(placed)) for key, view in views.items()
    }

  return run


def _records(
  clips, places: range, contents: token_shards.Contents, encode, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields records; a batch is encoded while the one before is written."""
  stream = grain.MapDataset.source(clips)[places.start : places.stop]
  options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
  batches = stream.batch(batch_size).to_iter_dataset(options)

  def dispatched():
    for batch in batches:
      # The last batch repeats its last clip, so that all have one shape.
      video = batch["video"]
      filled = np.minimum(np.arange(batch_size), len(video) - 1)
      yield batch["label"], encode(video[filled])

  def records(label_B, encoded):
    ids = {
      key: np.asarray(ids_BN)
      .astype(contents.dtype)
      .reshape(-1, *contents.latent_shape)
      for key, ids_BN in encoded.items()
    }
    for i, label in enumerate(label_B):
      record = {key: ids_Bthw[i] for key, ids_Bthw in ids.items()}
      yield {
        **record,
        "label": np.asarray(label, np.int32),
        "index": np.asarray(next(index), np.int64),
      }

  batches_under_way = dispatched()
  pending = next(batches_under_way)
  index = itertools.count(places.start)
  for following in batches_under_way:
    yield from records(*pending)
    pending = following
  yield from records(*pending)


def _finish(
  folder: str,
  contents: token_shards.Contents,
  checked: Sequence[shards_lib.Shard],
) -> None:
  """Writes the manifest of a folder whose shards are all there."""
  known = {shard.name: shard for shard in checked}
  shards = [
    known.get(name) or shards_lib.describe(folder, name)
    for name in contents.layout.names
  ]
  text = shards_lib.to_json(contents, shards)
  path = token_shards.FORMAT.finish(folder, text)
  unfinished = os.path.join(folder, _UNFINISHED)
  if stores_lib.exists(unfinished):
    stores_lib.remove(unfinished)
  size = sum(shard.bytes for shard in shards)
  log.info(
    "wrote %s: %s clips in %d shards, %s bytes, %.0f a clip",
    path,
    f"{contents.examples:,}",
    len(shards),
    f"{size:,}",
    size / contents.examples,
  )
