"""C3D on UCF-101, whose class probabilities the video Inception Score takes.

Tran et al. 2015 (arXiv 1412.0767), as in pfnet-research/tgan2 and
google-research/magvit (`train_lib/inception_score.py`): channels in the order
blue, green, red; frames of 112 x 112 by Chainer's resize; a mean clip.
"""

import re

from flax import nnx
import jax
from jax import lax
import jax.numpy as jnp

from models.features import feature_network
from models.features import resize
from models.tokenizer import convolution

DIMS = {"probabilities": 101}
FRAMES = 16
_SIZE = 112  # pixels of the network's input
CONVS = {  # input channels and width of each convolution
  "conv1a": (3, 64),
  "conv2a": (64, 128),
  "conv3a": (128, 256),
  "conv3b": (256, 256),
  "conv4a": (256, 512),
  "conv4b": (512, 512),
  "conv5a": (512, 512),
  "conv5b": (512, 512),
}
_POOLED_AFTER = {  # convolutions before a pool, and the frames it joins
  "conv1a": 1,
  "conv2a": 2,
  "conv3b": 2,
  "conv4b": 2,
  "conv5b": 2,
}
_LINEAR = {"fc6": (8192, 4096), "fc7": (4096, 4096), "fc8": (4096, 101)}


class C3D(nnx.Module):
  """C3D on clips (B, 16, H, W, 3) in [0, 255], RGB, uint8 or float."""

  fc6: nnx.Linear
  fc7: nnx.Linear
  fc8: nnx.Linear

  def __init__(self, *, rngs: nnx.Rngs):
    # The negative of the training set's mean clip, blue first.
    self.x_offset = nnx.Param(jnp.zeros((FRAMES, _SIZE, _SIZE, 3)))
    for name, (channels, width) in CONVS.items():
      setattr(self, name, nnx.Conv(channels, width, (3, 3, 3), rngs=rngs))
    for name, (width_in, width_out) in _LINEAR.items():
      setattr(self, name, nnx.Linear(width_in, width_out, rngs=rngs))

  def __call__(self, video_BTHWC: jax.Array) -> dict[str, jax.Array]:
    """Computes `probabilities` (B, 101) of the classes of UCF-101.

    Raises:
      ValueError: the clips do not have 16 frames.
    """
    if video_BTHWC.shape[1] != FRAMES:
      raise ValueError(
        f"a clip has {video_BTHWC.shape[1]} frames, and C3D takes exactly"
        f" {FRAMES}: evaluate clips of {FRAMES} frames"
      )
    with jax.default_matmul_precision("highest"):
      x = resize.corner_aligned_bilinear(video_BTHWC[..., ::-1], _SIZE, _SIZE)
      x = x + self.x_offset[None]
      for name in CONVS:
        x = jax.nn.relu(self._conv(name, x))
        if name == "conv5b":  # one row and column of zeros: 7 x 7 to 8 x 8
          x = convolution.pad_with_zeros(x, ((0, 0), (0, 1), (0, 1)))
        if name in _POOLED_AFTER:
          window = (_POOLED_AFTER[name], 2, 2)
          x = nnx.max_pool(x, window, window)
      # The dense weights expect features flattened with the channels first.
      x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
      x = jax.nn.relu(self.fc6(x))
      x = jax.nn.relu(self.fc7(x))
      return {"probabilities": jax.nn.softmax(self.fc8(x))}

  def _conv(self, name: str, x_BTHWC: jax.Array) -> jax.Array:
    conv = getattr(self, name)
    x_BTHWC = convolution.pad_with_zeros(x_BTHWC, ((1, 1), (1, 1), (1, 1)))
    y_BTHWC = convolution.valid_conv(x_BTHWC, conv.kernel[...], (1, 1, 1))
    return y_BTHWC + lax.broadcast_to_rank(conv.bias[...], y_BTHWC.ndim)


NETWORK = feature_network.FeatureNetwork(
  make=C3D,
  dims=DIMS,
  ndim=5,
  clips_at_once=8,
  pixels="corner-aligned bilinear to 112",
  where_to_get="c3d_ucf101.flax (gs://magvit/metrics/inception_score, of"
  " https://github.com/google-research/magvit)",
  sources={
    # The names are inferred, because no such file has been seen; a file with
    # other names is refused.
    "torch": feature_network.Source(
      lambda ours: re.sub(r"kernel$", "weight", ours), torch_layout=True
    ),
    "magvit": feature_network.Source(lambda ours: ours.replace(".", "/")),
  },
)
