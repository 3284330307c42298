"""Tests of magvit/workdir/steps.py: every mode takes the newest whole step."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

import magvit
from magvit import trained as trained_lib
from magvit.tokenizer import describe
from magvit.workdir import steps
from magvit.workdir import weights as weights_lib
from tests import tiny


def _arrays(step: pathlib.Path) -> pathlib.Path:
  """The largest file: that with the arrays."""
  files = [p for p in (step / "state").rglob("*") if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def _truncate(step):
  file = _arrays(step)
  os.truncate(file, file.stat().st_size // 2)


def _flip(step):
  file = _arrays(step)
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(content)


def _replace_by_file(step):
  shutil.rmtree(step)
  step.write_text("")


def _empty(step):
  shutil.rmtree(step)
  step.mkdir()


def _write(name, text):
  """Also as one of a checkpoint without checksums, as earlier ones are."""

  def damage(step):
    (step / name).write_text(text)
    (step / "digests.json").unlink()

  return damage


def _note(name, size):
  """Names a file in the list of checksums."""

  def damage(step):
    path = step / "digests.json"
    noted = json.loads(path.read_text()) | {name: [size, "0" * 64]}
    path.write_text(json.dumps(noted))

  return damage


def _pipe(step):
  os.mkfifo(step / "state" / "pipe")
  _note("state/pipe", 0)(step)


def _device(step):
  (step / "state" / "zeros").symlink_to("/dev/zero")
  _note("state/zeros", 0)(step)


def _link_folder(step):
  """Leads to pipes that no list of the checkpoint's own files shows."""
  (step.parent / "pipes").mkdir()
  os.mkfifo(step.parent / "pipes" / "pipe")
  (step / "state" / "linked").symlink_to(step.parent / "pipes")
  _note("state/linked/pipe", 0)(step)


_DAMAGE = {
  "truncated arrays": _truncate,
  "a flipped bit": _flip,
  "no arrays": lambda step: os.remove(_arrays(step)),
  "no index": lambda step: os.remove(step / "state" / "manifest.ocdbt"),
  "no state": lambda step: shutil.rmtree(step / "state"),
  "no list": lambda step: os.remove(step / "state" / "_METADATA"),
  "no metadata": lambda step: os.remove(step / "_CHECKPOINT_METADATA"),
  "torn list": _write("state/_METADATA", '{"tree_meta'),
  "nested list": _write("state/_METADATA", "[" * 10**5),
  "nested notes": _write("state/array_metadatas/process_0", "[" * 10**5),
  "another list": _write("state/_METADATA", '{"tree_metadata": {"a": 7}}'),
  "wrong metadata": _write("_CHECKPOINT_METADATA", "[1]"),
  "wrong fields": _write("_CHECKPOINT_METADATA", '{"item_handlers": 7}'),
  "empty": _empty,
  "a file": _replace_by_file,
}


# What a stranger may put there: files that end never, and numbers and names
# that no file has.
_ODD = {
  "a pipe": _pipe,
  "a device": _device,
  "a linked folder": _link_folder,
  "endless size": _note("state/_METADATA", float("inf")),
  "no name": _note("state/\0", 0),
  "no text": _note("state/\ud800", 0),
}


@pytest.fixture
def workdir(tiny_tokenizer_workdir, tmp_path):
  """A workdir with the checkpoints 1 and 99999999."""
  path = tmp_path / "run"
  shutil.copytree(tiny_tokenizer_workdir, path)
  steps_ = path / "checkpoints"
  shutil.copytree(steps_ / "1", steps_ / "99999999")
  (steps_ / "100000000.orbax-checkpoint-tmp").mkdir()  # a save that was killed
  (steps_ / "100000001").with_name("0100000001").mkdir()
  return path


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
  workdir, damage, caplog
):
  assert weights_lib.latest_step(str(workdir)) == 99999999
  broken = workdir / "checkpoints" / "99999999"
  _DAMAGE[damage](broken)
  trained = trained_lib.open_trained(str(workdir))
  assert trained.step == 1
  assert weights_lib.latest_step(str(workdir)) == 1
  warning = "WARNING: the checkpoint of step 99999999 cannot be read"
  assert warning in caplog.text and "that of step 1 in" in caplog.text
  assert broken.exists()  # only training moves it
  assert magvit.load_tokenizer(str(workdir)).step == 1


def test_a_tokenizer_of_the_checkpoint_before_encodes(workdir):
  _truncate(workdir / "checkpoints" / "99999999")
  tokenizer = magvit.load_tokenizer(str(workdir))
  shape = (1, *describe.clip_shape(tiny.tokenizer()), 3)
  assert tokenizer.encode(np.zeros(shape, np.uint8)).shape[0] == 1


@pytest.mark.parametrize("odd", _ODD)
def test_no_file_of_a_stranger_is_waited_for(workdir, odd):
  _ODD[odd](workdir / "checkpoints" / "99999999")
  assert weights_lib.latest_step(str(workdir)) == 1
  assert steps.incomplete(str(workdir)) == [99999999]


@pytest.mark.parametrize("damage", ["truncated arrays", "empty", "torn list"])
def test_without_a_whole_checkpoint_one_line_names_all(workdir, damage):
  for step in ("1", "99999999"):
    _DAMAGE[damage](workdir / "checkpoints" / step)
  match = (
    r"no checkpoint in .*run/checkpoints can be read: step 99999999: .*1: "
  )
  with pytest.raises(ValueError, match=match) as raised:
    trained_lib.open_trained(str(workdir))
  assert "\n" not in str(raised.value)
  assert weights_lib.is_resumed(str(workdir))  # training does not start anew


def test_a_copy_that_is_put_back_counts_again(workdir):
  broken = workdir / "checkpoints" / "99999999"
  _truncate(broken)
  assert trained_lib.open_trained(str(workdir)).step == 1
  assert weights_lib.latest_step(str(workdir)) == 1
  shutil.rmtree(broken)
  shutil.copytree(workdir / "checkpoints" / "1", broken)
  assert weights_lib.latest_step(str(workdir)) == 99999999
  assert trained_lib.open_trained(str(workdir)).step == 99999999


def test_a_checkpoint_that_lacks_an_array_is_no_success(workdir):
  step = workdir / "checkpoints" / "1"
  steps.check_written(str(step))
  os.remove(step / "digests.json")
  for part in (step / "state" / "d").iterdir():
    part.unlink()
  with pytest.raises(ValueError, match="state"):
    steps.check_written(str(step))
