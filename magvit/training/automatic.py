"""Numbers of a config that training chooses by the data, once.

A field of `fields.AUTOMATIC` that is 0 gets its number before step 1, by the
section `automatic`: epochs make num_steps, the number of training clips bounds
batch_size, that of held-out clips dataset.eval_examples, and the classes are
counted. config.json has the numbers, and a resumed run goes on with them.
"""

from collections.abc import Iterable
import logging

from jax.sharding import Mesh
import ml_collections

from configs import fields
from input_pipeline import pipeline
from input_pipeline import stores
from input_pipeline.sources import token_shards
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib

log = logging.getLogger(__name__)


def with_numbers(
  config: ml_collections.ConfigDict, workdir: str, mesh: Mesh
) -> ml_collections.ConfigDict:
  """Returns the config with a number in each field that is left to the data.

  Raises:
    ValueError: a number out of its range, data that cannot be read or have no
      end, or a run whose data have classes that it does not know.
  """
  fields.check(config)
  left = fields.automatic(config)
  if not left:
    return config
  chosen = trained_lib.with_fields(config, _numbers(config, mesh))
  words = _words(config, chosen, left)
  if not weights_lib.is_resumed(workdir):
    log.info("chosen by the data: %s", words)
    return chosen
  stored = workdir_lib.read_config(workdir)
  resumed = workdir_lib.with_stored_numbers(stored, config)
  going_on = _words(config, resumed, left)
  log.info("chosen when the run began: %s", going_on)
  if going_on != words:
    there, here = (dict(fields.leaves(c)) for c in (resumed, chosen))
    for name in _class_fields(left):
      if there[name] < here[name]:
        raise ValueError(
          f"dataset.path={config.dataset.path} has {here[name]} classes, and"
          f" the run in workdir={workdir} began with {there[name]}: take the"
          " new ones away, or train in another workdir"
        )
    log.info("the data have changed since, and would give %s", words)
  return resumed


def check_given(config: ml_collections.ConfigDict, mode: str) -> None:
  """Raises ValueError if a field is left to data that a mode does not read."""
  left = [name for name in fields.automatic(config) if "eval" not in name]
  if left:
    flags = ", ".join(f"--config.{name}=NUMBER" for name in left)
    raise ValueError(
      f"{left[0]}=0 is chosen by the data when training starts, and"
      f" --mode={mode} reads none: give {flags}"
    )


def _words(
  config: ml_collections.ConfigDict,
  chosen: ml_collections.ConfigDict,
  names: list[str],
) -> str:
  """The numbers, by the names of their fields."""
  values = dict(fields.leaves(chosen))
  text = ", ".join(f"{name}={values[name]}" for name in names)
  if "num_steps" in names:
    text += f" ({config.automatic.epochs} epochs, within bounds)"
  return text


def _numbers(config: ml_collections.ConfigDict, mesh: Mesh) -> dict[str, int]:
  """Numbers by the names of the fields that are left to the data."""
  left, c = fields.automatic(config), config.automatic
  numbers = {}
  batch_size, clips = config.batch_size, 0
  counted = [name for name in ("batch_size", "num_steps") if name in left]
  if counted:  # once: a large folder takes long to list
    clips = _training_clips(config, counted[0])
  if "batch_size" in left:
    batch_size = numbers["batch_size"] = _batch_size(config, mesh, clips)
  if "num_steps" in left:
    steps = -(-c.epochs * clips // batch_size)
    numbers["num_steps"] = min(max(steps, c.least_steps), c.most_steps)
  if "dataset.eval_examples" in left:
    held_out = len(pipeline.source(config.dataset, "held_out"))
    numbers["dataset.eval_examples"] = min(held_out, c.eval_examples)
  for name in _class_fields(left):
    classes = len(pipeline.class_names(config.dataset))
    numbers[name] = max(classes, 1)
  return numbers


def _class_fields(names: Iterable[str]) -> list[str]:
  """Those of these fields that hold a number of classes."""
  return [name for name in names if name.endswith(".num_classes")]


def _training_clips(config: ml_collections.ConfigDict, field: str) -> int:
  """Number of clips of an epoch of training."""
  dataset = config.dataset
  if dataset.train_examples:
    return dataset.train_examples
  if dataset.tokens:
    return len(token_shards.TokenShards(dataset.tokens))
  if dataset.mixture:
    return sum(map(len, stores.mixture(dataset)[0]))
  clips = pipeline.source(dataset, "train")
  if pipeline.is_endless(clips):
    raise ValueError(
      f"{field}=0 counts by the clips of the data, and those of"
      f" dataset.name={dataset.name!r} have no end: give"
      f" --config.{field}=NUMBER"
    )
  return len(clips)


def _batch_size(
  config: ml_collections.ConfigDict, mesh: Mesh, clips: int
) -> int:
  """The largest batch that the data fill and the devices can split."""
  parts = mesh_lib.batch_parts(mesh) * config.microbatches
  most = min(config.automatic.batch_size, clips)
  return max(most // parts, 1) * parts
