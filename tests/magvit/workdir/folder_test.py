"""Tests of magvit/workdir/folder.py: whose workdir it is, and what is in it."""

import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit.tokenizer import gan
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from tests import tiny


def _mesh():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh)


def test_a_new_or_an_own_workdir_is_accepted(tmp_path):
  config = tiny.tokenizer()
  workdir = str(tmp_path / "new" / "run")
  workdir_lib.check_workdir(workdir, config)
  workdir_lib.write_config(workdir, config)
  workdir_lib.check_workdir(workdir, config)
  stored = workdir_lib.read_config(workdir)
  assert stored.to_json() == config.to_json()


def test_a_run_of_before_goes_on_with_what_its_config_lacks(tmp_path):
  config = tiny.masked("tokenizer")
  old = ml_collections.ConfigDict(config.to_dict())
  del old.transformer.condition_hints
  del old.sampling.carry_detail
  workdir_lib.write_config(str(tmp_path), old)
  (tmp_path / "checkpoints" / "2").mkdir(parents=True)
  workdir_lib.check_workdir(str(tmp_path), config)
  config.transformer.condition_hints = True
  match = "transformer.condition_hints is False there and True in"
  with pytest.raises(ValueError, match=match):
    workdir_lib.check_workdir(str(tmp_path), config)


def test_how_a_run_is_run_may_change_but_not_what_is_trained(tmp_path):
  config = tiny.tokenizer()
  workdir_lib.write_config(str(tmp_path), config)
  config.log_every, config.mesh.fsdp = 7, 2
  config.dataset.eval_examples = 99
  (tmp_path / "checkpoints" / "2").mkdir(parents=True)
  workdir_lib.check_workdir(str(tmp_path), config)
  config.loss.r1 = 1.0
  config.seed = 3
  with pytest.raises(ValueError, match=r"loss.r1 .*10\.0 .* 1\.0 .*\bseed\)"):
    workdir_lib.check_workdir(str(tmp_path), config)


def test_a_run_of_before_is_read_with_the_fields_that_came_later(tmp_path):
  config = tiny.tokenizer()
  old = tiny.tokenizer()
  del old.dataset.held_out_share, old.optimizer.name
  del old.loss.adversarial_start
  workdir_lib.write_config(str(tmp_path), old)
  (tmp_path / "checkpoints" / "2").mkdir(parents=True)
  stored = workdir_lib.read_config(str(tmp_path))
  for section in ("optimizer", "loss"):
    assert stored[section].to_dict() == config[section].to_dict()
  workdir_lib.check_workdir(str(tmp_path), config)
  config.optimizer.name = "muon"
  with pytest.raises(ValueError, match="optimizer.name is 'adam' there"):
    workdir_lib.check_workdir(str(tmp_path), config)


def test_a_generator_of_before_gets_no_section_of_a_tokenizer(tmp_path):
  old = tiny.masked("tokenizer")
  del old.optimizer.name
  workdir_lib.write_config(str(tmp_path), old)
  stored = workdir_lib.read_config(str(tmp_path))
  assert stored.optimizer.name == "adam" and "loss" not in stored


@pytest.mark.parametrize("name", ["results", "samples"])
def test_links_for_what_comes_at_the_end_are_refused_at_the_start(
  tmp_path, name
):
  workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
  for path in (workdir, elsewhere):
    path.mkdir()
  (workdir / name).symlink_to(elsewhere)
  with pytest.raises(ValueError, match=f"{name} is a symbolic link"):
    workdir_lib.check_workdir(str(workdir), tiny.tokenizer())


