"""Drawn weights for torch's networks, and the outputs of torch.

Every tensor is a function of its name in torch's state dict, so that both
sides build the same network: He-scaled kernels, because activations fade under
torch's own initialisation, and batch norms whose statistics are not trivial.
`torch_parity_test.py` asserts that the recorded numbers are those of
torchvision and of the `lpips` package.
"""

import zlib

import numpy as np

# Convolutions of each stage of VGG-16 by their index in `features`.
_VGG16_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_VGG16_WIDTHS = (64, 128, 256, 512, 512)

# Six logits of each of `resnet50_frames`, and all logits' mean squared error.
RESNET50_LOGITS = (
  (29.854818, 32.319836, -50.212014, -13.271503, 46.152179, 14.169545),
  (13.770586, 15.695106, -24.756791, -5.3333882, 23.223546, 9.6344607),
)
RESNET50_DISTANCE = 199.30933
LPIPS_DISTANCES = (0.80200214, 0.017996638)  # LPIPS of `lpips_frames`
# Gradient of LPIPS of `small_frames` by the second: norm, and pixel [8, 8].
LPIPS_GRADIENT_NORM = 0.099635871
LPIPS_GRADIENT = (0.0048931329, 0.0046814336, 0.0020056576)


def resnet50() -> dict[str, np.ndarray]:
  """State dict of torchvision's network; 320 tensors."""
  shapes = {"conv1.weight": (64, 3, 7, 7), **_batch_norm("bn1", 64)}
  channels = 64
  for layer, (blocks, width) in enumerate(
    ((3, 64), (4, 128), (6, 256), (3, 512)), start=1
  ):
    for block in range(blocks):
      at = f"layer{layer}.{block}"
      out = 4 * width
      shapes |= {
        f"{at}.conv1.weight": (width, channels, 1, 1),
        **_batch_norm(f"{at}.bn1", width),
        f"{at}.conv2.weight": (width, width, 3, 3),
        **_batch_norm(f"{at}.bn2", width),
        f"{at}.conv3.weight": (out, width, 1, 1),
        **_batch_norm(f"{at}.bn3", out),
      }
      if block == 0:
        shapes |= {
          f"{at}.downsample.0.weight": (out, channels, 1, 1),
          **_batch_norm(f"{at}.downsample.1", out),
        }
      channels = out
  shapes |= {"fc.weight": (1000, channels), "fc.bias": (1000,)}
  return {name: _tensor(name, shape) for name, shape in shapes.items()}


def vgg16_features() -> dict[str, np.ndarray]:
  """State dict of torchvision's VGG-16 without the classifier; 26 tensors."""
  tensors, channels = {}, 3
  for indices, width in zip(_VGG16_STAGES, _VGG16_WIDTHS, strict=True):
    for index in indices:
      kernel, bias = f"features.{index}.weight", f"features.{index}.bias"
      tensors[kernel] = _tensor(kernel, (width, channels, 3, 3))
      tensors[bias] = _tensor(bias, (width,))
      channels = width
  return tensors


def lpips_heads() -> dict[str, np.ndarray]:
  """The heads' state dict of LPIPS v0.1 for VGG-16; 5 tensors."""
  return {
    f"lin{i}.model.1.weight": _tensor(f"lin{i}", (1, width, 1, 1))
    for i, width in enumerate(_VGG16_WIDTHS)
  }


def lpips_package(combined: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Trunk and heads as the `lpips` package's own network names them."""
  tensors = {
    "scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32),
    "scaling_layer.scale": np.ones((1, 3, 1, 1), np.float32),
  }
  for name, tensor in combined.items():
    if name.startswith("lin"):
      tensors[name] = tensor
      tensors[name.replace("lin", "lins.", 1)] = tensor
    else:
      _, index, kind = name.split(".")
      (stage,) = [i for i, x in enumerate(_VGG16_STAGES) if int(index) in x]
      tensors[f"net.slice{stage + 1}.{index}.{kind}"] = tensor
  return tensors


def resnet50_frames() -> tuple[np.ndarray, np.ndarray]:
  """A frame (1, 40, 48, 3) and a darker one.

  Their logits differ by about as much as they are large: if they were close,
  rounding would be a large part of the difference.
  """
  return frames(1, 40, 48, seed=0), np.float32(0.1) * frames(1, 40, 48, seed=1)


def lpips_frames() -> tuple[np.ndarray, np.ndarray]:
  """Two pairs of frames (37, 50, 3): a far one and a near one.

  No pool divides this size evenly.
  """
  target, output = frames(2, 37, 50, seed=0), frames(2, 37, 50, seed=1)
  output[1] = target[1] + np.float32(0.1) * (output[1] - target[1])
  return target, output


def small_frames() -> tuple[np.ndarray, np.ndarray]:
  """Two frames of the least size that LPIPS takes, (1, 16, 16, 3)."""
  return frames(1, 16, 16, seed=0), frames(1, 16, 16, seed=1)


def frames(num: int, height: int, width: int, seed: int) -> np.ndarray:
  """Noise, float32 (num, height, width, 3) in [0, 1]."""
  rng = np.random.RandomState(seed)
  return rng.random_sample((num, height, width, 3)).astype(np.float32)


def _batch_norm(name, channels):
  return {
    f"{name}.weight": (channels,),
    f"{name}.bias": (channels,),
    f"{name}.running_mean": (channels,),
    f"{name}.running_var": (channels,),
    f"{name}.num_batches_tracked": (),
  }


def _tensor(name, shape):
  # RandomState, whose stream numpy has frozen; a Generator's may change.
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  if name.endswith("num_batches_tracked"):
    return np.array(1000)
  if name.startswith("lin"):
    return rng.random_sample(shape).astype(np.float32)
  if name.endswith("running_var") or (
    name.endswith("weight") and len(shape) == 1
  ):
    return rng.uniform(0.4, 1.0, shape).astype(np.float32)
  if len(shape) == 1:
    return (0.1 * rng.standard_normal(shape)).astype(np.float32)
  fan_in = np.prod(shape[1:])
  return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
