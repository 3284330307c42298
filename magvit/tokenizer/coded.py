"""What a loaded model says of its clips and of the ids that stand for them."""

import math

import ml_collections

from magvit.tokenizer import describe


class Coded:
  """A model with clips, and ids of a tokenizer; a base of loaded models.

  Attributes:
    config: the config that it was trained with.
  """

  config: ml_collections.ConfigDict

  @property
  def _tokenizer_config(self) -> ml_collections.ConfigDict:
    """The config of the tokenizer: its own, if it is one."""
    return self.config

  @property
  def clip_shape(self) -> tuple[int, int, int]:
    """(T, H, W) of the clips that it was trained on; a generator samples them.

    A tokenizer takes others, too.
    """
    return describe.clip_shape(self.config)

  @property
  def latent_shape(self) -> tuple[int, int, int]:
    """(t, h, w) of the ids of a clip of `clip_shape`."""
    return describe.sizes(self._tokenizer_config).latent(self.clip_shape)

  @property
  def strides(self) -> tuple[int, int, int]:
    """(time, height, width): frames and pixels that one more id stands for."""
    return describe.sizes(self._tokenizer_config).strides

  @property
  def vocabulary(self) -> int:
    """Number of codes: ids are in 0..vocabulary - 1; 0 where there are none."""
    return describe.vocabulary(self._tokenizer_config)

  @property
  def latent_channels(self) -> int:
    """K, channels of a latent: what `encode` gives where there are no ids."""
    return describe.latent_channels(self._tokenizer_config)

  @property
  def bits(self) -> float:
    """Bits of an id: the logarithm of the vocabulary to base 2.

    Raises:
      ValueError: a tokenizer without ids.
    """
    describe.require_ids(self._tokenizer_config, "the number of bits")
    return math.log2(self.vocabulary)
