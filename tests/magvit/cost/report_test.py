"""Tests of reports on TPUs that are not there; libtpu itself is optional."""

import importlib.util
import json

import jax
import pytest

from configs import masked as masked_configs
from configs import tokenizer_video
import magvit
from magvit import mesh as mesh_lib
from magvit.cost import chips
from magvit.cost import compiled
from magvit.cost import flops
from magvit.cost import links
from magvit.cost import programs as cost_programs
from magvit.cost import report as cost_report
from magvit.generators import tokens as tokens_lib
from tests import tiny

_HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


def _mesh():
  return mesh_lib.data_mesh(jax.devices())


@pytest.mark.parametrize("from_tokens", [False, True])
def test_the_papers_generator_is_described_without_a_tokenizer(from_tokens):
  config = masked_configs.get_config("ucf101")
  config.tokenizer_workdir = "configs/tokenizer_video.py:ucf101"
  config.dataset.tokens = "somewhere" if from_tokens else ""
  config = cost_programs.without_remat(config)
  algorithm = cost_programs.describe(config, _mesh())
  assert cost_programs.parameters(algorithm) == {
    "transformer": 306_881_536,
    "tokenizer": 376_003_221,
  }
  programs = cost_programs.programs(config, algorithm, _mesh())
  train = programs["train"]
  batch = train.arguments[1]
  assert batch["label"].shape == (256,)
  if not from_tokens:
    assert batch["video"].shape == (256, 17, 128, 128, 3)
    return
  assert batch["ids"].shape == (256, 5, 16, 16)
  # Each parameter of layers and heads takes 6 FLOP a token; the attention's two
  # products are computed once forward and twice in the backward pass.
  tokens, width, layers = 1281, 1024, 24
  dense = 6 * layers * 12 * width**2 * tokens
  attention = 3 * layers * 2 * 2 * tokens**2 * width
  heads = 6 * 2 * (width**2 + 512 * width) * 1280
  assert flops.count(train.function, *train.arguments) == 256 * (
    dense + attention + heads
  )


@pytest.mark.parametrize(
  "make",
  [
    pytest.param(tiny.masked_diffusion, marks=pytest.mark.rows),
    tiny.next_frame_flow,
    pytest.param(tiny.diffusion, marks=pytest.mark.rows),
  ],
  ids=lambda make: make.__name__,
)
def test_a_generator_of_latents_is_described_without_a_tokenizer(make):
  config = make("tests/tiny.py:tokenizer")
  programs = cost_programs.programs(
    config, cost_programs.describe(config, _mesh()), _mesh()
  )
  assert set(programs) == {"train", "sample"}
  for program in programs.values():
    assert flops.count(program.function, *program.arguments) > 0


@pytest.mark.parametrize(
  "make, names",
  [
    (tiny.recognition, {"train", "classify"}),
    (tiny.masked_pretraining, {"train"}),
  ],
)
@pytest.mark.parametrize(
  "tokens", [pytest.param("", marks=pytest.mark.rows), "stored"]
)
def test_a_recognizer_is_described_without_a_tokenizer(make, names, tokens):
  config = make("tests/tiny.py:tokenizer")
  config.dataset.tokens = tokens
  algorithm = cost_programs.describe(config, _mesh())
  programs = cost_programs.programs(config, algorithm, _mesh())
  assert set(programs) == names
  for program in programs.values():
    assert flops.count(program.function, *program.arguments) > 0


def test_a_tokenizer_is_described_without_perceptual_weights():
  config = tokenizer_video.get_config("ucf101")
  algorithm = cost_programs.describe(config, _mesh())
  parameters = cost_programs.parameters(algorithm)
  assert parameters["tokenizer"] == 376_003_221
  assert parameters["perceptual"] > 25_000_000  # ResNet-50
  programs = cost_programs.programs(config, algorithm, _mesh())
  assert set(programs) == {"train", "reconstruct"}


def test_what_does_not_fit_says_what_to_change():
  program = {"fits": False, "error": "Ran out of memory", "advice": ["Less."]}
  report = {
    "chip": "TPU v5 lite",
    "mesh": {"slice": 1, "data": 16, "fsdp": 1, "tensor": 1},
    "programs": {"train": program},
  }
  text = "\n".join(cost_report.table("train", report))
  assert "each of the 16 TPU v5 lite" in text
  assert "DOES NOT FIT: Ran out of memory\n  Less." in text


