"""Tests of numbers by the data: chosen once, kept, and missed in words."""

import jax
import pytest

from configs import autoregressive
from configs import base
from configs import fields
from configs import masked
from configs import tokenizer_image
from configs import tokenizer_video
from magvit import mesh as mesh_lib
from magvit.modes import compile as compile_mode
from magvit.modes import table
from magvit.training import automatic
from magvit.workdir import folder as workdir_lib
from tests import raw_data
from tests import tiny


def _mesh(config, devices=1):
  return mesh_lib.make_mesh(config.mesh, jax.devices()[:devices])


def _folder(path, count, classes=("",)):
  for name in classes:
    for i in range(count):
      raw_data.image(path / name / f"{i}.png", 0)
  return str(path)


def _numbers(config):
  return (config.num_steps, config.batch_size, config.dataset.eval_examples)


def test_numbers_by_the_size_of_the_set(tmp_path):
  c = tokenizer_image.get_config("folder64")
  c.dataset.path = _folder(tmp_path / "data", 40)
  workdir = str(tmp_path / "run")
  small = automatic.with_numbers(c, workdir, _mesh(c))
  held_out = small.dataset.eval_examples
  assert 1 <= held_out <= 10
  assert _numbers(small) == (180, 16, held_out)  # least_steps
  assert _numbers(c) == (0, 0, 0)
  c.automatic.least_steps = 1
  epochs = c.automatic.epochs * (40 - held_out)
  fitted = automatic.with_numbers(c, workdir, _mesh(c))
  assert fitted.num_steps == -(-epochs // 16)
  c.automatic.batch_size, c.automatic.most_steps = 1000, 7
  c.automatic.eval_examples = 1
  eight = automatic.with_numbers(c, workdir, _mesh(c, 8))
  assert _numbers(eight) == (7, (40 - held_out) // 8 * 8, 1)
  c.num_steps, c.batch_size, c.dataset.eval_examples = 3, 2, 9
  assert _numbers(automatic.with_numbers(c, workdir, _mesh(c))) == (3, 2, 9)


@pytest.mark.parametrize("classes, count", [(("",), 1), (("a", "b", "c"), 3)])
def test_classes_are_those_of_the_folder(tmp_path, classes, count):
  c = masked.get_config("folder64_images")
  c.dataset.path = _folder(tmp_path / "data", 3, classes)
  chosen = automatic.with_numbers(c, str(tmp_path / "run"), _mesh(c))
  assert chosen.transformer.num_classes == count


def test_a_resumed_run_keeps_its_numbers(tmp_path, caplog):
  c = tokenizer_image.get_config("folder64")
  c.automatic.least_steps = 1
  c.dataset.path = _folder(tmp_path / "data", 10)
  workdir = tmp_path / "run"
  began = automatic.with_numbers(c, str(workdir), _mesh(c))
  workdir_lib.write_config(str(workdir), began)
  (workdir / "checkpoints/2").mkdir(parents=True)
  _folder(tmp_path / "data", 60)
  with caplog.at_level("INFO"):
    resumed = automatic.with_numbers(c, str(workdir), _mesh(c))
  assert _numbers(resumed) == _numbers(began)
  assert "have changed since, and would give num_steps=" in caplog.text
  workdir_lib.check_workdir(str(workdir), resumed)
  given = workdir_lib.stored_config(str(workdir), c)
  assert _numbers(given) == _numbers(began)


def test_new_classes_of_a_resumed_run_are_refused(tmp_path):
  c = masked.get_config("folder64_images")
  c.dataset.path = _folder(tmp_path / "data", 3, ("a",))
  workdir = tmp_path / "run"
  began = automatic.with_numbers(c, str(workdir), _mesh(c))
  workdir_lib.write_config(str(workdir), began)
  (workdir / "checkpoints/2").mkdir(parents=True)
  _folder(tmp_path / "data", 3, ("b",))
  with pytest.raises(ValueError, match="has 2 classes, .*began with 1: "):
    automatic.with_numbers(c, str(workdir), _mesh(c))


def test_zero_without_a_rule_is_refused():
  for field in ("num_steps", "batch_size"):
    c = tiny.tokenizer()
    c[field] = 0
    rule = fields.AUTOMATIC[field]
    with pytest.raises(ValueError, match=f"^{field}=0 must be .* {rule} above"):
      fields.check(c)
  c = tiny.tokenizer()
  c.num_steps, c.automatic.epochs = 0, 1
  fields.check(c)
  with pytest.raises(ValueError, match="'digits' have no end: give --config"):
    automatic.with_numbers(c, "none", _mesh(c))


def test_compiling_needs_the_numbers():
  config = masked.get_config("folder64")
  options = table.Compile(topology="v5e:2x2")
  with pytest.raises(ValueError) as refused:
    compile_mode.run(options, config, "none")
  for name in ("num_steps", "batch_size", "transformer.num_classes"):
    assert f"--config.{name}=NUMBER" in str(refused.value)


@pytest.mark.parametrize(
  "module", [tokenizer_image, tokenizer_video, masked, autoregressive]
)
@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_folder_row_lacks_paths_alone(module, size):
  c = module.get_config(f"folder{size}")
  assert c.dataset.size == size
  assert c.automatic.epochs and c.automatic.batch_size
  assert c.automatic.eval_examples
  needed = {"dataset.path", "tokenizer_workdir"}
  lacking = {n for n, v in _leaves(c) if v == base.REQUIRED} & needed
  assert lacking == needed & ({n for n, _ in _leaves(c)})
  assert c.get("inflate_from", "none") == "none"
  assert "loss" not in c or c.loss.perceptual_network == "off"


def _leaves(node, prefix=""):
  for key, value in node.items():
    if hasattr(value, "items"):
      yield from _leaves(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value
