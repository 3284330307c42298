"""Tests of the command line: one clear line for each mistake of a user."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import typing
from unittest import mock

from absl import flags
import pytest

from magvit import command_line
from magvit.modes import table
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
    (
      "--config.num_step=3",
      "error: the config has no field 'num_step': Did you mean \"num_steps\"",
    ),
    ("--config.transformer.width=8", "error: the config has no field 'transf"),
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


def test_every_number_of_a_mode_has_a_range_and_every_other_text_is_a_path():
  words = {
    *("label", "programs", "protocol", "size", "source", "split", "task"),
    *("tasks", "topology", "vvenc_preset", "x265_preset"),
  }
  for mode, module in table.MODES.items():
    kinds = typing.get_type_hints(module.Options)
    for field in dataclasses.fields(module.Options):
      name, kind = field.name, str(kinds[field.name])
      is_number = "int" in kind or "float" in kind
      has_range = field.metadata["allowed"] is not None
      assert is_number == has_range, (mode, name)
      is_text = "str" in kind and name not in words
      assert is_text == field.metadata["is_path"], (mode, name)


@pytest.mark.parametrize(
  "arguments, expected",
  [
    (
      "--mode=sample --task=x --guidance=nan",
      "--guidance=nan must be at least",
    ),
    (
      "--mode=sample --task=x --guidance=-2",
      "--guidance=-2.0 must be at least",
    ),
    ("--mode=sample --task=x --seed=-1", "--seed=-1 must be at least 0"),
    (f"--mode=sample --task=x --seed={2**32}", f"at most {2**32 - 1}"),
    ("--mode=sample --task=x --num=0", "--num=0 must be at least 1"),
    ("--mode=sample --task=x --steps=0", "--steps=0 must be at least 1"),
    ("--mode=evaluate --protocol=x --seed=-1", "--seed=-1 must be at least 0"),
    ("--mode=evaluate --protocol=x --folds=0", "--folds=0 must be at least 1"),
    ("--mode=tokenize --output=x --num=-3", "--num=-3 must be at least 1"),
    (
      "--mode=compress --input=x --output=y --x265_qps=22,99",
      "--x265_qps=99 must be at least 0 and at most 51",
    ),
    (
      "--mode=compress --input=x --output=y --at_bpp=inf",
      "--at_bpp=inf must be above 0 and finite",
    ),
    (
      "--mode=compress --input=x --output=y --size=0x-5",
      "--size=0x-5 must be WIDTHxHEIGHT",
    ),
  ],
)
def test_ranges_of_flags_are_checked_before_anything_is_read(
  arguments, expected
):
  workdir = [] if "compress" in arguments else ["--workdir=there/is/none"]
  assert expected in _error(*workdir, *arguments.split())


@pytest.mark.parametrize(
  "field, value",
  [
    ("seed", "-1"),
    ("num_steps", "0"),
    ("optimizer.peak_learning_rate", "nan"),
    ("loss.entropy", "inf"),
    ("ema_decay", "1.0"),
    ("dataset.frames", "-5"),
  ],
)
def test_ranges_of_fields_are_checked_before_anything_is_read(
  field, value, tmp_path
):
  # The folder is none of ours, which every mode would say first.
  (tmp_path / "notes.txt").touch()
  message = _error(_TINY, f"--workdir={tmp_path}", f"--config.{field}={value}")
  assert message.startswith(f"error: {field}={value} must be ")


def test_labels_are_plain_numbers(tiny_generator_workdir, tmp_path):
  message = _error(
    f"--workdir={tiny_generator_workdir}",
    "--mode=sample",
    "--task=class_conditional",
    "--label=²",
    f"--output={tmp_path / 'samples'}",
  )
  assert "--label=² must be in 0..9" in message


def test_every_path_has_a_home_and_variables(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("RUN", "run")
  monkeypatch.chdir(tmp_path)
  (tmp_path / "tiny.py").write_text((_ROOT / "tests/tiny.py").read_text())
  message = _error("--workdir=~/$RUN", "--mode=evaluate")
  assert f"workdir={tmp_path}/run is not a directory" in message
  message = _error("--workdir=$NONE/x", "--mode=evaluate")
  assert "workdir=$NONE/x" in message and "NONE is not set" in message
  for config in (
    ["--config=~/tiny.py:masked"],
    ["--config", "~/tiny.py:masked"],
  ):
    message = _error(
      *config, "--workdir=~/run", "--config.tokenizer_workdir=~/$RUN/t"
    )
    assert f"workdir={tmp_path}/run/t is not a directory" in message
  message = _error(
    *("--config=~/tiny.py:tokenizer", "--workdir=~/run"),
    "--config.dataset.mixture=('1:~/a', '1:$NONE/b')",
  )
  assert "dataset.mixture=$NONE/b: the variable NONE is not set" in message
  assert sorted(os.listdir(tmp_path)) in (["run", "tiny.py"], ["tiny.py"])
