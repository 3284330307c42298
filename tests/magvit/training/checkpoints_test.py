"""Tests of magvit/training/checkpoints.py: what survives accidents."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import optimizer
from magvit import trained as trained_lib
from magvit.training import checkpoints as checkpoints_lib
from magvit.workdir import folder as workdir_lib
from tests import tiny

_COMMIT = "orbax.checkpoint.path.atomicity.AtomicRenameTemporaryPath"


def _state(step, mesh=None):
  """A state of two arrays; fsdp splits the last dimension of the second."""
  w = jnp.arange(2**16, dtype=jnp.float32).reshape(256, 256) + step
  state = algorithm_lib.TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={"net": {"b": jnp.full(3, step, jnp.float32), "w": w}},
    opt_state={},
    ema={},
    extras={},
    frozen={},
  )
  if mesh is not None:
    state = jax.device_put(state, mesh_lib.state_shardings(state, mesh))
  return state


def _data(config):
  return pipeline.train_batches(config.dataset, config.batch_size)


def _save(workdir, steps=(1, 2, 3), mesh=None):
  config = tiny.tokenizer()
  config.checkpoints_to_keep = 3
  workdir.mkdir(exist_ok=True)
  workdir_lib.write_config(str(workdir), config)
  checkpoints = checkpoints_lib.Checkpoints(str(workdir), config)
  data = _data(config)
  for step in range(1, max(steps) + 1):
    next(data)
    if step in steps:
      checkpoints.save(step, _state(step, mesh), data)
  checkpoints.close()
  return config


def _restore(workdir, config, mesh=None):
  checkpoints = checkpoints_lib.Checkpoints(str(workdir), config)
  data = _data(config)
  try:
    step, state = checkpoints.restore_newest(_state(0, mesh), data)
    return step, state, data
  finally:
    checkpoints.close()


@pytest.mark.parametrize(
  "make",
  [
    *(tiny.autoregressive, tiny.masked_diffusion, tiny.diffusion),
    *(
      # The loop's tests resume these.
      pytest.param(make, marks=pytest.mark.rows)
      for make in (
        *(tiny.masked, tiny.next_frame_flow),
        *(tiny.recognition, tiny.masked_pretraining),
      )
    ),
  ],
  ids=lambda make: make.__name__,
)
def test_a_state_of_each_algorithm_comes_back_to_the_bit(
  make, tiny_tokenizer_workdir, tmp_path
):
  config, workdir = make(tiny_tokenizer_workdir), str(tmp_path / "run")
  mesh = mesh_lib.data_mesh(jax.devices()[:1])
  algorithm = trained_lib.find_algorithm(config).build(config, mesh)
  state, data = tiny.drawn_state(algorithm), _data(config)
  workdir_lib.write_config(workdir, config)
  checkpoints = checkpoints_lib.Checkpoints(workdir, config)
  checkpoints.save(7, state, data)
  checkpoints.close()
  blank = jax.tree.map(lambda x: jnp.asarray(np.ones_like(x)), state)
  step, again = checkpoints_lib.Checkpoints(workdir, config).restore_newest(
    blank, _data(config)
  )
  assert step == 7
  for field in ("params", "opt_state", "ema", "extras"):
    a, b = getattr(again, field), getattr(state, field)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("saved") / "run"
  config = _save(workdir)
  for digests in workdir.glob("checkpoints/*/digests.json"):
    digests.unlink()  # versions before wrote none: damage shows in use
  return workdir, config


def _largest(folder: pathlib.Path) -> pathlib.Path:
  files = [p for p in folder.rglob("*") if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def _truncate(path):
  file = _largest(path / "state")
  os.truncate(file, file.stat().st_size // 2)


def _zero(path):
  file = _largest(path / "state")
  file.write_bytes(bytes(file.stat().st_size))


_DAMAGE = {
  "truncated array": _truncate,
  "array of zeros": _zero,
  "array missing": lambda path: os.remove(_largest(path / "state")),
  "index missing": lambda path: os.remove(path / "state" / "manifest.ocdbt"),
  "all missing": lambda path: shutil.rmtree(path / "state"),
  "list of arrays": lambda path: os.truncate(path / "state" / "_METADATA", 99),
  "no metadata": lambda path: os.remove(path / "_CHECKPOINT_METADATA"),
  "metadata": lambda path: (path / "_CHECKPOINT_METADATA").write_text("[1]"),
  "list of another": lambda path: (path / "state" / "_METADATA").write_text(
    '{"tree_metadata": {"a": 7}}'
  ),
  "position": lambda path: (path / "data" / "metadata").write_text('{"ne'),
  "empty": lambda path: (shutil.rmtree(path), path.mkdir()),
  "a file": lambda path: (shutil.rmtree(path), path.write_text("")),
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_taken(
  saved, tmp_path, damage, caplog
):
  workdir, config = tmp_path / "run", saved[1]
  shutil.copytree(saved[0], workdir)
  _DAMAGE[damage](workdir / "checkpoints" / "3")
  step, state, data = _restore(workdir, config)
  assert step == int(state.step) == 2
  for name, array in state.params["net"].items():
    np.testing.assert_array_equal(array, _state(2).params["net"][name])
  expected = _data(config)
  for _ in range(2):
    next(expected)
  np.testing.assert_array_equal(next(data)["video"], next(expected)["video"])
  assert "checkpoint of step 3 cannot be read" in caplog.text
  assert str(workdir / "damaged" / "3") in caplog.text
  assert (workdir / "damaged" / "3").exists()
  assert not (workdir / "checkpoints" / "3").exists()
  # Step 3 is reached and saved again, and may be damaged again.
  shutil.copytree(saved[0] / "checkpoints" / "3", workdir / "checkpoints" / "3")
  _DAMAGE[damage](workdir / "checkpoints" / "3")
  assert _restore(workdir, config)[0] == 2
  assert (workdir / "damaged" / "3-2").exists()


def test_without_a_good_checkpoint_nothing_is_touched(saved, tmp_path):
  workdir, config = tmp_path / "run", saved[1]
  shutil.copytree(saved[0], workdir)
  for step in (1, 2, 3):
    _truncate(workdir / "checkpoints" / str(step))
  with pytest.raises(ValueError, match="run/checkpoints .*step 3: .*net.w"):
    _restore(workdir, config)
  assert len(list((workdir / "checkpoints").iterdir())) == 3
  assert not (workdir / "damaged").exists()


def test_a_new_run_starts_at_0(tmp_path):
  assert _restore(tmp_path / "run", tiny.tokenizer())[0] == 0


def test_a_state_is_restored_into_shapes(saved):
  """A start that goes on draws no first weights."""
  workdir, config = saved
  checkpoints = checkpoints_lib.Checkpoints(str(workdir), config)
  assert checkpoints.newest() == (3, {"next_batch": 3})
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), _state(0)
  )
  step, state = checkpoints.restore_newest(shapes, _data(config))
  checkpoints.close()
  assert step == 3
  jax.tree.map(np.testing.assert_array_equal, state, _state(3))


def test_the_newest_position_is_told_only_where_it_can_be_read(saved, tmp_path):
  workdir, config = tmp_path / "run", saved[1]
  shutil.copytree(saved[0], workdir)
  _DAMAGE["position"](workdir / "checkpoints" / "3")
  assert checkpoints_lib.Checkpoints(str(workdir), config).newest() is None
  empty = checkpoints_lib.Checkpoints(str(tmp_path / "new"), config)
  assert empty.newest() is None


def test_another_mesh_resumes_with_the_same_parameters(tmp_path):
  mesh = tiny.tokenizer().mesh
  mesh.fsdp = 4
  four = mesh_lib.make_mesh(mesh)
  one = mesh_lib.data_mesh(jax.devices()[:1])
  config = _save(tmp_path / "run", mesh=four)
  step, state, _ = _restore(tmp_path / "run", config, one)
  w = state.params["net"]["w"]
  assert step == 3 and w.sharding.device_set == {jax.devices()[0]}
  np.testing.assert_array_equal(w, _state(3).params["net"]["w"])
  again = _restore(tmp_path / "run", config, four)[1].params["net"]["w"]
  assert len(again.sharding.device_set) == 8
  np.testing.assert_array_equal(again, w)


def test_the_state_of_muon_comes_back_to_the_bit(tmp_path):
  config = tiny.tokenizer()
  config.optimizer.name = "muon"
  descent = optimizer.make_optimizer(config.optimizer, config.num_steps)
  params = {"kernel": jnp.ones((3, 2, 4)), "bias": jnp.ones(4)}
  first = _state(0).replace(opt_state={"net": descent.init(params)})
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(rng.uniform(1.0, 9.0, x.shape), x.dtype)
  saved = jax.tree.map(draw, first)
  workdir = str(tmp_path)
  workdir_lib.write_config(workdir, config)
  checkpoints = checkpoints_lib.Checkpoints(workdir, config)
  checkpoints.save(1, saved, _data(config))
  checkpoints.close()
  checkpoints = checkpoints_lib.Checkpoints(workdir, config)
  _, restored = checkpoints.restore_newest(first, _data(config))
  checkpoints.close()
  assert jax.tree.structure(restored) == jax.tree.structure(saved)
  jax.tree.map(np.testing.assert_array_equal, restored, saved)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
  """The state may change as soon as `save` returns: it holds a copy."""
  config = _save(tmp_path / "run", (1,))
  checkpoints = checkpoints_lib.Checkpoints(str(tmp_path / "run"), config)
  state = jax.jit(lambda: _state(2))()
  checkpoints.save(2, state, _data(config))
  step_fn = jax.jit(lambda s: jax.tree.map(jnp.zeros_like, s), donate_argnums=0)
  jax.block_until_ready(step_fn(state))  # the arrays saved are gone now
  checkpoints.close()
  restored = _restore(tmp_path / "run", config)[1]
  for name, array in restored.params["net"].items():
    np.testing.assert_array_equal(array, _state(2).params["net"][name])


def test_a_full_disk_is_a_clear_error_and_earlier_checkpoints_stay(
  tmp_path, monkeypatch
):
  config = _save(tmp_path / "run", (1,))
  checkpoints = checkpoints_lib.Checkpoints(str(tmp_path / "run"), config)

  def fail(*unused):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(f"{_COMMIT}.finalize", fail)
  checkpoints.save(2, _state(2), _data(config))
  with pytest.raises(OSError, match=r"run/checkpoints: .*No space.*step 1\."):
    checkpoints.wait()
  monkeypatch.undo()
  checkpoints.close()
  assert _restore(tmp_path / "run", config)[0] == 1


_FAILING = """
import sys
from orbax.checkpoint._src.path import atomicity

