"""Tests of runs in object stores: the same as on a disk, bit for bit."""

import urllib.parse
import uuid

import jax.numpy as jnp
import ml_collections
import pytest

from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit.modes import export
from magvit.training import checkpoints as checkpoints_lib
from magvit.training import loop
from magvit.workdir import exports
from magvit.workdir import folder as workdir_lib
from magvit.workdir import steps
from storage import stores
from tests import emulator
from tests import faulty_proxy
from tests import programs
from tests import tiny


def _config() -> ml_collections.ConfigDict:
  config = tiny.tokenizer()
  config.num_steps = 4
  config.dataset.eval_examples = 2
  return config


def _exported(workdir: str, output: str) -> dict[str, bytes]:
  """The bytes of each array of an export; a file has them in any order."""
  export.export(workdir, output)
  assert stores.is_file(f"{output}/README.md")
  return {k: x.tobytes() for k, x in exports.tensors(output).items()}


@pytest.mark.slow
def test_a_run_in_a_store_goes_on_as_on_a_disk(tmp_path, monkeypatch):
  url, disk = f"memory://{uuid.uuid4().hex}/run", str(tmp_path / "run")
  loop.train(_config(), disk)
  # The run ends in the middle of its last save.
  send = stores.send_folder

  def refuse(folder, target, *arguments, **options):
    if target.endswith("checkpoints/4"):
      stores.write(f"{target}/state/left", b"half")
      raise OSError("the store refuses")
    return send(folder, target, *arguments, **options)

  monkeypatch.setattr(stores, "send_folder", refuse)
  with pytest.raises(OSError, match="newest complete one: step 2"):
    loop.train(_config(), url)
  assert steps.names(url) == [2]
  monkeypatch.undo()
  loop.train(_config(), url)
  assert steps.names(url) == [4, 2]
  assert "state/left" not in stores.sizes(f"{url}/checkpoints/4")
  assert programs.metrics(url) == programs.metrics(disk)
  there = _exported(url, f"{url}-export")
  assert there == _exported(disk, str(tmp_path / "export"))
  assert {"report.html", "config.json", "metrics.jsonl"} <= set(
    stores.names(url)
  )
  assert ".lock" not in stores.names(url)
  # A checkpoint that lacks an object is put aside, and the one before is taken.
  stores.remove(f"{url}/checkpoints/4/state/_METADATA")
  assert steps.latest(url) == 2
  loop.train(_config(), url)
  assert steps.names(url) == [4, 2]
  assert stores.is_folder(f"{url}/damaged/4")
  assert _exported(url, f"{url}-again") == there


def _state(step: int) -> algorithm_lib.TrainState:
  return algorithm_lib.TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={"net": {"w": jnp.full(3, step, jnp.float32)}},
    opt_state={},
    ema={},
    extras={},
    frozen={},
  )


@pytest.mark.slow
def test_a_refusal_is_no_damage_and_a_failed_look_is_not_none(monkeypatch):
  """Neither is a checkpoint put aside, nor does an error say there is none."""
  refused: set[str] = set()  # parts of names

  def fault(number, method, path):
    path = urllib.parse.unquote(path)
    return 403 if any(part in path for part in refused) else None

  url, config = f"gs://{emulator.BUCKET}/run", tiny.tokenizer()
  data = pipeline.train_batches(config.dataset, config.batch_size)
  with (
    emulator.running() as env,
    faulty_proxy.running(env["STORAGE_EMULATOR_HOST"], fault) as address,
  ):
    for name, value in env.items():
      is_url = value.startswith("http")
      monkeypatch.setenv(name, address if is_url else value)
    workdir_lib.write_config(url, config)
    first = checkpoints_lib.Checkpoints(url, config)
    first.save(1, _state(1), data)
    first.close()
    for part in ("state/d/", "state/_METADATA", "data/metadata"):
      refused.add(part)
      again = checkpoints_lib.Checkpoints(url, config)
      with pytest.raises(OSError, match="cannot be read now: .*Forbidden"):
        again.restore_newest(_state(0), data)
      refused.clear()
      again.close()
      assert not stores.is_folder(f"{url}/damaged")
    assert again.restore_newest(_state(0), data)[0] == 1
    again.close()

    def fail():
      raise OSError("the save failed")

    monkeypatch.setattr(first, "_opened", fail)
    refused.add("prefix=")
    words = r"the save failed.*not known, .*step 1 was saved\. See"
    with pytest.raises(OSError, match=words):
      first.check()
    refused.clear()
    assert steps.latest(url) == 1
