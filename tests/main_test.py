"""Tests of the command line: one clear line for each mistake of a user."""

import pathlib
import subprocess
import sys
from unittest import mock

from absl import flags
import pytest

from magvit import command_line
import main
from tests import tiny

_ROOT = pathlib.Path(__file__).parents[1]
_TINY = "--config=tests/tiny.py:tokenizer"


def parse(*arguments):
  argv = ["main.py", *arguments]
  flags.FLAGS.unparse_flags()
  for name in [n for n in flags.FLAGS if n.startswith("config.")]:
    delattr(flags.FLAGS, name)  # overrides of an earlier command line
  with mock.patch.object(sys, "argv", argv):  # config_flags looks there
    return command_line.parse_flags(argv)


def _error(*arguments):
  """The message that the program ends with, run in this process."""
  with pytest.raises(SystemExit) as end:
    main.main(parse(*arguments))
  message = end.value.code  # a string: printed, and exit code 1
  assert isinstance(message, str) and message.startswith("error: ")
  assert "\n" not in message
  return message


@pytest.mark.parametrize(
  "file", ["tokenizer_image", "tokenizer_video", "masked"]
)
def test_unknown_variants_are_one_line(file):
  message = _error(f"--config=configs/{file}.py:digitz", "--workdir=x")
  assert message.startswith("error: unknown variant 'digitz': expected ")
  assert "'digits'" in message


@pytest.mark.parametrize(
  "argument, expected",
  [
    ("--config.num_step=3", "num_step"),
    ("--mode=trian", "--mode=trian"),
    ("--config=configs/nothing.py", "configs/nothing.py"),
    ("--workdri=x", "workdri"),
    ("digits", "unknown arguments ['digits']"),
  ],
)
def test_misspelt_arguments_are_one_line(argument, expected):
  assert expected in _error("--workdir=x", _TINY, argument)


