"""Tests of magvit/workdir/stablehlo.py: programs equal the Python path."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import magvit
from magvit import trained as trained_lib
from magvit.generators import tasks
from magvit.modes import export as export_mode
from tests import tiny
from tests import untrained


@pytest.fixture(scope="module")
def folder(tiny_generator_workdir, tmp_path_factory):
  path = str(tmp_path_factory.mktemp("export") / "generator")
  export_mode.export(tiny_generator_workdir, path, stablehlo=True)
  return path


def _video(batch):
  return np.random.default_rng(0).random((batch, 5, 16, 16, 3), np.float32)


@pytest.mark.slow
def test_encode_and_decode_are_those_of_python(folder):
  tokenizer = magvit.load_tokenizer(folder)
  encode, decode = (
    magvit.load_program(f"{folder}/tokenizer", name)
    for name in ("encode", "decode")
  )
  for batch in (1, 3):
    ids = tokenizer.encode(_video(batch))
    np.testing.assert_array_equal(encode(video=_video(batch))["ids"], ids)
    decoded = decode(ids=ids)["video"]
    np.testing.assert_allclose(decoded, tokenizer.decode(ids), atol=1e-6)


def test_a_program_says_what_it_is(folder, caplog):
  path = pathlib.Path(folder, "tokenizer")
  program = magvit.load_program(path, "encode")
  assert repr(program).splitlines() == [
    "<Program 'encode' for cpu, cuda, tpu",
    "  takes video float32 (batch, 5, 16, 16, 3)",
    "  gives ids int32 (batch, 3, 8, 8)",
    f"  {program.parameters:,} parameters",
    "  step 1",
    f"  {path}>",
  ]
  assert program.name == "encode" and program.path == str(path)
  assert program.platforms == ("cpu", "cuda", "tpu") and program.step == 1
  assert program.parameters == magvit.load_tokenizer(path).parameters
  sample = magvit.load_program(folder, "sample")
  parts = magvit.load_generator(folder).parameters + program.parameters
  assert sample.parameters == parts
  assert not caplog.records


@pytest.mark.rows  # tests/magvit/generators/latents_test.py has the smallest
@pytest.mark.slow
@pytest.mark.parametrize(
  "make",
  [tiny.masked_diffusion, tiny.next_frame_flow, tiny.diffusion],
  ids=lambda make: make.__name__,
)
def test_samples_of_latents_are_those_of_python(
  tiny_tokenizer_workdir, tmp_path, make
):
  workdir, path = str(tmp_path / "generator"), str(tmp_path / "export")
  untrained.write(workdir, make(tiny_tokenizer_workdir))
  export_mode.export(workdir, path, stablehlo=True)
  test_samples_are_those_of_python(path)


def test_samples_are_those_of_python(folder):
  generator = magvit.load_generator(folder)
  program = magvit.load_program(folder, "sample")
  task = "frame_prediction"
  for batch in (1, 2):
    key = jax.random.key(7)
    sample = generator.sample(key, batch, task=task, condition=_video(batch))
    output = program(
      key=jax.random.key_data(key),
      task=np.int32(tasks.task_names(generator.config).index(task)),
      label=np.full(batch, 10, np.int32),
      video=_video(batch),
    )
    np.testing.assert_allclose(output["video"], sample, atol=1e-6)


def test_the_manifest_says_what_goes_in_and_out(folder):
  manifest = json.loads(pathlib.Path(folder, "programs.json").read_text())
  sample = manifest["programs"]["sample"]
  assert sample["platforms"] == ["cpu", "cuda", "tpu"]
  assert sample["outputs"]["ids"]["shape"] == ["batch", 3, 8, 8]
  assert sample["weights"]["tokenizer"] == "tokenizer/model.safetensors"
  # Weights are arguments: all of them would take more than 60 kB as constants.
  assert pathlib.Path(folder, "sample.stablehlo").stat().st_size < 400_000


@pytest.mark.parametrize(
  "inputs, message",
  [
    ({}, r"program encode takes \['video'\], not \[\]"),
    (dict(video=_video(1)[0]), "must be float32 .'batch', 5, 16, 16, 3."),
    (dict(video=_video(1).astype(np.float16)), "type float16 must be float32"),
    (dict(video=[[0.0]]), "video is a list: give an array float32"),
    (dict(video=_video(1) * np.nan), "video has values that are not finite"),
    (dict(video=_video(1) + 1), r"video has values in .*pixels in \[0, 1\]"),
    (dict(video=_video(0)), r"inputs of \[0\] clips: .* at least 1"),
  ],
)
def test_other_inputs_are_refused(folder, inputs, message):
  program = magvit.load_program(f"{folder}/tokenizer", "encode")
  with pytest.raises(ValueError, match=message):
    program(**inputs)


def test_ids_out_of_the_vocabulary_are_refused_by_programs(folder):
  program = magvit.load_program(f"{folder}/tokenizer", "decode")
  with pytest.raises(ValueError, match=r"ids has values in .* in 0\.\.63"):
    program(ids=np.full((1, 3, 8, 8), 64, np.int32))


def test_a_changed_program_is_refused(folder, tmp_path):
  copy = shutil.copytree(f"{folder}/tokenizer", tmp_path / "copy")
  path = copy / "encode.stablehlo"
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(
    ValueError, match="encode.stablehlo .* sha256 .* programs.json"
  ):
    magvit.load_program(str(copy), "encode")
  with pytest.raises(ValueError, match="has no program 'sample'"):
    magvit.load_program(str(copy), "sample")


def test_a_model_with_kernels_is_exported_without_them(
  tiny_generator_workdir, tmp_path
):
  """A program for several platforms cannot hold a kernel of one of them."""
  workdir = tmp_path / "generator"
  shutil.copytree(tiny_generator_workdir, workdir)
  config = json.loads((workdir / "config.json").read_text())
  config["transformer"]["attention"] = "kernel"
  (workdir / "config.json").write_text(json.dumps(config))
  definition = export_mode.definitions(trained_lib.open_trained(str(workdir)))
  sample = definition["sample"].function
  program = jax.make_jaxpr(sample)(
    definition["sample"].weights,
    {
      name: jax.ShapeDtypeStruct(
        tuple(8 if n == "batch" else n for n in argument.shape), argument.dtype
      )
      for name, argument in definition["sample"].inputs.items()
    },
  )
  assert "pallas_call" not in str(program)
