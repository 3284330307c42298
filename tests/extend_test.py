"""What docs/extend.md says in words: a new algorithm, data set and metric.

Each is the files and the one line that the page names, and nothing else.
"""

import importlib.util
import json
import os

import jax
import numpy as np
import pytest

from evaluation.protocols import measures
from evaluation.protocols import run as protocol_run
from evaluation.protocols import table as protocol_table
from input_pipeline import pipeline
import magvit
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.cost import programs as cost_programs
import main
from tests import main_test
from tests import tiny
from tests.toy import algorithm as toy_algorithm

_HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
_CONFIG = "--config=tests/toy/config.py:digits"


@pytest.fixture
def toy(monkeypatch):
  """The one line."""
  monkeypatch.setitem(
    trained_lib.ALGORITHMS, "toy", toy_algorithm.HistogramGenerator
  )


def _run(*arguments):
  main.run(main_test.parse(*arguments))


def _losses(workdir):
  with open(os.path.join(workdir, "metrics.jsonl")) as f:
    entries = [json.loads(line) for line in f]
  return {e["step"]: e["loss"] for e in entries if "loss" in e}


@pytest.mark.slow
def test_a_fourth_algorithm_runs_in_every_mode(
  toy, tiny_tokenizer_workdir, tmp_path
):
  workdir = f"--workdir={tmp_path / 'run'}"
  train = (
    *(_CONFIG, workdir, "--config.mesh.data=8"),
    f"--config.tokenizer_workdir={tiny_tokenizer_workdir}",
  )
  _run(*train)
  whole = _losses(tmp_path / "run")
  assert sorted(whole) == [1, 2, 3, 4]

  # Resumed from step 2, the same losses follow.
  (tmp_path / "run" / "checkpoints" / "4").rename(tmp_path / "4")
  _run(*train)
  assert _losses(tmp_path / "run") == whole

  _run(workdir, "--mode=evaluate")
  results = tmp_path / "run" / "results"
  assert "class_conditional" in {path.stem for path in results.iterdir()}

  _run(workdir, "--mode=sample", "--task=class_conditional", "--num=3")
  folder = tmp_path / "run" / "samples" / "class_conditional_seed0"
  with np.load(folder / "samples.npz") as samples:
    assert samples["arr_0"].shape == (3, 5, 16, 16, 3)

  _run(workdir, "--mode=export", f"--output={tmp_path / 'export'}")
  key = jax.random.key(0)
  clips = [
    magvit.load_generator(str(path)).sample(key, num=2, label=3)
    for path in (tmp_path / "run", tmp_path / "export")
  ]
  np.testing.assert_array_equal(*clips)


def test_a_fourth_algorithm_is_described_for_chips(toy, tiny_tokenizer_workdir):
  """What --mode=compile compiles, without libtpu."""
  parsed = main_test.parse(
    *("--workdir=x", _CONFIG, "--mode=compile", "--topology=v5e:2x4"),
    f"--config.tokenizer_workdir={tiny_tokenizer_workdir}",
  )
  assert parsed == ["main.py"]
  config = main._CONFIG.value
  mesh = mesh_lib.data_mesh(jax.devices())
  config = cost_programs.without_remat(config)
  algorithm = cost_programs.describe(config, mesh)
  programs = cost_programs.programs(config, algorithm, mesh)
  assert set(programs) == {"train", "sample"}
  for program in programs.values():
    jax.jit(program.function, out_shardings=program.out_shardings).lower(
      *program.arguments
    )


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_LIBTPU, reason="needs libtpu")
def test_a_fourth_algorithm_is_compiled_for_chips(
  toy, tiny_tokenizer_workdir, tmp_path, monkeypatch
):
  monkeypatch.delenv("XLA_FLAGS")  # libtpu ends where it knows one of them not
  _run(
    *(f"--workdir={tmp_path}", _CONFIG, "--mode=compile"),
    f"--config.tokenizer_workdir={tiny_tokenizer_workdir}",
    "--topology=v5e:2x4",
  )
  report = json.loads(
    (tmp_path / "results" / "compile-v5e-2x4.json").read_text()
  )
  assert set(report["parameters"]) == {"histogram", "tokenizer"}
  assert all(program["fits"] for program in report["programs"].values())


class _Stripes:
  """A computed data set: clips of one colour."""

  CLASS_NAMES = ("dark", "bright")

  def __init__(self, split, frames, size, seed, length=16):
    self._shape = (frames, size, size, 3)
    self._length = length

  def __len__(self):
    return self._length

  def __getitem__(self, index):
    label = index % 2
    video = np.full(self._shape, 40 + 160 * label, np.uint8)
    return {"video": video, "label": np.int32(label)}


def test_a_data_set_is_a_class_and_a_line(monkeypatch):
  monkeypatch.setitem(pipeline._SOURCES, "stripes", _Stripes)
  dataset = tiny.tokenizer().dataset
  dataset.name = "stripes"
  batch = next(pipeline.train_batches(dataset, 4))
  assert batch["video"].shape == (4, 5, 16, 16, 3)
  assert set(batch["label"].tolist()) <= {0, 1}
  assert pipeline.class_names(dataset) == ("dark", "bright")
  held_out = pipeline.source(dataset, "held_out", length=6)
  assert len(held_out) == 6


def test_a_metric_of_features_is_a_function_and_two_entries(
  monkeypatch, tmp_path
):
  def mean_logit(protocol, made, real):
    del protocol, real
    return {"mean_logit": float(made[0]["logits"].mean())}

  protocol = protocol_table.make(
    *("toy", "mean_logit", "inception"),
    **dict(num=4, dataset="", source="nobody"),
  )
  monkeypatch.setitem(measures.MEASURES, "mean_logit", mean_logit)
  monkeypatch.setitem(protocol_table.PROTOCOLS, "toy", protocol)
  video = np.full((4, 8, 8, 3), 7, np.uint8)
  np.savez(tmp_path / "made.npz", arr_0=video)
  made = str(tmp_path / "made.npz")
  request = protocol_run.Request("toy", input=made, reference=made)
  network = lambda batch: {
    "logits": batch.reshape(len(batch), -1)[:, :5].astype(np.float32)
  }
  result = protocol_run.score(str(tmp_path), request, network=network)
  assert result.metrics == {"mean_logit": 7.0}
