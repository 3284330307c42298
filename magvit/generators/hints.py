"""Hints: mask tokens that show the token of the condition clip, too.

The condition clip of a task is whole: the last given frame is repeated, frames
between two are interpolated, the edge of a region is repeated outwards, or
zeros stand for what is hidden. COMMIT shows a masked model its tokens in the
given region alone. With `transformer.condition_hints`, which is no paper's, it
sees those of hidden positions, too, added to the mask token. In prediction and
interpolation it so starts from the trivial completion, of which many tokens are
right, and has to learn what changes.
"""

import ml_collections

from magvit.generators import tasks

FIELD = "condition_hints"


def shown(config: ml_collections.ConfigDict) -> bool:
  """Whether a model is shown hints; configs of before know none."""
  return bool(config.transformer.get(FIELD, False))


def needed(config: ml_collections.ConfigDict) -> bool:
  """Whether a model has never made clips without hints in its training."""
  return shown(config) and "class_conditional" not in tasks.task_names(config)


def check(config: ml_collections.ConfigDict) -> None:
  """Checks that there are hints to show, wherever they are needed.

  Raises:
    ValueError: no task with a condition, stored tokens, or guidance by a pass
      without hints that the model has not learnt.
  """
  if not shown(config):
    return
  field = f"transformer.{FIELD}"
  names = tasks.task_names(config)
  if not any(tasks.needs_clip(name) for name in names):
    raise ValueError(
      f"{field}=True shows what tasks are given, and {names} are given nothing:"
      f" set {field}=False"
    )
  if config.dataset.tokens:
    check_clips(config, f"dataset.tokens={config.dataset.tokens}")
  if config.sampling.guidance and needed(config):
    raise ValueError(
      f"sampling.guidance={config.sampling.guidance} needs a pass without a"
      f" condition, which a model with {field}=True learns from"
      " tasks.class_conditional alone: set guidance to 0, or train that task"
      " (--config.tasks.class_conditional=1)"
    )


def check_clips(config: ml_collections.ConfigDict, stored: str) -> None:
  """Raises ValueError for a model with hints, which needs clips.

  Stored tokens have those of the condition of frame prediction in the given
  region alone, where they are the clip's.

  Args:
    config: a generator's.
    stored: words for the stored tokens.
  """
  if shown(config):
    raise ValueError(
      f"{stored}: stored tokens lack those of hints; set"
      f" transformer.{FIELD}=False, or train from clips (dataset.tokens='')"
    )
