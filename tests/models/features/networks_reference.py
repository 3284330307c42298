"""Drawn weights for the feature networks, and the outputs of other code.

  python tests/models/features/networks_reference.py

writes feature_networks.npz beside this file: features of the same weights and
pixels by torch-fidelity's Inception, by I3D in TensorFlow's operations, by C3D
in torch's, all in float64, and TensorFlow 1's resize. It needs torch,
torch-fidelity 0.4.0 and TensorFlow; the tests that read the file do not.

Every tensor is a function of its published name, so that both sides build the
same network: kernels are He-scaled, because activations fade under torch's own
initialisation, and the statistics of batch norms are not trivial.
"""

import pathlib
import tempfile
import zlib

import numpy as np

_FILE = pathlib.Path(__file__).parent / "feature_networks.npz"
# Step from one recorded feature to the next.
KEPT = {"pool3": 16, "spatial": 16, "logits": 8, "logits_with_bias": 64}
RESIZES = {  # (height, width) before and after
  "larger": ((5, 7), (9, 16)),
  "smaller": ((9, 16), (5, 7)),
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """A tensor that depends on its name (and shape) alone, float32.

  Kernels are in torch's layout, (outputs, inputs, ...).
  """
  # RandomState, whose stream numpy has frozen; a Generator's may change.
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  x = rng.random_sample(shape).astype(np.float32)
  if name == "x_offset":
    return np.float32(-90.0) - np.float32(30.0) * x
  if len(shape) > 1:
    bound = np.sqrt(6.0 / np.prod(shape[1:]))
    if name.startswith("fc8"):  # keeps one probability from taking all
      bound /= 100.0
    return np.float32(bound) * (2.0 * x - 1.0)
  if name.endswith("running_var"):
    return np.float32(1.0) + x
  if name.endswith("weight"):  # the scale of a batch norm
    return np.float32(1.0) + np.float32(0.6) * x
  return np.float32(0.2) * (2.0 * x - 1.0)


def pixels(shape: tuple[int, ...], seed: int) -> np.ndarray:
  """uint8 noise of 4 x 4 blocks: neighbours are alike, as in pictures."""
  *rest, height, width, channels = shape
  coarse = (*rest, -(-height // 4), -(-width // 4), channels)
  noise = np.random.RandomState(seed).randint(0, 256, coarse)
  return (
    noise.repeat(4, -3).repeat(4, -2)[..., :height, :width, :].astype(np.uint8)
  )


def images() -> np.ndarray:
  """Two images (40, 52, 3), one of them dark."""
  x = pixels((2, 40, 52, 3), seed=0)
  x[1] //= 4
  return x


def clip_i3d() -> np.ndarray:
  """Clip (1, 18, 40, 52, 3): I3D pads it unevenly and ends in two steps."""
  return pixels((1, 18, 40, 52, 3), seed=1)


def clip_c3d() -> np.ndarray:
  return pixels((1, 16, 40, 52, 3), seed=2)


def grid(name: str) -> np.ndarray:
  """Image to resize, float32 (height, width, 2) with two channels."""
  before, _ = RESIZES[name]
  return np.random.RandomState(3).random_sample((*before, 2)).astype(np.float32)


def tensorflow_tensors() -> dict[str, np.ndarray]:
  """Variables of the recorded checkpoint; the graph has the first two."""
  names = ["scope/kernel", "ones", *(f"variable_{i}" for i in range(38))]
  tensors = {x: draw(x, (2, 1 + i % 3)) for i, x in enumerate(names)}
  return {**tensors, "ones": np.ones((2, 2), np.float32)}


def load() -> dict[str, np.ndarray]:
  with np.load(_FILE) as f:
    return dict(f)


def main():
  recorded = {}
  for name, x in _inception(images()).items():
    recorded[f"inception_{name}"] = x[:, :: KEPT[name]]
  recorded["i3d_logits"] = _i3d(clip_i3d())
  recorded["c3d_probabilities"] = _c3d(clip_c3d())
  for name, (_, (height, width)) in RESIZES.items():
    recorded[f"resize_{name}"] = _tf1_resize(grid(name), height, width)
  for name, x in recorded.items():
    recorded[name] = np.asarray(x, np.float32)
    print(name, recorded[name].shape, f"deviation {x.std():.3g}")
  recorded |= _tensorflow_files()
  np.savez_compressed(_FILE, **recorded)


def inception_peer(dtype: str):
  """torch-fidelity's extractor, its weights drawn, giving our three outputs."""
  import torch
  from torch_fidelity import feature_extractor_inceptionv3 as peer

  class Drawn(peer.FeatureExtractorInceptionV3):
    def load_state_dict(self, _):
      shapes = {k: tuple(v.shape) for k, v in self.state_dict().items()}
      tensors = {
        k: torch.from_numpy(draw(k, shape))
        for k, shape in shapes.items()
        if not k.endswith("num_batches_tracked")
      }
      return super().load_state_dict(tensors)

  peer.load_state_dict_from_url = lambda *_, **__: None  # no download
  extractor = Drawn("inception", ["2048", "logits_unbiased", "logits"])
  # The peer's option feature_extractor_internal_dtype has no effect.
  extractor.feature_extractor_internal_dtype = getattr(torch, dtype)
  return extractor.to(extractor.feature_extractor_internal_dtype)


def _inception(images_BHWC):
  import torch

  extractor = inception_peer("float64")
  spatial = []
  extractor.Mixed_6d.branch1x1.register_forward_hook(
    lambda module, inputs, output: spatial.append(output)
  )
  x = torch.from_numpy(np.moveaxis(images_BHWC, -1, 1).copy())
  pool3, logits, logits_with_bias = extractor(x)
  spatial_BHWC = spatial[0][:, :7].permute(0, 2, 3, 1)
  return {
    "pool3": pool3.numpy(),
    "spatial": spatial_BHWC.reshape(len(x), -1).numpy(),
    "logits": logits.numpy(),
    "logits_with_bias": logits_with_bias.numpy(),
  }


def _tensorflow_files():
  """Bytes of a frozen graph and of a checkpoint, as TensorFlow writes them."""
  import tensorflow as tf

  v1 = tf.compat.v1
  with tf.Graph().as_default() as graph:
    for name in ("scope/kernel", "ones"):
      v1.constant(tensorflow_tensors()[name], name=name)
    v1.constant(128.0, name="scalar")
    v1.constant([1, 2], name="integers")
  files = {"file_graph": graph.as_graph_def().SerializeToString()}
  with (
    tf.Graph().as_default() as graph,
    tempfile.TemporaryDirectory() as folder,
  ):
    variables = [
      v1.get_variable(k, initializer=v) for k, v in tensorflow_tensors().items()
    ]
    with v1.Session() as session:
      session.run(v1.global_variables_initializer())
      saver = v1.train.Saver(variables)
      saver.save(session, f"{folder}/variables", write_meta_graph=False)
    for kind in ("index", "data-00000-of-00001"):
      path = pathlib.Path(folder, f"variables.{kind}")
      files[f"file_{kind.split('-')[0]}"] = path.read_bytes()
  return {k: np.frombuffer(x, np.uint8) for k, x in files.items()}


def _tf1_resize(x_HWC, height, width):
  import tensorflow as tf

  resize = tf.compat.v1.image.resize_bilinear
  return resize(x_HWC[None], (height, width)).numpy()[0]


def _i3d(video_BTHWC):
  """Runs the graph of deepmind/i3d-kinetics-400/1, in float64."""
  import tensorflow as tf

  def unit(x, name, width, size=1, stride=1):
    shape = (width, x.shape[-1], size, size, size)
    kernel = draw(f"{name}.conv3d.weight", shape).transpose(2, 3, 4, 1, 0)
    strides = (1, stride, stride, stride, 1)
    x = tf.nn.conv3d(x, kernel.astype(np.float64), strides, "SAME")
    beta, mean, variance = (
      draw(f"{name}.bn.{leaf}", (width,))
      for leaf in ("bias", "running_mean", "running_var")
    )
    x = tf.nn.batch_normalization(x, mean, variance, beta, None, 1e-3)
    return tf.nn.relu(x)

  def pool(x, window, strides):
    # TensorFlow cannot pool float64 in three dimensions.
    x = tf.cast(x, tf.float32)
    x = tf.nn.max_pool3d(x, window, (1, *strides, 1), "SAME")
    return tf.cast(x, tf.float64)

  def block(x, name, b0, b1a, b1b, b2a, b2b, b3b):
    b1 = unit(unit(x, f"{name}.b1a", b1a), f"{name}.b1b", b1b, 3)
    b2 = unit(unit(x, f"{name}.b2a", b2a), f"{name}.b2b", b2b, 3)
    b3 = unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b", b3b)
    return tf.concat([unit(x, f"{name}.b0", b0), b1, b2, b3], -1)

  frames = np.stack([_tf1_resize(x, 224, 224) for x in video_BTHWC[0]])
  x = 2.0 * frames[None].astype(np.float64) / 255.0 - 1.0
  x = unit(x, "Conv3d_1a_7x7", 64, 7, 2)
  x = pool(x, (1, 3, 3), (1, 2, 2))
  x = unit(x, "Conv3d_2b_1x1", 64)
  x = unit(x, "Conv3d_2c_3x3", 192, 3)
  x = pool(x, (1, 3, 3), (1, 2, 2))
  x = block(x, "Mixed_3b", 64, 96, 128, 16, 32, 32)
  x = block(x, "Mixed_3c", 128, 128, 192, 32, 96, 64)
  x = pool(x, (3, 3, 3), (2, 2, 2))
  x = block(x, "Mixed_4b", 192, 96, 208, 16, 48, 64)
  x = block(x, "Mixed_4c", 160, 112, 224, 24, 64, 64)
  x = block(x, "Mixed_4d", 128, 128, 256, 24, 64, 64)
  x = block(x, "Mixed_4e", 112, 144, 288, 32, 64, 64)
  x = block(x, "Mixed_4f", 256, 160, 320, 32, 128, 128)
  x = pool(x, (2, 2, 2), (2, 2, 2))
  x = block(x, "Mixed_5b", 256, 160, 320, 32, 128, 128)
  x = block(x, "Mixed_5c", 384, 192, 384, 48, 128, 128)
  x = tf.nn.avg_pool3d(
    tf.cast(x, tf.float32), (2, 7, 7), (1, 1, 1, 1, 1), "VALID"
  )
  weight = draw("logits.conv3d.weight", (400, 1024, 1, 1, 1))
  x = x.numpy()[:, :, 0, 0].astype(np.float64) @ weight[..., 0, 0, 0].T
  return (x + draw("logits.conv3d.bias", (400,))).mean(1)


def _c3d(video_BTHWC):
  """Runs pfnet-research/tgan2's network, in float64, channels first."""
  import torch
  from torch.nn import functional

  tensor = lambda *args: torch.from_numpy(draw(*args)).double()

  def conv(x, name, width):
    weight = tensor(f"{name}.weight", (width, x.shape[1], 3, 3, 3))
    bias = tensor(f"{name}.bias", (width,))
    return functional.conv3d(x, weight, bias, padding=1).relu()

  def linear(x, name, width):
    weight = tensor(f"{name}.weight", (width, x.shape[1]))
    return functional.linear(x, weight, tensor(f"{name}.bias", (width,)))

  pool = functional.max_pool3d
  frames = torch.from_numpy(np.moveaxis(video_BTHWC[0], -1, 1)[:, ::-1].copy())
  frames = functional.interpolate(
    frames.double(), (112, 112), mode="bilinear", align_corners=True
  )
  x = (frames.movedim(1, 0) + tensor("x_offset", (3, 16, 112, 112)))[None]
  x = pool(conv(x, "conv1a", 64), (1, 2, 2))
  x = pool(conv(x, "conv2a", 128), 2)
  x = pool(conv(conv(x, "conv3a", 256), "conv3b", 256), 2)
  x = pool(conv(conv(x, "conv4a", 512), "conv4b", 512), 2)
  x = conv(conv(x, "conv5a", 512), "conv5b", 512)
  x = pool(functional.pad(x, (0, 1, 0, 1)), 2).flatten(1)
  x = linear(linear(x, "fc6", 4096).relu(), "fc7", 4096).relu()
  return linear(x, "fc8", 101).softmax(-1).numpy()


if __name__ == "__main__":
  main()
