"""Tests of benchmarks/arms.py: equal sizes and tasks, refusals, the report."""

import sys

import numpy as np
import pytest

from benchmarks import arms
from benchmarks import arms_report
from magvit.workdir import folder as workdir_lib
from storage import files

_DIGITS = "configs/tokenizer_video.py:digits"


def _args(*flags):
  return arms._parser().parse_args(
    [f"--tokenizer={_DIGITS}", "--output=none", *flags]
  )


def _configs(*flags):
  return arms._configs(_args(*flags))


@pytest.fixture(scope="module")
def configs():
  return _configs("--arms=masked,autoregressive", "--seeds=0,1")


def test_arms_are_of_one_size_and_learn_one_task_from_the_same_clips(configs):
  assert list(configs) == [
    *("masked_0", "masked_1", "autoregressive_0", "autoregressive_1")
  ]
  masked, autoregressive = configs["masked_0"], configs["autoregressive_1"]
  sizes = [arms.count(config) for config in (masked, autoregressive)]
  assert abs(sizes[1] - sizes[0]) <= 0.1 * sizes[0]
  assert (masked.seed, autoregressive.seed) == (0, 1)
  for config in configs.values():
    trained = [name for name, weight in config.tasks.items() if weight]
    assert trained == ["class_conditional"]
    assert config.dataset == masked.dataset
    assert config.batch_size == masked.batch_size


@pytest.mark.parametrize("name", arms.ARMS)
def test_an_arm_has_the_optimizer_of_its_row_or_that_of_the_flags(name):
  file, _ = arms.ARMS[name]
  row = workdir_lib.read_config_file(f"configs/{file}.py:digits").optimizer
  continuous = f"--continuous={_DIGITS}"
  args = _args(continuous)
  assert arms._config(args, name, None).optimizer == row
  flags = ("--set=optimizer.name=muon", "--set=optimizer.b2=0.5")
  given = arms._config(_args(continuous, *flags), name, None).optimizer
  assert (given.name, given.b2) == ("muon", 0.5)
  assert given.peak_learning_rate == row.peak_learning_rate


def test_the_masked_arm_of_the_film_has_nothing_that_others_lack():
  args = arms._parser().parse_args(
    ["--tokenizer=configs/tokenizer_video.py:film64", "--output=none"]
    + ["--row=film64"]
  )
  row = workdir_lib.read_config_file("configs/masked.py:film64")
  arm = arms._config(args, "masked", None)
  other = arms._config(args, "autoregressive", None)
  for config, expected in ((row, True), (arm, False)):
    assert config.transformer.condition_hints is expected
    assert config.sampling.carry_detail is expected
  assert row.sampling.temperature < 1
  assert arm.sampling.temperature == other.sampling.temperature == 1
  folders = workdir_lib.read_config_file("configs/masked.py:folder64")
  choice = folders.sampling.choice_temperature
  assert arm.sampling.choice_temperature == choice


def test_a_size_that_no_width_reaches_is_refused(configs):
  config = configs["autoregressive_0"]
  with pytest.raises(ValueError, match="autoregressive: with transformer.mlp"):
    arms.match(config, "autoregressive", 1000)


@pytest.mark.parametrize(
  "flags, words",
  [
    (["--arms=masked,none"], "--arms=masked,none: 'none' is none of"),
    (["--arms=walt_continuous"], "walt_continuous needs --continuous=DIR"),
    (["--seconds=0"], "--seconds=0 must be above 0"),
    (["--seeds=one"], "--seeds=one must be whole numbers"),
    (["--set=batch_sise=1"], "has no field batch_sise"),
  ],
)
def test_wrong_flags_are_refused_in_a_line(monkeypatch, tmp_path, flags, words):
  given = [f"--tokenizer={_DIGITS}", f"--output={tmp_path}/out", *flags]
  monkeypatch.setattr(sys, "argv", ["arms", *given])
  with pytest.raises(SystemExit) as refused:
    arms.main()
  assert words in str(refused.value) and "\n" not in str(refused.value)
  assert not (tmp_path / "out").exists()


def _history(accuracy, steps, diverged=None):
  scores = dict.fromkeys(arms_report.SCORES["digits"], accuracy)
  rows = [{"seconds": 2.0 * k, "steps": k, **scores} for k in range(3)]
  sampling = [{"steps": s, "seconds_per_clip": 0.01, **scores} for s in steps]
  return {
    "facts": {"parameters": 1234},
    "rows": rows,
    "diverged_at_step": diverged,
    **({"sampling": sampling} if diverged is None else {}),
  }


def test_the_table_has_every_arm_seed_and_number_of_steps(tmp_path):
  histories = {
    "masked_0": _history(0.9, (1, 2)),
    "autoregressive_1": _history(0.5, (None,)),
    "walt_bits_0": _history(0.5, (), diverged=7),
  }
  lines = arms_report.table(histories, "digits").splitlines()
  cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[2:]]
  assert [(row[0], row[4]) for row in cells] == [
    ("masked, 0", "1"),
    ("masked, 0", "2"),
    ("autoregressive, 1", "each token"),
    ("walt_bits, 0", "diverged by step 7"),
  ]
  assert cells[0][1:4] == ["1,234", "2", "4"] and cells[0][5:7] == [
    "10.0",
    "0.9",
  ]
  arms_report.draw(histories, "digits", tmp_path / "arms.png")
  for side in histories:
    clip = np.zeros((1, 5, 16, 16, 3), np.uint8)
    files.write_npz(tmp_path / side / "clips.npz", {"video": clip})
  arms_report.draw_clips(tmp_path, list(histories))
  for name in ("arms.png", "arms_clips.png"):
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
