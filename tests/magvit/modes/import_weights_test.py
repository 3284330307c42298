"""Tests of --mode=import: the peer's outputs, and nothing taken on trust."""

import functools
import json
import os

import jax
import numpy as np
import pytest
import safetensors

from configs import base
from configs import tokenizer_image
from configs import tokenizer_video
import magvit
from magvit import mesh as mesh_lib
from magvit.modes import export as export_mode
from magvit.modes import import_weights as import_mode
from magvit.modes import offline
from magvit.modes import table
from magvit.scoring import held_out
from magvit.tokenizer import describe
from magvit.training import loop
from magvit.workdir import exports
from tests.models.weights import open_magvit2_reference as reference
from tests.models.weights import praxis_reference

_CONFIGS = {
  "image": tokenizer_image.get_config,
  "video": tokenizer_video.get_config,
}


def _import(folder, tensors, source="open_magvit2"):
  path = folder / "weights.npz"
  np.savez(path, **tensors)
  workdir = str(folder / "imported")
  import_mode.import_weights(source, str(path), _CONFIGS, workdir)
  return workdir


@pytest.fixture(
  scope="module",
  params=["video", pytest.param("image", marks=pytest.mark.rows)],
)
def imported(request, tmp_path_factory):
  """(workdir, outputs of the peer) of weights stored as moving averages."""
  tensors, expected = reference.load(request.param)
  average = {"model_ema." + k.replace(".", ""): v for k, v in tensors.items()}
  others = {
    **{k: np.zeros_like(v) for k, v in tensors.items()},  # the raw weights
    "loss.discriminator.main.0.weight": np.zeros(3, np.float32),
    "model_ema.lossdiscriminatormain0weight": np.zeros(3, np.float32),
    "model_ema.decay": np.float32(0.999),
    "model_ema.num_updates": np.int32(-1),
  }
  folder = tmp_path_factory.mktemp(request.param)
  return _import(folder, {**others, **average}), expected


def test_latents_ids_and_pixels_are_those_of_the_peer(imported):
  workdir, expected = imported
  bits = expected["latents"] > 0
  _compare(workdir, expected, (bits * 2 ** np.arange(6)).sum(-1))


def _compare(workdir, expected, expected_ids):
  tokenizer = magvit.load_tokenizer(workdir)
  ids = tokenizer.encode(expected["video"])
  np.testing.assert_array_equal(ids, expected_ids)
  scale = np.abs(expected["latents"]).max()
  mesh = mesh_lib.make_mesh(base.tokenizer().mesh)
  network, params = describe.restore_tokenizer(workdir, mesh)
  latents = jax.jit(functools.partial(network, method="encode_latents"))(
    params, expected["video"]
  )
  # Tolerances are for float32 sums in another order.
  np.testing.assert_allclose(latents, expected["latents"], atol=1e-5 * scale)
  pixels = np.clip(expected["pixels"], 0.0, 1.0)
  np.testing.assert_allclose(tokenizer.decode(ids), pixels, atol=1e-5)


def test_latents_ids_and_pixels_are_those_of_googles_layers(tmp_path):
  tensors, expected = praxis_reference.load()
  workdir = _import(tmp_path, tensors, "praxis")
  _compare(workdir, expected, expected["ids"])


def test_the_path_of_a_tree_is_joined_either_way():
  tensors, _ = praxis_reference.load()
  dotted = {
    k.removeprefix("params/").replace("/", "."): tensors[k] for k in tensors
  }
  convert = lambda tree: import_mode.convert(
    "praxis", tree, tokenizer_video.get_config("praxis"), "a file"
  )[1]
  jax.tree.map(np.testing.assert_array_equal, convert(tensors), convert(dotted))


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda t: t.popitem(), "a file lacks tensor '"),
    (
      lambda t: t.update({"params/encoder/x/w": np.zeros(1, np.float32)}),
      "a file has an unknown tensor 'encoder.x.w'",
    ),
    (
      lambda t: t.update(
        {"params/decoder/conv_last/b": np.zeros(5, np.float32)}
      ),
      "'decoder.conv_last.b' has shape .5,., expected .3,.",
    ),
    (
      lambda t: t.pop("params/encoder/conv_last/w"),
      "a file: no tensor encoder.conv_last.w",
    ),
  ],
)
def test_a_tree_that_is_not_exactly_googles_is_refused(change, message):
  tensors, _ = praxis_reference.load()
  change(tensors)
  config = tokenizer_video.get_config("praxis")
  with pytest.raises(ValueError, match=message):
    import_mode.convert("praxis", tensors, config, "a file")


