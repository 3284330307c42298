"""EfficientNet-Lite0 and SqueezeNet 1.1 in numpy, float64, from their tables.

Written from the published descriptions and the files' own names, not from our
modules. Padding is computed side by side, as TensorFlow documents "SAME".
"""

import numpy as np

# (repeats, kernel, stride, expansion, input width, output width)
_STAGES = (
  (1, 3, 1, 1, 32, 16),
  (2, 3, 2, 6, 16, 24),
  (2, 5, 2, 6, 24, 40),
  (3, 3, 2, 6, 40, 80),
  (3, 5, 1, 6, 80, 112),
  (4, 5, 2, 6, 112, 192),
  (1, 3, 1, 6, 192, 320),
)


def same_convolution(x_BHWC, kernel_OIHW, stride):
  """Convolution of all channels, or of each alone if I is 1 and C is not."""
  depthwise = kernel_OIHW.shape[1] == 1 < x_BHWC.shape[-1]
  size = kernel_OIHW.shape[2]
  padded, counts = x_BHWC, []
  for axis in (1, 2):
    old = x_BHWC.shape[axis]
    count = -(-old // stride)
    total = max((count - 1) * stride + size - old, 0)
    widths = [(0, 0)] * 4
    widths[axis] = (total // 2, total - total // 2)
    padded = np.pad(padded, widths)
    counts.append(count)
  total = np.zeros(())
  for i in range(size):
    for j in range(size):
      seen = padded[:, i::stride, j::stride][:, : counts[0], : counts[1]]
      weight_OI = kernel_OIHW[:, :, i, j]
      if depthwise:
        total = total + seen * weight_OI[:, 0]
      else:
        total = total + seen @ weight_OI.T
  return total


def _normalized(x, tensors, name):
  get = lambda leaf: tensors[f"{name}.{leaf}"].astype(np.float64)
  scale = get("weight") / np.sqrt(get("running_var") + 1e-3)
  return (x - get("running_mean")) * scale + get("bias")


def efficientnet_lite0(tensors, pixels_BHWC):
  """Activations after stem and stages of float64 pixels in [0, 255]."""
  relu6 = lambda x: np.clip(x, 0.0, 6.0)

  def unit(x, conv, norm, stride=1):
    x = same_convolution(x, tensors[f"{conv}.weight"].astype(float), stride)
    return _normalized(x, tensors, norm)

  x = relu6(unit((pixels_BHWC - 127) / 128, "_conv_stem", "_bn0", 2))
  kept, number = [x], 0
  for repeats, _, first_stride, expansion, _, _ in _STAGES:
    for repeat in range(repeats):
      at = f"_blocks.{number}"
      h, stride = x, 1 if repeat else first_stride
      if expansion > 1:
        h = relu6(unit(h, f"{at}._expand_conv", f"{at}._bn0"))
      h = relu6(unit(h, f"{at}._depthwise_conv", f"{at}._bn1", stride))
      h = unit(h, f"{at}._project_conv", f"{at}._bn2")
      x = h + x if stride == 1 and h.shape == x.shape else h
      number += 1
    kept.append(x)
  return kept


def _largest_of_3(x_BHWC):
  """Largest of 3 x 3 pixels at every second place, inside the picture."""
  height, width = (1 + (n - 3) // 2 for n in x_BHWC.shape[1:3])
  shifted = [
    x_BHWC[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
    for i in range(3)
    for j in range(3)
  ]
  return np.max(shifted, axis=0)


def squeezenet(tensors, pixels_BHWC):
  """Activations of conv1 and fire3, 5, 6, 7, 8, 9 of pixels in [0, 255]."""

  def conv(x, name, stride=1):
    kernel_OIHW = tensors[f"{name}.0"].astype(float).transpose(3, 2, 0, 1)
    x = same_convolution(x, kernel_OIHW, stride)
    return np.maximum(x + tensors[f"{name}.1"], 0.0)

  x = pixels_BHWC[..., [2, 1, 0]] - np.array([103.939, 116.779, 123.68])
  x = conv(x, "conv1", 2)
  kept = [x]
  for number in range(2, 10):
    if number in (2, 4, 6):
      x = _largest_of_3(x)
    squeezed = conv(x, f"fire{number}/squeeze1x1")
    sides = [conv(squeezed, f"fire{number}/expand{n}x{n}") for n in (1, 3)]
    x = np.concatenate(sides, axis=-1)
    if number in (3, 5, 6, 7, 8, 9):
      kept.append(x)
  return kept
