"""Tests of benchmarks/accelerator.py and of all its rows, with tiny models."""

import json
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import accelerator
from benchmarks import accelerator_measures
from benchmarks import accelerator_row
from benchmarks import accelerator_rows
from magvit.cost import programs as cost_programs

# What no row can do without.
_MEASURED = {
  "products": "copy_bytes_per_second",
  "attention": "seconds",
  "convolution": "(1,2,4,4,2)->3 k3 (1,1,1) forward",
  "ids": "inception",
  "tokenizer_train_warm": "compile_seconds",
}
_PEERS = ("torch_bert", "torch_bert_compiled", "open_magvit2")


def _row(tmp_path):
  return accelerator_row.Row(tmp_path / "row.json", tiny=True)


# Two networks have no tiny form, and one row runs twice.
_LONG = {"i3d", "inception", "tokenizer_train_warm"}
# Others train, sample, or run one network, likewise.
_ALIKE = {
  *("tokenizer_train", "tokenizer_generator", "reconstruct", "ids"),
  *("autoregressive_train", "autoregressive_sample"),
}


def _rows():
  """Names of the rows, as test parameters."""
  for name in sorted(accelerator_rows.ROWS):
    marks = pytest.mark.long if name in _LONG else ()
    marks = pytest.mark.rows if name in _ALIKE else marks
    yield pytest.param(name, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(_rows()))
def test_a_row_is_measured_with_a_tiny_model(name, tmp_path):
  if name in _PEERS:
    pytest.importorskip("torch")
  if name == "open_magvit2":
    pytest.skip("needs a checkout of SEED-Voken")
  row = _row(tmp_path)
  accelerator_rows.ROWS[name](row)
  measured = json.loads(row.output.read_text())
  assert "not run" not in measured
  assert measured[_MEASURED.get(name, "seconds")]


def test_the_driver_has_a_limit_for_every_row():
  assert accelerator.ROWS.keys() == accelerator_rows.ROWS.keys()


def _run(monkeypatch, *flags):
  monkeypatch.setattr(sys, "argv", ["accelerator", *flags])
  accelerator.main()


def test_a_wrong_folder_of_the_peer_is_refused_before_anything_runs(
  tmp_path, monkeypatch, capsys
):
  output = tmp_path / "report.json"
  with pytest.raises(SystemExit):
    _run(monkeypatch, f"--output={output}", f"--peer={tmp_path}")
  assert "has no file src/Open_MAGVIT2/modules" in capsys.readouterr().err
  assert not output.exists()


def test_a_row_without_its_peer_or_its_time_says_so(
  tmp_path, monkeypatch, capsys
):
  output = tmp_path / "report.json"
  flags = (f"--output={output}", "--budget=5", "--only=open_magvit2,products")
  _run(monkeypatch, *flags)
  report = json.loads(output.read_text())
  rows = report["rows"]
  assert "--peer=DIR" in rows["open_magvit2"]["not run"]
  assert "of --budget=5 were left" in rows["products"]["not run"]
  assert {"jax", "driver", "load", "cores"} <= report["machine"].keys()
  printed = capsys.readouterr().out
  assert "not run: --peer=DIR" in printed
  for name in report["measures"]:
    assert name in printed


@pytest.mark.slow
def test_a_measure_reads_what_its_row_writes(tmp_path):
  """The figures of attention, whose names another file makes."""
  row = _row(tmp_path)
  accelerator_rows.attention(row)
  judged = accelerator_measures.judge({"attention": row.measured})
  values = {k for k, v in judged.items() if v["value"] is not None}
  assert values == {
    "attention, difference of float32",
    "attention, difference of bfloat16",
    "dropout, mean over seeds",
    "dropout, variance over the expected one",
  }


def test_measures_are_judged_by_the_rows_of_the_same_run():
  rows = {
    "masked_train": {"seconds": 0.3, "peak_gib": 30.0, "mfu": 0.5},
    "torch_bert": {"seconds": 0.3},
    "tokenizer_train": {"lower_seconds": 20.0, "compile_seconds": 90.0},
    "tokenizer_train_warm": {"not run": "not done after 60 s"},
    "attention": {
      "kernel_float32_rate0.0_causal": [1e-7, 2e-7, 1e-7, 1e-7],
      "kernel_float32_rate0.1_all": [1e-7, 2e-6, 1e-7, 1e-7],
      "kernel_bfloat16_rate0.0_all": [1e-3, 1e-3, 0.02, 1e-3],
    },
    "convolution": {
      "device": "a chip",
      "one layer": {"over_fastest": 1.0},
      "another layer": {"over_fastest": 1.25},
    },
  }
  judged = accelerator_measures.judge(rows)
  results = {
    name: (verdict["value"], verdict["result"])
    for name, verdict in judged.items()
    if verdict["value"] is not None
  }
  assert results == {
    "MAGVIT-L step, GiB": (30.0, "met"),
    "MAGVIT-L step over torch's": (1.0, "missed"),
    "MAGVIT-L step, MFU": (0.5, "met"),
    "tokenizer step, seconds to compile, cold": (110.0, "met"),
    "convolutions, chosen form over the fastest": (1.25, "missed"),
    "attention, difference of float32": (2e-6, "met"),
    "attention, difference of bfloat16": (0.02, "missed"),
  }
  assert {f["result"] for f in judged.values()} == {"met", "missed", "not run"}


