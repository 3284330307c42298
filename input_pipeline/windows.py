"""Rules, by name, that choose the frames of a video for a clip.

  random  any window of the video, all equally likely
  first   the first window
  centre  the middle window (the earlier of two)
  ends    two clips: the first window, and the last
  all     a clip for each window; neighbours share all but one frame

A window spans (frames - 1) * stride + 1 frames of the video. Where the video is
shorter, `short_videos` decides: "error" refuses it, "hold" repeats its last
frame.
"""

from collections.abc import Sequence
import dataclasses

RULES = ("random", "first", "centre", "ends", "all")
_SHORT = ("error", "hold")


@dataclasses.dataclass(frozen=True)
class Window:
  """Rule that places clips of `frames` frames in a video."""

  rule: str
  frames: int
  stride: int  # frames of the video from one frame of the clip to the next
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
    """Number of frames of the video from a clip's first to its last."""
    return (self.frames - 1) * self.stride + 1

  def count(self, length: int | None) -> int:
    """Number of clips of a video; only "all" reads its `length` in frames."""
    if self.rule == "all":
      if length is None:
        raise ValueError(
          f"train_window or eval_window={self.rule!r} counts by the length of a"
          f" video, and length={length}: give its frames"
        )
      return max(length - self.span, 0) + 1
    return 2 if self.rule == "ends" else 1

  def choose(self, length: int, number: int, place: float) -> Sequence[int]:
    """Numbers of a clip's frames in the video.

    Args:
      length: number of frames of the video.
      number: number of the clip, below `count`.
      place: place of a random window, in [0, 1).

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
