"""The perceptual networks beside torchvision's and the `lpips` package's.

Optional: it is skipped where torch is missing. To run it,

  pip install torch torchvision lpips
  python -m pytest tests/models/features/torch_parity_test.py -s

which prints the errors. Torch computes in float64, from the same float32
weights; nothing is downloaded. The published heads of LPIPS are in its package.
"""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.features import perceptual
from models.weights import convert
from tests.models.features import perceptual_reference as reference

torch = pytest.importorskip("torch")
# Torchvision and lpips warn about arguments that their own code passes.
pytestmark = pytest.mark.filterwarnings("ignore")

_RTOL = 1e-4  # float32 through 50 layers measured 3e-6
_RECORDED_RTOL = 1e-7  # the literals have 8 digits
# The constants of the lpips package are float32, whatever its other weights.
_FLOAT64_RTOL = 1e-6


def _check(label, got, expected, rtol=_RTOL):
  """Asserts that the largest error is small beside the largest value."""
  got, expected = np.asarray(got), np.asarray(expected)
  assert got.shape == expected.shape
  error = np.abs(got - expected).max() / np.abs(expected).max()
  print(f"{label}: relative error {error:.1e}")
  assert error < rtol


def _bchw(frames_BHWC):
  return torch.from_numpy(frames_BHWC).double().permute(0, 3, 1, 2)


def _state_dict(tensors):
  return {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory):
  """(torchvision's network, our (distance, params)), through a .pth file."""
  models = importlib.import_module("torchvision.models")
  peer = models.resnet50()
  peer.load_state_dict(_state_dict(reference.resnet50()), strict=True)
  folder = tmp_path_factory.mktemp("resnet50")
  torch.save(peer.state_dict(), folder / "source.pth")
  path = str(folder / "resnet50.safetensors")
  convert.convert("resnet50", str(folder / "source.pth"), path)
  ours = perceptual.load("resnet50", path)
  for file in folder.iterdir():
    file.unlink()
  return peer.double().eval(), ours


def _torch_logits(peer, frames_BCHW):
  return peer(
    torch.nn.functional.interpolate(
      frames_BCHW, (224, 224), mode="bilinear", antialias=True
    )
  )


def test_the_recorded_logits_are_torchvisions(resnet50):
  peer, _ = resnet50
  frames = _bchw(np.concatenate(reference.resnet50_frames()))
  with torch.no_grad():
    logits = _torch_logits(peer, frames)
  _check(
    "recorded logits",
    reference.RESNET50_LOGITS,
    logits[:, :6],
    _RECORDED_RTOL,
  )
  distance = (logits[0] - logits[1]).square().mean()
  _check(
    "recorded distance", reference.RESNET50_DISTANCE, distance, _RECORDED_RTOL
  )


@pytest.mark.parametrize("size", [(224, 224), (128, 128), (256, 320)])
def test_resnet50_logits(resnet50, size):
  peer, (_, params) = resnet50
  net, _ = perceptual.define("resnet50")
  frames = reference.frames(2, *size, seed=0)
  frames[1] *= np.float32(0.1)
  with torch.no_grad():
    expected = _torch_logits(peer, _bchw(frames))
  _check(f"ResNet-50 logits at {size}", jax.jit(net)(params, frames), expected)


def test_resnet50_gradient(resnet50):
  """Compares by norm, to 1 %, as closely as torch's float32 and float64 agree.

  An activation near 0 may fall on its other side, which changes the gradient
  behind it.
  """
  peer, (distance, params) = resnet50
  target, output = reference.resnet50_frames()
  output_BCHW = _bchw(output).requires_grad_()
  difference = _torch_logits(peer, output_BCHW) - _torch_logits(
    peer, _bchw(target)
  )
  difference.square().mean().backward()
  expected = output_BCHW.grad.permute(0, 2, 3, 1).numpy()
  gradient = jax.jit(jax.grad(lambda *x: distance(*x).sum(), argnums=2))
  got = np.asarray(gradient(params, target, output))
  error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
  print(f"ResNet-50 gradient: relative error {error:.1e} of the norm")
  assert error < 1e-2


