"""Outputs of Google's own tokenizer layers, with weights drawn by name.

  python -m tests.models.weights.praxis_reference

writes praxis.npz beside this file: the layers' tensor names and shapes, a clip,
its latents, ids, and the pixels decoded from those. It needs a checkout of
google/praxis on PYTHONPATH, with what that imports; the tests that read the
file do not.
"""

import json
import pathlib

import numpy as np

from tests.models.weights.open_magvit2_reference import draw

_FILE = pathlib.Path(__file__).parent / "praxis.npz"


def load() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """(flat tree, {"video", "latents", "ids", "pixels"})."""
  with np.load(_FILE) as f:
    arrays = dict(f)
  shapes = json.loads(str(arrays.pop("shapes")))
  return {name: draw(name, tuple(s)) for name, s in shapes.items()}, arrays


def main():
  import jax
  from praxis import base_layer
  from praxis import pax_fiddle
  from praxis.layers.video import vqvae

  model = base_layer.instantiate(
    pax_fiddle.Config(
      vqvae.VQVaeModel,
      name="tokenizer",
      filters=32,  # norms of praxis have 32 groups
      embedding_dim=6,
      num_res_blocks=2,
      channel_multipliers=(1, 2, 2),
      temporal_downsample=(False, True),
    )
  )
  video = np.random.default_rng(0).uniform(size=(1, 5, 16, 16, 3))
  video = video.astype(np.float32)
  shapes = {}

  def redraw(path, leaf):
    name = "/".join(str(k.key) for k in path)
    shapes[name] = leaf.shape
    return draw(name, leaf.shape)

  abstract = jax.eval_shape(model.init, jax.random.PRNGKey(0), video)
  variables = jax.tree_util.tree_map_with_path(
    redraw, {"params": abstract["params"]}
  )
  run = lambda method, x: np.asarray(model.apply(variables, x, method=method))
  ids = run(vqvae.VQVaeModel.encode_to_indices, video)
  np.savez_compressed(
    _FILE,
    shapes=json.dumps(shapes),
    video=video,
    latents=run(vqvae.VQVaeModel.encode_to_latents, video),
    ids=ids,
    pixels=run(vqvae.VQVaeModel.decode_from_indices, ids),
  )


if __name__ == "__main__":
  main()
