"""Tests of magvit/training/trackers.py: what trackers get, how they fail."""

import contextlib
import pathlib
import sys
import types

import pytest

from magvit.training import metrics as metrics_lib
from magvit.training import trackers
from tests import markdown
from tests import tiny

_ROOT = pathlib.Path(__file__).parents[3]


def _file(folder, text):
  path = folder / "tracker.py"
  path.write_text(text)
  return f"{path}:start"


def _opened(spec, workdir="run"):
  return trackers.opened(trackers.load(spec), workdir, tiny.tokenizer(), 40)


def test_a_tracker_gets_what_is_written_and_knows_the_run(tmp_path):
  spec = _file(
    tmp_path,
    "import contextlib\nseen = []\n"
    "@contextlib.contextmanager\n"
    "def start(run):\n"
    "  seen.append((run.workdir, run.name, run.config['seed'], run.start))\n"
    "  yield lambda step, metrics: seen.append((step, dict(metrics)))\n"
    "  seen.append('end')\n",
  )
  tracker = trackers.load(spec)
  seen = tracker.__wrapped__.__globals__["seen"]
  with trackers.opened(tracker, "run", tiny.tokenizer(), 40) as tell:
    writer = metrics_lib.Writer(str(tmp_path), 40, tell)
    writer.write(41, {"loss": 2.0})
    writer.close()
  told = [("run", "tiny tokenizer", 0, 40), (41, {"loss": 2.0}), "end"]
  assert seen == told


def test_without_a_tracker_nothing_is_told():
  with trackers.opened(None, "run", tiny.tokenizer(), 0) as tell:
    assert tell(1, {"loss": 1.0}) is None


@pytest.mark.parametrize(
  "text, message",
  [
    ("x = 1", "has no function start: it must define FUNCTION"),
    ("import nothing_like_it", "ModuleNotFoundError: No module named"),
    ("def start(run)\n  pass", "SyntaxError"),
  ],
)
def test_a_file_that_is_no_tracker_is_one_line(tmp_path, text, message):
  with pytest.raises(ValueError, match=message) as error:
    trackers.load(_file(tmp_path, text))
  assert "\n" not in str(error.value)
  assert "--tracker=" in str(error.value)


@pytest.mark.parametrize(
  "spec", ["wandb", "none.py:start", "none.py", ":start"]
)
def test_a_file_that_is_not_there_is_one_line(spec):
  with pytest.raises(ValueError, match="there is no file .*FILE.py:FUNCTION"):
    trackers.load(spec)


@pytest.mark.parametrize(
  "body, message",
  [
    ("raise RuntimeError('no key')", "RuntimeError: no key .*line 2"),
    ("return None", "AttributeError: .*__enter__.*context manager"),
  ],
)
def test_a_tracker_that_cannot_start_ends_the_run(tmp_path, body, message):
  spec = _file(tmp_path, f"def start(run):\n  {body}\n")
  with pytest.raises(ValueError, match=message):
    with _opened(spec):
      pytest.fail("began all the same")


def test_a_tracker_that_fails_later_is_said_once_and_the_run_goes_on(
  tmp_path, caplog
):
  spec = _file(
    tmp_path,
    "import contextlib\n"
    "@contextlib.contextmanager\n"
    "def start(run):\n"
    "  yield lambda step, metrics: metrics['missing']\n"
    "  raise OSError('gone')\n",
  )
  with _opened(spec) as tell:
    tell(1, {"loss": 1.0})
    tell(2, {"loss": 1.0})
  first, last = caplog.messages
  assert "failed at step 1, and the run goes on: KeyError" in first
  assert "failed at its end: OSError: gone" in last


def test_a_tracker_sees_how_the_run_ended_and_changes_nothing(tmp_path, caplog):
  spec = _file(
    tmp_path,
    "import contextlib\nseen = []\n"
    "@contextlib.contextmanager\n"
    "def start(run):\n"
    "  try:\n    yield lambda step, metrics: None\n"
    "  except ArithmeticError as error:\n    seen.append(str(error))\n"
    "    raise\n",
  )
  tracker = trackers.load(spec)
  with pytest.raises(ArithmeticError, match="nan"):
    with trackers.opened(tracker, "run", tiny.tokenizer(), 0):
      raise ArithmeticError("nan")
  assert (
    tracker.__wrapped__.__globals__["seen"] == ["nan"] and not caplog.messages
  )


def test_a_tracker_that_hides_an_error_does_not_hide_it_from_the_run(tmp_path):
  spec = _file(
    tmp_path,
    "import contextlib\ndef start(run):\n  return contextlib.ExitStack()\n",
  )
  with pytest.raises(KeyError), contextlib.ExitStack() as stack:
    stack.enter_context(_opened(spec))
    raise KeyError("lost")


def test_the_example_for_wandb_logs_numbers_by_their_step(
  tmp_path, monkeypatch
):
  """wandb is not installed: a module of its name has what the page uses."""
  page = markdown.parse((_ROOT / "docs/launch.md").read_text())
  (example,) = [text for _, text in page.code if "import wandb" in text]
  calls = []

  class There(contextlib.AbstractContextManager):
    def log(self, numbers, step):
      calls.append((step, numbers))

    def __exit__(self, *error):
      calls.append("finished")

  def init(**settings):
    calls.append(settings)
    return There()

  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
  with _opened(_file(tmp_path, example), "/runs/a/") as tell:
    tell(41, {"loss": 1.5, "flip_rate": [0.1, 0.2], "skips/total": 0})
  settings, logged, end = calls
  assert settings["id"] == "a" and settings["resume"] == "allow"
  assert settings["config"]["num_steps"] == 6
  assert logged == (41, {"loss": 1.5, "skips/total": 0}) and end == "finished"