@pytest.fixture(scope="module")
def make_lpips(tmp_path_factory):
  """Makes (the package's network, our (distance, params)) from heads."""
  lpips = importlib.import_module("lpips")

  def make(heads, form):
    peer = lpips.LPIPS(
      net="vgg", pnet_rand=True, pretrained=False, verbose=False
    )
    trunk = reference.vgg16_features()
    tensors = reference.lpips_package({**trunk, **heads})
    constants = {"scaling_layer.shift", "scaling_layer.scale"}
    tensors = {k: v for k, v in tensors.items() if k not in constants}
    result = peer.load_state_dict(_state_dict(tensors), strict=False)
    assert set(result.missing_keys) == constants
    assert not result.unexpected_keys
    folder = tmp_path_factory.mktemp("lpips_vgg")
    path = str(folder / "lpips_vgg.safetensors")
    source, lin = str(folder / "source.pth"), str(folder / "lin.pth")
    if form == "package":
      torch.save(peer.state_dict(), source)
      convert.convert("lpips_vgg", source, path)
    else:
      torch.save(_state_dict(trunk), source)
      torch.save(_state_dict(heads), lin)
      convert.convert("lpips_vgg", source, path, lin)
    ours = perceptual.load("lpips_vgg", path)
    for file in folder.iterdir():
      file.unlink()
    return peer.double().eval(), ours

  return make


def _torch_lpips(peer, target, output_BCHW):
  return peer(_bchw(target), output_BCHW, normalize=True)[:, 0, 0, 0]


@pytest.mark.parametrize("form", ["package", "two files"])
def test_the_recorded_lpips_is_the_packages(make_lpips, form):
  peer, (distance, params) = make_lpips(reference.lpips_heads(), form)
  target, output = reference.lpips_frames()
  with torch.no_grad():
    expected = _torch_lpips(peer, target, _bchw(output))
  recorded = reference.LPIPS_DISTANCES
  _check("recorded LPIPS", recorded, expected, _RECORDED_RTOL)
  got = jax.jit(distance)(params, target, output)
  for pair in range(2):
    _check(f"LPIPS of pair {pair}", got[pair], expected[pair])


def test_lpips_gradient(make_lpips):
  """Computes in float64: float32 may change the sign of an activation."""
  peer, (distance, params) = make_lpips(reference.lpips_heads(), "package")
  target, output = reference.small_frames()
  output_BCHW = _bchw(output).requires_grad_()
  _torch_lpips(peer, target, output_BCHW).sum().backward()
  expected = output_BCHW.grad.permute(0, 2, 3, 1)
  for label, recorded, value in (
    ("norm", reference.LPIPS_GRADIENT_NORM, expected.norm()),
    ("pixel", reference.LPIPS_GRADIENT, expected[0, 8, 8]),
  ):
    _check(f"recorded {label} of the gradient", recorded, value, _RECORDED_RTOL)
  gradient = jax.jit(jax.grad(lambda *x: distance(*x).sum(), argnums=2))
  with jax.enable_x64(True):
    to_float64 = lambda x: jnp.asarray(x, jnp.float64)
    arguments = jax.tree.map(to_float64, (params, target, output))
    got = np.asarray(gradient(*arguments))
  _check("LPIPS gradient", got, expected, _FLOAT64_RTOL)


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (127, 90)])
def test_lpips_with_the_published_heads(make_lpips, size):
  package = pathlib.Path(importlib.import_module("lpips").__file__).parent
  heads = torch.load(
    package / "weights/v0.1/vgg.pth", map_location="cpu", weights_only=True
  )
  heads = {name: x.numpy() for name, x in heads.items()}
  peer, (distance, params) = make_lpips(heads, "two files")
  target = reference.frames(2, *size, seed=0)
  output = reference.frames(2, *size, seed=1)
  with torch.no_grad():
    expected = _torch_lpips(peer, target, _bchw(output))
  _check(
    f"LPIPS at {size}", jax.jit(distance)(params, target, output), expected
  )
