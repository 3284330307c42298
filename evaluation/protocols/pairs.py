"""Which original belongs to which clip, where both are somebody's files."""

import collections

from evaluation.protocols.clips import Clips
from evaluation.protocols.table import Protocol
from storage import listing

_SINGLE = "pixels"  # the measure that compares each clip with its original


def check(protocol: Protocol, real: Clips, made: Clips) -> None:
  """Raises ValueError unless it is clear which original a clip belongs to.

  Files of two folders must have the same names; two arrays must have as many
  rows. Nothing tells which file a row belongs to, or a clip of a data set: then
  only scores of whole sets, like FID, can be measured.
  """
  single = protocol.measure == _SINGLE
  if single and real.is_array and made.is_array:
    if real.num != made.num:
      raise ValueError(
        f"--reference has {real.num} clips and --input {made.num}: rows of two"
        " .npz are paired by their numbers, so both need the same number"
      )
    return
  if real.names is None or made.names is None:
    if not single:
      return
    raise ValueError(
      "each clip of --input needs its original in --reference: give two"
      " folders, whose files are paired by name, or two .npz, whose rows are"
      " paired by number"
    )
  for flag, side in (("reference", real), ("input", made)):
    name, count = collections.Counter(side.names).most_common(1)[0]
    if count > 1:
      raise ValueError(
        f"--{flag} has {count} files named {listing.text(name)}, which differ"
        " in their suffixes alone: files are paired by name, so keep one"
      )
  for original, output in zip(real.names, made.names, strict=False):
    if original != output:
      raise ValueError(
        f"--reference has {listing.text(original)} where --input has"
        f" {listing.text(output)}: files must have the same names in both"
        " folders"
      )


def describe(protocol: Protocol, given: Clips | None) -> str | None:
  """How clips are paired with originals, for the result; None of sets.

  `given` are the clips of --input; None: the model reconstructs the originals.
  """
  if protocol.measure != _SINGLE:
    return None
  if given is None:
    return "each clip is made from its original"
  return "by number of the row" if given.is_array else "by name of the file"
