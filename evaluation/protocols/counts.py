"""How many clips a protocol measures: never more than there are."""

from collections.abc import Callable
import dataclasses
from typing import Any

import ml_collections

from evaluation.protocols import clips as clips_lib
from evaluation.protocols.clips import Clips
from evaluation.protocols.table import Protocol


@dataclasses.dataclass(frozen=True)
class Sources:
  """Where the clips of a run come from, and what was requested of them.

  given: the made clips, if they are files.
  reference: the real clips, if they are files.
  config: config of the model or of the data set; None: neither.
  open_dataset: opens the real clips of the config's data set.
  """

  protocol: Protocol
  request: Any  # run.Request
  folds: int
  given: Clips | None
  reference: Clips | None
  config: ml_collections.ConfigDict | None
  open_dataset: Callable[[], Clips]


def choose(sources: Sources) -> tuple[int, int]:
  """(made clips in each fold, those that would be if no number was requested).

  Raises:
    ValueError: more clips than there are; says how many that is.
  """
  protocol, requested = sources.protocol, sources.request.num
  usual, flag = protocol.num, f"--num={requested} (in training evaluation.num)"
  if not usual and sources.given is None and sources.reference is None:
    usual = needed_config(sources.config, protocol).dataset.eval_examples
    if not requested:
      flag = f"dataset.eval_examples={usual}"
  limit = _limit(sources)
  if limit is None:
    num = requested or usual
    if num < 1:
      raise ValueError(f"{flag} must be at least 1, or give --num=N")
    return num, usual
  available = limit[0] // sources.folds
  wanted = requested or (0 if protocol.num else usual)
  if wanted > available:
    raise ValueError(
      f"{flag} clips in each of --folds={sources.folds} are more than the"
      f" {limit[0]} clips that {limit[1]}: lower it, or --folds"
    )
  if available < 1:
    raise ValueError(
      f"{sources.folds} folds are more than the {limit[0]} clips that"
      f" {limit[1]}: say --folds=1"
    )
  return requested or min(usual or available, available), usual or available


def _limit(sources: Sources) -> tuple[int, str] | None:
  """(number of clips that there are, words on where); None: without end."""
  protocol, request = sources.protocol, sources.request
  if sources.given is not None:
    return sources.given.num, f"--input={request.input} holds"
  if protocol.made == "samples":
    return None  # a model samples without end
  if sources.reference is not None:
    return sources.reference.num, f"--reference={request.reference} holds"
  name = needed_config(sources.config, protocol).dataset.name
  clips = sources.open_dataset()
  if clips.endless:
    return None
  if protocol.in_turn and not request.num and name.startswith(protocol.dataset):
    return None
  splits = " and ".join(protocol.splits)
  return clips.num, f"dataset.name={name!r} has in {splits}"


def needed_config(
  config: ml_collections.ConfigDict | None, protocol: Protocol
) -> ml_collections.ConfigDict:
  """The config; ValueError if there is none."""
  if config is None:
    raise ValueError(
      f"--protocol={protocol.name} compares with real clips: give"
      " --reference=FILE_OR_FOLDER, or --config=FILE:ARG of their data set"
    )
  return config


def with_data(
  config: ml_collections.ConfigDict | None, protocol: Protocol, request: Any
) -> ml_collections.ConfigDict:
  """The config with the folder --data for its data set, and all clips of it.

  Raises:
    ValueError: no config, one of an embedded set, or --reference as well.
  """
  path = request.data
  if request.reference is not None:
    raise ValueError(
      f"--data={path} and --reference={request.reference} both name the real"
      " clips: leave one out"
    )
  config = ml_collections.ConfigDict(needed_config(config, protocol).to_dict())
  if config.dataset.format == "embedded":
    raise ValueError(
      f"--data={path} takes the place of files, and"
      f" dataset.name={config.dataset.name!r} is embedded: leave it out"
    )
  config.dataset.path = path
  clips = clips_lib.open_dataset(config, protocol, request.seed)
  config.dataset.eval_examples = clips.num
  return config


def repeated(clips: Clips | None, count: int) -> int:
  """How many of `count` real clips of a data set were read before."""
  available = None if clips is None else clips.origin.get("available")
  return max(0, count - available) if isinstance(available, int) else 0