def test_a_program_that_a_config_has_not_is_refused(monkeypatch, tmp_path):
  devices = lambda topology: jax.devices()
  monkeypatch.setattr(chips, "devices", devices)
  monkeypatch.setitem(chips.CHIPS, "cpu", chips.CHIPS["TPU v4"])
  match = (
    "^--programs=train,sample names 'sample': this config's programs are train,"
    " reconstruct$"
  )
  with pytest.raises(ValueError, match=match):
    cost_report.write(
      tiny.tokenizer(), str(tmp_path), "v4:2x2x2", ("train", "sample")
    )


def test_unknown_tokenizer_configs_are_refused():
  match = r"configs/absent\.py:ucf101: there is no file configs/absent\.py"
  with pytest.raises(ValueError, match=match):
    tokens_lib.tokenizer_config("configs/absent.py:ucf101")


@pytest.mark.skipif(_HAS_LIBTPU, reason="libtpu is installed")
def test_without_libtpu_the_error_says_where_to_get_it(tmp_path):
  with pytest.raises(ValueError, match="--topology=v5e:2x4 .*install libtpu"):
    cost_report.write(tiny.tokenizer(), str(tmp_path), "v5e:2x4")


@pytest.mark.slow
def test_another_user_of_libtpu_is_not_the_fault_of_the_topology(
  tmp_path, monkeypatch
):
  def refuse(**unused):
    raise RuntimeError("ABORTED: error when accessing libtpu lockfile")

  monkeypatch.setattr(chips.topologies, "get_topology_desc", refuse)
  match = "^another process uses libtpu .*ALLOW_MULTIPLE_LIBTPU_LOAD=1"
  with pytest.raises(ValueError, match=match):
    cost_report.write(tiny.tokenizer(), str(tmp_path), "v5e:2x4")


@pytest.mark.skipif(not _HAS_LIBTPU, reason="needs libtpu")
def test_a_tiny_tokenizer_is_compiled_for_eight_chips(tmp_path, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS")  # libtpu exits at a flag it does not know
  cost_report.write(tiny.tokenizer(), str(tmp_path), "v5e:2x4")
  path = tmp_path / "results" / "compile-v5e-2x4.json"
  report = json.loads(path.read_text())
  for program in report["programs"].values():
    assert program["fits"] and program["flops"] > 0
    assert program["seconds"]["least"] == max(program["seconds"].values())
  assert report["programs"]["train"]["collective_bytes"]["all-reduce"] > 0
  assert report["version"] == magvit.__version__


@pytest.mark.slow
def test_fit_reports_on_what_it_chose(tmp_path, monkeypatch, caplog):
  caplog.set_level("INFO", logger="magvit.cost")
  monkeypatch.setattr(chips, "devices", lambda topology: jax.devices())
  monkeypatch.setitem(chips.CHIPS, "cpu", chips.CHIPS["TPU v5 lite"])
  line = links.Links(tuple((i, 0, 0) for i in range(8)), 2e11)
  monkeypatch.setattr(chips, "links_of", lambda chip, devices: line)

  def figures(mesh, chip, model_flops, program):
    """A compiler for whom a state fits in two parts alone."""
    if mesh.shape["fsdp"] < 2:
      return {"fits": False, "error": "Ran out of memory. Used 23G of 16G hbm."}
    times = dict.fromkeys(("compute", "memory", "links", "network"), 1e-9)
    return {
      "fits": True,
      "hbm_gib": 16,
      "memory_gib": {"total": 12.0},
      "flops": 1e9,
      "flops_of_model": 1e9,
      "bytes": 1e9,
      "collective_count": {},
      "collective_bytes": {},
      "network_bytes": 0,
      "kernels": {},
      "cycles": 0,
      "mfu": 0.5,
      "seconds": {**times, "least": 1e-9},
      "bound": "memory",
      "compile_seconds": 1.0,
    }

  monkeypatch.setattr(compiled, "figures", figures)
  config = tiny.autoregressive("tests/tiny.py:tokenizer")
  config.dataset.tokens = "stored"
  cost_report.write(config, str(tmp_path), "v5e:2x4", ("train",), fit=True)
  path = tmp_path / "results" / "compile-v5e-2x4.json"
  report = json.loads(path.read_text())
  fit = report["fit"]
  assert "--config.mesh.fsdp=" in fit["flags"]
  assert [one["figures"]["fits"] for one in fit["tried"]][0] is False
  assert report["mesh"]["fsdp"] > 1 and report["programs"]["train"]["fits"]
  text = caplog.text
  assert "fit: compiling 1 of at most 5, the config as it is: about" in text
  assert f"best: {fit['flags']}" in text
