"""Sizes of the clips that a tokenizer takes, and of their latents."""

from collections.abc import Sequence
import dataclasses


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Clip sizes a tokenizer takes: strides, and the rule for the first frame.

  A causal tokenizer takes 1 + n * time frames to 1 + n latents, any other
  n * time to n; height and width are multiples of `space`.
  """

  time: int
  space: int
  causal: bool = True

  @property
  def strides(self) -> tuple[int, int, int]:
    """(time, height, width) that one more latent stands for."""
    return (self.time, self.space, self.space)

  def latent(self, video_shape: Sequence[int]) -> tuple[int, int, int]:
    """Size (t, h, w) of the latents of clips (T, H, W).

    Raises:
      ValueError: the strides do not divide a size. Shortening the clip instead,
        as others do, would drop frames silently.
    """
    frames, height, width = video_shape
    first = 1 if self.causal else 0
    if (frames - first) % self.time:
      below = (frames - first) // self.time * self.time + first
      rule = "1 + a multiple" if self.causal else "a multiple"
      raise ValueError(
        f"clip length {frames} must be {rule} of the temporal stride"
        f" {self.time}; the nearest are {below} and {below + self.time}"
      )
    for name, size in (("height", height), ("width", width)):
      if size % self.space:
        below = size // self.space * self.space
        raise ValueError(
          f"frame {name} {size} must be a multiple of the spatial stride"
          f" {self.space}; the nearest are {below} and {below + self.space}"
        )
    return (
      first + (frames - first) // self.time,
      height // self.space,
      width // self.space,
    )

  def padded(self, video_shape: Sequence[int]) -> tuple[int, int, int]:
    """Smallest (T, H, W) that is taken and is no smaller than `video_shape`."""
    frames, height, width = video_shape
    first = 1 if self.causal else 0
    up = lambda size, factor: -(-size // factor) * factor
    return (
      first + up(frames - first, self.time),
      up(height, self.space),
      up(width, self.space),
    )
