"""Which frames of a video a clip has: the rules, by name.

  random  any window of the video, each as likely
  first   from the first frame on
  centre  the middle of the video (the earlier one of two)
  ends    two clips: its first window, and its last one
  all     a clip for each window: they overlap in all but one frame

A window spans (frames - 1) * stride + 1 frames of the video. Where the video is
shorter, `short_videos` says what becomes of it: "error", or "hold", which
repeats its last frame.
"""

from collections.abc import Sequence
import dataclasses

RULES = ("random", "first", "centre", "ends", "all")
_SHORT = ("error", "hold")


@dataclasses.dataclass(frozen=True)
class Window:
  """Where clips of `frames` frames lie in a video."""

  rule: str
  frames: int
  stride: int  # frames of the video from one of the clip to the next
  short_videos: str

  def __post_init__(self):
    """Raises ValueError for settings that cannot work."""
    for field, value, known in (
      ("train_window or eval_window", self.rule, RULES),
      ("short_videos", self.short_videos, _SHORT),
    ):
      if value not in known:
        raise ValueError(f"dataset.{field}={value!r} must be one of {known}")
    for field in ("frames", "stride"):
      if getattr(self, field) < 1:
        raise ValueError(
          f"dataset.{field}={getattr(self, field)} must be at least 1"
        )

  @property
  def span(self) -> int:
    """Frames of the video from a clip's first to its last."""
    return (self.frames - 1) * self.stride + 1

  def count(self, length: int | None) -> int:
    """Clips of a video; `length` in frames is read for "all" only."""
    if self.rule == "all":
      if length is None:
        raise ValueError(
          f"train_window or eval_window={self.rule!r} counts by the length of a"
          f" video, and length={length}: give its frames"
        )
      return max(length - self.span, 0) + 1
    return 2 if self.rule == "ends" else 1

  def choose(self, length: int, number: int, place: float) -> Sequence[int]:
    """The frames of a clip, by their number in the video.

    Args:
      length: of the video, in frames.
      number: of the clip, below `count`.
      place: in [0, 1), of a random window.

    Raises:
      ValueError: a video that is too short.
    """
    free = length - self.span
    if free < 0 and self.short_videos == "error":
      raise ValueError(
        f"it has {length} frames, and a clip of dataset.frames={self.frames} at"
        f" dataset.stride={self.stride} spans {self.span}: use"
        " dataset.short_videos='hold' to repeat the last frame, or leave the"
        " video out"
      )
    free = max(free, 0)
    start = {
      "random": int(place * (free + 1)),
      "first": 0,
      "centre": free // 2,
      "ends": number * free,
      "all": number,
    }[self.rule]
    last = length - 1
    return [min(start + i * self.stride, last) for i in range(self.frames)]