def test_where_the_weights_are_from_is_kept(imported):
  with open(os.path.join(imported[0], "imported.json")) as f:
    origin = json.load(f)
  assert origin["source"] == "open_magvit2" and origin["weights"] == "ema"
  assert origin["file"] == "weights.npz" and len(origin["sha256"]) == 64


def test_an_imported_model_is_evaluated_but_not_trained_on(imported):
  config = magvit.load_tokenizer(imported[0]).config
  config.dataset.size, config.dataset.eval_examples = 16, 2
  config.dataset.frames = imported[1]["video"].shape[1]
  config.mesh.data = -1
  with pytest.raises(ValueError, match=f"workdir={imported[0]} holds imported"):
    loop.train(config, imported[0])
  held_out.evaluate_all(offline.open_model(imported[0], config))
  assert os.path.exists(os.path.join(imported[0], "report.html"))


def test_raw_weights_are_taken_where_there_is_no_average(tmp_path):
  tensors, expected = reference.load("image")
  tokenizer = magvit.load_tokenizer(_import(tmp_path, tensors))
  bits = expected["latents"] > 0
  np.testing.assert_array_equal(
    tokenizer.encode(expected["video"]), (bits * 2 ** np.arange(6)).sum(-1)
  )


@pytest.mark.parametrize(
  "change, message",
  [
    (
      lambda t: t.pop("decoder.adaptive.1.gamma.bias"),
      "lacks tensor 'decoder.adaptive.1.gamma.bias'",
    ),
    (
      lambda t: t.update({"encoder.new.weight": np.zeros(1, np.float32)}),
      "unknown tensor 'encoder.new.weight'",
    ),
    (
      lambda t: t.update({"encoder.norm_out.bias": np.zeros(5, np.float32)}),
      "'encoder.norm_out.bias' has shape .5,., expected .64,.",
    ),
    (
      lambda t: t.pop("encoder.conv_in.weight"),
      "no tensor encoder.conv_in.weight",
    ),
    (
      lambda t: t.pop("encoder.conv_out.bias"),
      "no tensor encoder.conv_out.bias",
    ),
    (
      lambda t: t.update(
        {"model_ema.encoderconv_inweight": t["encoder.conv_in.weight"]}
      ),
      "lacks tensor 'model_ema.",
    ),
  ],
)
def test_a_checkpoint_of_other_tensors_is_refused(tmp_path, change, message):
  tensors, _ = reference.load("image")
  change(tensors)
  with pytest.raises(ValueError, match=message):
    _import(tmp_path, tensors)
  assert not os.path.exists(tmp_path / "imported")


def test_a_directory_in_use_is_not_overwritten(tmp_path):
  tensors, _ = reference.load("image")
  (tmp_path / "imported").mkdir()
  (tmp_path / "imported" / "notes").write_text("mine")
  with pytest.raises(ValueError, match="workdir=.*imported is not empty"):
    _import(tmp_path, tensors)


def test_an_export_comes_back(tiny_tokenizer_workdir, tmp_path):
  folder, workdir = str(tmp_path / "export"), str(tmp_path / "workdir")
  export_mode.export(tiny_tokenizer_workdir, folder)
  import_mode.import_weights("export", folder, {}, workdir)
  restore = lambda path: describe.restore_tokenizer(
    path, mesh_lib.local_mesh()
  )[1]
  jax.tree.map(
    np.testing.assert_array_equal,
    restore(workdir),
    restore(tiny_tokenizer_workdir),
  )
  with open(os.path.join(workdir, "imported.json")) as f:
    origin = json.load(f)
  with safetensors.safe_open(
    os.path.join(folder, exports.WEIGHTS), framework="numpy"
  ) as f:
    assert f.metadata()["fingerprint"] == origin["fingerprint"]
    assert f.metadata()["ids"].endswith("least significant bit")
  with open(os.path.join(folder, "README.md")) as f:
    assert origin["fingerprint"] in f.read()


def test_an_export_does_not_overwrite_and_reads_exports_only(
  tiny_tokenizer_workdir, tmp_path
):
  (tmp_path / "notes").write_text("mine")
  with pytest.raises(ValueError, match=f"--output={tmp_path} is not empty"):
    export_mode.export(tiny_tokenizer_workdir, str(tmp_path))
  with pytest.raises(ValueError, match="config.json"):
    import_mode.import_weights(
      "export", str(tmp_path), {}, str(tmp_path / "new")
    )


def test_the_flag_takes_each_project_that_is_read_and_no_other():
  assert {*import_mode.LAYOUTS, "export"} == set(table.SOURCES)