def test_a_workdir_without_a_checkpoint_takes_a_new_config(tmp_path, caplog):
  """So it is after a kill before the first save, or a NaN at step 1."""
  old, new, run = tmp_path / "old", tmp_path / "new", tmp_path / "run"
  for path in (old, new):
    workdir_lib.write_config(str(path), tiny.tokenizer())
  config = tiny.masked(str(old))
  workdir_lib.write_config(str(run), config)
  shutil.copytree(old, run / "tokenizer")
  (run / "checkpoints" / "1.orbax-checkpoint-tmp").mkdir(parents=True)
  workdir_lib.check_workdir(str(run), config)
  config.seed = 3
  workdir_lib.check_workdir(str(run), config)
  assert (run / "tokenizer").exists()
  assert "no checkpoint, so that it takes the new config (seed)" in caplog.text
  config.tokenizer_workdir = str(tmp_path / "none")
  with pytest.raises(ValueError, match="none is not a directory"):
    workdir_lib.check_workdir(str(run), config)
  assert (run / "tokenizer").exists()
  config.tokenizer_workdir = str(new)
  workdir_lib.check_workdir(str(run), config)
  assert not (run / "tokenizer").exists()  # it is copied anew


@pytest.mark.parametrize(
  "began, goes_on", [(None, "threefry"), ("hash", "hash")]
)
def test_a_run_goes_on_with_the_random_bits_it_began_with(
  tmp_path, began, goes_on
):
  """A config of before has no such field: it drew by threefry."""
  stored = tiny.masked("tokenizer")
  del stored.transformer.dropout_bits
  if began:
    stored.transformer.dropout_bits = began
  workdir_lib.write_config(str(tmp_path), stored)
  (tmp_path / "checkpoints" / "2").mkdir(parents=True)
  for given in ("hash", "threefry"):
    config = tiny.masked("tokenizer")
    config.transformer.dropout_bits = given
    workdir_lib.check_workdir(str(tmp_path), config)
    resumed = workdir_lib.as_begun(str(tmp_path), config)
    assert resumed.transformer.dropout_bits == goes_on
    assert config.transformer.dropout_bits == given
    workdir_lib.write_config(str(tmp_path), resumed)


def test_a_foreign_directory_is_left_alone(tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work")
  with pytest.raises(ValueError, match=f"^workdir={tmp_path} .*config.json"):
    workdir_lib.check_workdir(str(tmp_path), tiny.tokenizer())
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(ValueError, match="workdir=.*/file/run .*directory"):
    workdir_lib.check_workdir(str(tmp_path / "file" / "run"), tiny.tokenizer())


def test_workdirs_without_a_run_are_errors(tmp_path):
  with pytest.raises(ValueError, match="^workdir=.*/none .*directory"):
    workdir_lib.read_config(str(tmp_path / "none"))
  with pytest.raises(ValueError, match="^workdir=.* config.json.*--mode=train"):
    workdir_lib.read_config(str(tmp_path))
  with pytest.raises(
    ValueError, match="^workdir=.* checkpoints/.*--mode=train"
  ):
    weights_lib.latest_step(str(tmp_path))
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(ValueError, match="^workdir=.* checkpoint_every"):
    weights_lib.latest_step(str(tmp_path))


def test_a_part_of_a_checkpoint_is_what_was_saved(tiny_tokenizer_workdir):
  config = tiny.tokenizer()
  algorithm = gan.TokenizerGan.build(config, _mesh())
  abstract = jax.eval_shape(algorithm.init, jax.random.key(0))
  params = weights_lib.restore_part(
    tiny_tokenizer_workdir,
    {"params": abstract.params, "ema": abstract.ema},
    _mesh(),
  )
  # The run is untrained: the average is still the parameters themselves.
  jax.tree.map(
    np.testing.assert_array_equal,
    params["params"]["tokenizer"],
    params["ema"]["tokenizer"],
  )
  kernel = params["ema"]["tokenizer"]["encoder"]["conv_in"]["kernel"]
  assert np.abs(kernel).max() > 0


@pytest.mark.parametrize(
  "change", [{"absent": (3,)}, {"scale": (5,)}], ids=["absent", "misshapen"]
)
def test_an_array_that_is_absent_or_misshapen_is_named(
  tiny_tokenizer_workdir, change
):
  struct = lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  norm = {name: struct(shape) for name, shape in change.items()}
  part = {"ema": {"tokenizer": {"encoder": {"norm_out": norm}}}}
  with pytest.raises(ValueError, match=next(iter(change))):
    weights_lib.restore_part(tiny_tokenizer_workdir, part, _mesh())
