"""Tests of runs in object stores: the same as on a disk, bit for bit."""

import json
import uuid

import ml_collections
import pytest

from magvit.modes import export
from magvit.training import loop
from magvit.workdir import exports
from magvit.workdir import steps
from storage import stores
from tests import tiny


def _config() -> ml_collections.ConfigDict:
  config = tiny.tokenizer()
  config.num_steps = 4
  config.dataset.eval_examples = 2
  return config


def _metrics(workdir: str) -> list[dict]:
  """Lines of metrics.jsonl, without what is measured by a clock."""
  text = stores.read(f"{workdir}/metrics.jsonl").decode()
  lines = [json.loads(line) for line in text.splitlines()]
  for line in lines:
    for name in ("steps_per_second", "data_wait"):
      line.pop(name, None)
  return lines


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
  assert _metrics(url) == _metrics(disk)
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
