"""Tests of magvit/training/starting_point.py: first weights."""

import logging
import os
import re
import types

import jax
import ml_collections
import numpy as np
import pytest

from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.modes import export as export_mode
from magvit.tokenizer import describe
from magvit.tokenizer import gan
from magvit.training import starting_point
from tests import tiny


@pytest.fixture(scope="module")
def folder(tiny_generator_workdir, tmp_path_factory):
  path = str(tmp_path_factory.mktemp("export") / "generator")
  export_mode.export(tiny_generator_workdir, path)
  return path


def _first(config, tmp_path):
  mesh = mesh_lib.local_mesh()
  starting_point.check(config, str(tmp_path))
  algorithm = trained_lib.build(
    trained_lib.resolve(config, str(tmp_path), training=True), mesh
  )
  state = tiny.drawn_state(algorithm)
  return state, starting_point.first_state(config, algorithm, mesh, state)


def test_weights_of_workdirs_and_exports_are_the_first(
  folder, tiny_generator_workdir, tmp_path
):
  _, wanted = describe.restore_tokenizer(
    os.path.join(folder, "tokenizer"), mesh_lib.local_mesh()
  )
  for source in (folder, tiny_generator_workdir):
    config = tiny.tokenizer()
    config.init_from = source
    before, state = _first(config, tmp_path)
    for params in (state.params["tokenizer"], state.ema["tokenizer"]):
      jax.tree.map(np.testing.assert_array_equal, params, wanted)
    jax.tree.map(
      np.testing.assert_array_equal,
      state.params["discriminator"],
      before.params["discriminator"],
    )


def test_a_generator_starts_from_an_export(
  folder, tiny_generator_workdir, tmp_path
):
  trees = []
  for source in (folder, tiny_generator_workdir):
    config = tiny.masked(os.path.join(folder, "tokenizer"))
    config.init_from = source
    trees.append(_first(config, tmp_path)[1].params)
  jax.tree.map(np.testing.assert_array_equal, *trees)


def test_a_resumed_run_does_not_need_the_source(tiny_tokenizer_workdir):
  config = tiny.tokenizer()
  config.init_from = "gone"
  starting_point.check(config, tiny_tokenizer_workdir)
  with pytest.raises(ValueError, match="workdir=gone .*directory"):
    starting_point.check(config, "new")


def test_a_trained_tokenizer_needs_neither_its_source_nor_a_loss(
  tiny_tokenizer_workdir, tmp_path
):
  """Measuring needs neither, and resuming does not need the source."""
  config = tiny.tokenizer()
  config.inflate_from = str(tmp_path / "gone")
  resolve = lambda workdir: trained_lib.resolve(config, workdir, training=True)
  resolved = resolve(tiny_tokenizer_workdir)
  assert resolved.inflate_from == starting_point.SCRATCH
  assert resolve(str(tmp_path)).inflate_from != starting_point.SCRATCH
  config.loss.perceptual_network = "resnet50"  # without its weights
  trained = trained_lib.open_trained(tiny_tokenizer_workdir, config)
  assert trained.step == 1 and set(trained.params) == {"tokenizer"}
  assert "reconstruct" in trained.algorithm.predict


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(inflate_from="x"), "init_from=.* inflate_from=x .*=none"),
    (
      {"tokenizer.num_res_blocks": 2},
      r"init_from=.* lacks .*'decoder\.levels\.0\.1",
    ),
    (
      {"tokenizer.base_channels": 8},
      r"init_from=.* shape \(.*\), expected \(",
    ),
  ],
)
def test_what_does_not_fit_is_refused(folder, tmp_path, change, message):
  config = tiny.tokenizer()
  config.init_from = folder
  config.update_from_flattened_dict(change)
  with pytest.raises(ValueError, match=message):
    _first(config, tmp_path)


def test_arrays_that_this_network_lacks_are_not_dropped(
  tiny_tokenizer_workdir, tmp_path
):
  config = tiny.tokenizer()
  config.init_from = tiny_tokenizer_workdir
  mesh = mesh_lib.local_mesh()
  state = tiny.drawn_state(gan.TokenizerGan.build(config, mesh))
  del state.params["tokenizer"]["encoder"]
  algorithm = types.SimpleNamespace(
    facts=gan.TokenizerGan.facts,
    sharding_rules=(),
    drawn_anew=lambda source: (),
  )
  with pytest.raises(ValueError, match="unknown .*ema/tokenizer/encoder"):
    starting_point.first_state(config, algorithm, mesh, state)


def test_models_of_another_kind_or_other_tokens_are_refused(
  folder, tiny_tokenizer_workdir, tmp_path
):
  config = tiny.autoregressive(os.path.join(folder, "tokenizer"))
  config.init_from = folder
  match = "init_from=.* algorithm='masked'.* algorithm='autoregressive'"
  with pytest.raises(ValueError, match=match):
    starting_point.check(config, str(tmp_path))
  export_mode.export(tiny_tokenizer_workdir, str(tmp_path / "other"))
  config = tiny.masked(str(tmp_path / "other"))
  config.init_from = folder
  starting_point.check(config, str(tmp_path))  # the same tokenizer, elsewhere


def test_other_settings_of_equal_shapes_are_told(folder, tmp_path, caplog):
  config = tiny.tokenizer()
  config.init_from, config.tokenizer.padding = folder, "zero"
  with caplog.at_level(logging.WARNING):
    starting_point.check(config, str(tmp_path))
  assert re.search("tokenizer.padding=edge.* zero", caplog.text)


def test_a_field_that_came_later_is_no_other_setting(caplog):
  config = tiny.masked("")
  old = ml_collections.ConfigDict(config.to_dict())
  del old.transformer.condition_hints
  with caplog.at_level(logging.WARNING):
    starting_point._warn_of_other_settings(config, old)
    assert not caplog.text
    config.transformer.condition_hints = True
    starting_point._warn_of_other_settings(config, old)
  assert "condition_hints=False, and this run has True" in caplog.text