def test_the_table_has_a_line_for_every_row_and_measure():
  rows = {
    "masked_train": {"seconds": 0.3, "floor_seconds": 0.15, "mfu": 0.5},
    "attention": {"seconds": {"kernel_all": 0.1, "blocks_all": 0.2}},
    "torch_bert": {"not run": "no torch"},
  }
  report = {"rows": rows, "measures": accelerator_measures.judge(rows)}
  lines = accelerator_measures.table(report).splitlines()
  assert lines[1].split() == ["masked_train", "0.3", "0.15", "0.5"]
  assert lines[2] == "attention"
  assert lines[3].endswith("not run: no torch")
  assert len(lines) == 6 + len(accelerator_measures.MEASURES)


class _Device:
  device_kind = "a chip of 10 GiB"

  def memory_stats(self):
    return {"bytes_limit": 10 * 2**30}


def _clips_that_ran(tmp_path, monkeypatch, gib_per_clip, sizes, always=()):
  """Sizes that compile and those that run, with no more than 10 GiB."""
  compiled, ran = [], []

  def compile_program(part, program):
    (clips,) = program.arguments
    compiled.append(clips)
    part.add(
      lower_seconds=0.0,
      compile_seconds=0.0,
      arguments_gib=1.0,
      temporaries_gib=gib_per_clip * clips,
    )

  def run_program(part, _, program, *unused):
    ran.extend(program.arguments)
    part.add(seconds=1.0, floor_seconds=0.5, mfu=0.5)

  monkeypatch.setattr(jax, "devices", lambda: [_Device()])
  monkeypatch.setattr(accelerator_row, "compile_program", compile_program)
  monkeypatch.setattr(accelerator_row, "run_program", run_program)
  row = _row(tmp_path)
  describe = lambda n: (cost_programs.Program(abs, None, (), (n,)), 0)
  accelerator_row.measure_clips(row, describe, sizes, always)
  return compiled, ran, row.measured


@pytest.mark.parametrize(
  "gib_per_clip, compiled, ran",
  [
    (0.5, [4, 8], [4, 8]),
    (2.0, [4], [4]),  # 8 clips are foretold to take 17 GiB
    (3.0, [4, 2], [2]),  # 4 clips do not fit, but say what 2 take
    (20.0, [4], []),
  ],
)
def test_as_many_clips_as_fit_are_measured(
  gib_per_clip, compiled, ran, tmp_path, monkeypatch
):
  result = _clips_that_ran(tmp_path, monkeypatch, gib_per_clip, (4, 8, 2, 1))
  assert result[:2] == (compiled, ran)
  if ran:
    assert result[2]["clips"] == max(ran)
    assert "not run" not in result[2]
  else:
    assert "none of [4, 8, 2, 1]" in result[2]["not run"]


def test_sizes_to_compare_at_are_measured_beside_the_largest(
  tmp_path, monkeypatch
):
  _, ran, measured = _clips_that_ran(
    tmp_path, monkeypatch, 1.0, (2, 8, 4, 1), always=(2, 1)
  )
  assert ran == [2, 8, 1]
  assert measured["8_clips"]["seconds_per_clip"] == 1 / 8


def test_parts_are_written_with_their_row(tmp_path):
  row = _row(tmp_path)
  row.add(a=1)
  row.part("b").add(c=2)
  row.part("b").part("d").add(e=3)
  assert json.loads(row.output.read_text()) == {
    "a": 1,
    "b": {"c": 2, "d": {"e": 3}},
  }


def test_what_is_drawn_has_the_shapes_and_is_no_constant():
  shapes = {
    "weights": jax.ShapeDtypeStruct((3, 4), jnp.bfloat16),
    "ids": jax.ShapeDtypeStruct((5,), jnp.int32),
    "video": jax.ShapeDtypeStruct((2, 8), jnp.uint8),
  }
  drawn = accelerator_row.draw(shapes)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
    lambda x: (x.shape, x.dtype), shapes
  )
  assert (drawn["weights"] >= 0).all() and drawn["weights"].std() > 0
  assert (drawn["ids"] == 0).all() and drawn["video"].std() > 0