@pytest.mark.slow
def test_the_program_ends_with_its_message_and_code_1(tmp_path):
  result = subprocess.run(
    [sys.executable, "main.py", f"--workdir={tmp_path}", "--mode=evaluate"],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 1
  assert result.stderr.startswith("error: workdir=")
  assert result.stderr.count("\n") == 1


def test_wrong_clip_length(tmp_path):
  workdir = tmp_path / "run"
  message = _error(_TINY, f"--workdir={workdir}", "--config.dataset.frames=16")
  assert "clip length 16" in message and "15 and 17" in message
  assert not workdir.exists() or not list(workdir.iterdir())


def test_missing_perceptual_weights(tmp_path):
  message = _error(
    _TINY,
    f"--workdir={tmp_path / 'run'}",
    "--config.loss.perceptual_network=resnet50",
  )
  assert "loss.perceptual_weights" in message
  assert "loss.perceptual_network=off" in message


@pytest.mark.parametrize("mode", ["evaluate", "sample", "reconstruct"])
def test_empty_workdirs(tmp_path, mode):
  message = _error(f"--workdir={tmp_path}", f"--mode={mode}")
  assert "holds no config.json" in message
  assert not list(tmp_path.iterdir())


def test_foreign_and_unwritable_workdirs(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  assert "not a workdir of this program" in _error(
    _TINY, f"--workdir={tmp_path}"
  )
  assert "cannot write to workdir" in _error(
    _TINY, f"--workdir={tmp_path / 'notes.txt' / 'run'}"
  )
  assert (tmp_path / "notes.txt").read_text() == "mine"
  assert len(list(tmp_path.iterdir())) == 1


def test_workdirs_of_another_experiment(tmp_path, tiny_tokenizer_workdir):
  message = _error(
    _TINY, f"--workdir={tiny_tokenizer_workdir}", "--config.seed=5"
  )
  assert "seed is 0 there and 5 in --config" in message


def test_modes_that_do_not_fit_the_workdir(tiny_tokenizer_workdir):
  message = _error(f"--workdir={tiny_tokenizer_workdir}", "--mode=sample")
  assert "--mode=sample needs" in message and "a generator" in message
  assert str(tiny_tokenizer_workdir) in message


def test_media_need_the_mode_that_reads_them_and_a_path(
  tmp_path, tiny_tokenizer_workdir
):
  workdir = f"--workdir={tiny_tokenizer_workdir}"
  message = _error(_TINY, workdir, "--mode=train", "--input=a.png")
  for mode in ("evaluate", "import", "reconstruct", "sample"):
    assert mode in message.partition("--input needs --mode=")[2]
  assert "not --mode=train" in message
  message = _error(workdir, "--mode=evaluate", "--input=a.png")
  assert "--input needs --protocol" in message
  message = _error(_TINY, workdir, "--mode=sample", "--input=a.png")
  assert "--input needs --task" in message
  missing = f"--input={tmp_path / 'none.png'}"
  message = _error(workdir, "--mode=reconstruct", missing)
  assert f"{missing} is neither a file nor a folder" in message
  message = _error(workdir, "--mode=reconstruct", f"--input={tmp_path}")
  assert f"--input={tmp_path} is a folder with 0 files" in message
  (tmp_path / "a.png").write_bytes(b"no picture")
  message = _error(workdir, "--mode=reconstruct", f"--input={tmp_path}/a.png")
  assert "neither an image" in message


def test_tokens_need_a_folder_and_other_modes_take_none_of_their_flags(
  tmp_path, tiny_tokenizer_workdir
):
  workdir = f"--workdir={tiny_tokenizer_workdir}"
  message = _error(workdir, "--mode=tokenize", "--num=8")
  assert "--mode=tokenize needs --output=FOLDER" in message
  for flag in ("output=x", "split=train", "num=8", "tasks="):
    message = _error(_TINY, workdir, f"--{flag}")
    assert f"--{flag.split('=')[0]} needs --mode=" in message
    assert "tokenize, not --mode=train" in message
  output = f"--output={tmp_path / 'tokens'}"
  assert "say with --num=N" in _error(workdir, "--mode=tokenize", output)
  assert not list(tmp_path.iterdir())
  other = f"--workdir={tmp_path}"
  message = _error(other, "--mode=tokenize", output, "--num=8")
  assert "holds no config.json" in message


def test_importing_needs_to_know_whose_weights(tmp_path):
  workdir = f"--workdir={tmp_path / 'new'}"
  message = _error(workdir, "--mode=import", "--input=a.npz")
  assert "needs --source, one of ['open_magvit2', 'praxis'" in message
  message = _error(workdir, "--mode=import", "--source=export")
  assert "--mode=import needs --input=FOLDER" in message


def test_training_needs_a_config_and_a_generator_its_tokenizer(tmp_path):
  assert "--mode=train needs --config" in _error(f"--workdir={tmp_path}")
  message = _error(
    "--config=tests/tiny.py:masked", f"--workdir={tmp_path / 'run'}"
  )
  assert "--config.tokenizer_workdir=DIR" in message
  message = _error(
    "--config=tests/tiny.py:masked",
    f"--workdir={tmp_path / 'run'}",
    f"--config.tokenizer_workdir={tmp_path / 'none'}",
  )
  assert "is not a directory" in message


def test_compiling_needs_a_config_and_a_topology(tmp_path):
  to = [f"--workdir={tmp_path}", "--mode=compile"]
  assert "--mode=compile needs --config=FILE:ARG" in _error(*to)
  config = "--config=configs/masked.py:ucf101"
  assert "--mode=compile needs --topology=NAME" in _error(*to, config)
  assert "--topology needs --mode=compile" in _error(
    f"--workdir={tmp_path}", "--topology=v5e:2x4", config
  )


def test_missing_image_tokenizers(tmp_path):
  message = _error(
    _TINY,
    f"--workdir={tmp_path / 'run'}",
    f"--config.inflate_from={tmp_path / 'none'}",
  )
  assert "is not a directory" in message


def test_tiny_configs_are_the_variants_they_are_called():
  assert tiny.get_config("image").dataset.frames == 1
  assert tiny.get_config("masked").algorithm == "masked"


@pytest.mark.parametrize(
  "arguments, expected",
  [
    (["--mode=evaluate"], "--mode=evaluate needs --workdir=DIR"),
    (
      ["--mode=compress", "--workdir=x", "--input=a", "--output=b"],
      "--mode=compress reads no --workdir=x",
    ),
    (
      ["--mode=import", "--workdir=x", "--input=a", _TINY],
      "--mode=import reads no --config",
    ),
    (
      ["--mode=tokenize", "--workdir=x", "--config.batch_size=5"],
      "--config.batch_size needs --config=FILE:ARG",
    ),
    (["--mode=tokenize", "--workdir=x", "--split=y"], "--split=y"),
  ],
)
def test_what_a_mode_does_not_read_is_refused(arguments, expected):
  assert expected in _error(*arguments)