async def fail(*unused):
  raise OSError(28, "No space left on device", "here")

atomicity.AtomicRenameTemporaryPath.create = fail
from magvit.training import endings
from tests.magvit.training import checkpoints_test
from tests import tiny

with endings.errors_end_the_job():
  try:
    checkpoints_test._save(checkpoints_test.pathlib.Path(sys.argv[1]), (1,))
  except OSError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_a_save_that_failed_ends_the_process_at_once(tmp_path):
  """Threads of orbax would keep it for five minutes, waiting for each other."""
  ended = subprocess.run(
    [sys.executable, "-c", _FAILING, str(tmp_path / "run")],
    cwd=pathlib.Path(__file__).parents[3],
    capture_output=True,
    text=True,
    timeout=150,
  )
  assert ended.returncode == 1
  last = ended.stderr.splitlines()[-1]
  assert last.startswith("a checkpoint could not be written to ")
  assert "run/checkpoints" in last and "complete one: none." in last


def test_an_incomplete_checkpoint_is_not_taken_for_saved(tmp_path):
  """As when another process removes its files while they are written."""
  config = _save(tmp_path / "run", (1,))
  checkpoints = checkpoints_lib.Checkpoints(str(tmp_path / "run"), config)
  checkpoints.save(2, _state(2), _data(config))
  checkpoints._opened().wait_until_finished()
  shutil.rmtree(tmp_path / "run" / "checkpoints" / "2" / "state" / "d")
  with pytest.raises(OSError, match="2/state/d/.* is missing.* step 1"):
    checkpoints.wait()
  checkpoints.close()


def test_a_workdir_that_is_gone_is_an_error(tmp_path):
  config = _save(tmp_path / "run", (1,))
  checkpoints = checkpoints_lib.Checkpoints(str(tmp_path / "run"), config)
  (tmp_path / "run").rename(tmp_path / "moved")
  with pytest.raises(OSError, match="step 2: .*run/checkpoints "):
    checkpoints.save(2, _state(2), _data(config))
  assert not (tmp_path / "run").exists()
  checkpoints.close()
  assert _restore(tmp_path / "moved", config)[0] == 1
