"""Outputs of Open-MAGVIT2's own modules, with weights drawn by name.

  python -m tests.models.weights.open_magvit2_reference --peer=SEED-VOKEN_FOLDER

writes open_magvit2_{video,image}.npz beside this file: the peer's tensor names
and shapes, a clip, its latents, and the pixels decoded from their signs. Needs
torch and einops; the tests that read the files do not.
"""

import argparse
import importlib.util
import json
import pathlib
import zlib

import numpy as np

_HERE = pathlib.Path(__file__).parent
_MODULES = {"video": "improved_video_model.py", "image": "improved_model.py"}
_SETTINGS = dict(
  ch=32,  # the peer's norms have 32 groups
  out_ch=3,
  in_channels=3,
  num_res_blocks=1,
  z_channels=6,
  ch_mult=(1, 2, 2),
  resolution=16,
)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """A tensor that depends on its name alone, float32."""
  x = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  if len(shape) > 1:
    x /= np.sqrt(np.prod(shape[1:]))
  else:
    x = 0.1 * x + name.endswith("weight")
  return x.astype(np.float32)


def load(kind: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """(state dict of the peer, {"video", "latents", "pixels"} in our layout)."""
  with np.load(_HERE / f"open_magvit2_{kind}.npz") as f:
    arrays = dict(f)
  shapes = json.loads(str(arrays.pop("shapes")))
  return {name: draw(name, tuple(s)) for name, s in shapes.items()}, arrays


def main():
  import torch

  parser = argparse.ArgumentParser()
  parser.add_argument("--peer", type=pathlib.Path, required=True)
  folder = parser.parse_args().peer
  folder /= "src/Open_MAGVIT2/modules/diffusionmodules"
  for kind, file in _MODULES.items():
    spec = importlib.util.spec_from_file_location("peer", folder / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parts = {
      "encoder": module.Encoder(**_SETTINGS).eval(),
      "decoder": module.Decoder(**_SETTINGS).eval(),
    }
    shapes = {}
    for part, network in parts.items():
      state = network.state_dict()
      shapes |= {f"{part}.{k}": tuple(v.shape) for k, v in state.items()}
      network.load_state_dict(
        {
          k: torch.from_numpy(draw(f"{part}.{k}", v.shape))
          for k, v in state.items()
        }
      )
    frames = 5 if kind == "video" else 1
    video = np.random.default_rng(0).uniform(size=(1, frames, 16, 16, 3))
    video = video.astype(np.float32)
    x = torch.from_numpy(np.moveaxis(2 * video - 1, -1, 1).copy())
    x = x if kind == "video" else x[:, :, 0]
    with torch.no_grad():
      z = parts["encoder"](x)
      y = parts["decoder"](torch.where(z > 0, 1.0, -1.0))
      if kind == "image":
        z, y = z[:, :, None], y[:, :, None]
    ours = lambda t: np.moveaxis(t.numpy(), 1, -1)
    np.savez_compressed(
      _HERE / f"open_magvit2_{kind}.npz",
      shapes=json.dumps(shapes),
      video=video,
      latents=ours(z),
      pixels=0.5 * (ours(y) + 1.0),
    )


if __name__ == "__main__":
  main()
