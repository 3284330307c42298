"""Tests of evaluation/protocols/run.py on models of workdirs."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from evaluation.protocols import run as protocol_run
from evaluation.protocols import table as protocol_table
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.scoring import model as scored_model
from magvit.workdir import folder as workdir_lib
from tests import random_features


def _score_workdir(workdir, protocol, network=None, **fields):
  """Scores the workdir's model, which compiles for a while."""
  config = workdir_lib.read_config(workdir)
  opened = scored_model.open_model(
    workdir, config, protocol_table.get(protocol)
  )
  request = protocol_run.Request(protocol, **fields)
  return protocol_run.score(workdir, request, config, lambda: opened, network)


def test_a_tokenizer_measures_its_reconstructions(tiny_tokenizer_workdir):
  result = _score_workdir(tiny_tokenizer_workdir, "reconstruction", num=10)
  path = pathlib.Path(tiny_tokenizer_workdir, "results/reconstruction.json")
  assert json.loads(path.read_text())["step"] == 1
  assert result.protocol["examples"] == 10
  assert 0 < result.metrics["psnr"] < 100
  result = _score_workdir(tiny_tokenizer_workdir, "codebook", num=10)
  assert result.metrics["tokens"] == 10 * 3 * 8 * 8
  assert result.metrics["codes"] == 2**6
  with pytest.raises(ValueError, match="dataset.frames .* 5 .*_rfvd .*16"):
    _score_workdir(
      tiny_tokenizer_workdir, "ucf101_rfvd", random_features.Network(), num=4
    )


@pytest.mark.slow
def test_perturbed_codes_move_the_reconstructions(
  tiny_tokenizer_workdir, monkeypatch
):
  clips = dataclasses.replace(protocol_table.get("pfid"), frames=5)
  monkeypatch.setitem(protocol_table.PROTOCOLS, "pfid", clips)
  result = _score_workdir(
    tiny_tokenizer_workdir, "pfid", random_features.Network(), num=10
  )
  scores = [result.metrics[f"pfid_alpha_{a}"] for a in protocol_table.ALPHAS]
  assert len(set(scores)) == 3 and np.isfinite(scores).all()
  np.testing.assert_allclose(result.metrics["pfid"], np.mean(scores))
  assert result.evaluator.startswith("pfid@10x1,dataset=digits")


@pytest.mark.slow
def test_a_generators_samples_are_those_of_its_seed(
  tiny_generator_workdir, monkeypatch
):
  short = dataclasses.replace(protocol_table.get("is_c3d"), frames=5)
  monkeypatch.setitem(protocol_table.PROTOCOLS, "is_c3d", short)
  run = lambda network, seed: _score_workdir(
    tiny_generator_workdir, "is_c3d", network, num=6, folds=2, seed=seed
  )
  network = random_features.Network()
  first = run(network, 0)
  assert network.clips == 12
  assert first.evaluator == "is_c3d@6x2,dataset=digits,window=own"
  assert run(network, 0).metrics == first.metrics and network.clips == 12
  assert run(network, 1).metrics != first.metrics


def test_protocols_of_the_config_run_within_training(tiny_tokenizer_workdir):
  config = workdir_lib.read_config(tiny_tokenizer_workdir)
  config.evaluation.protocols = ("codebook",)
  config.evaluation.num = 8
  mesh = mesh_lib.make_mesh(config.mesh)
  model = scored_model.Model(
    trained_lib.open_trained(tiny_tokenizer_workdir, config, mesh)
  )
  (result,) = protocol_run.run_configured(config, tiny_tokenizer_workdir, model)
  assert result.metrics["tokens"] == 8 * 3 * 8 * 8
  config.evaluation.num = 0  # its own number: dataset.eval_examples
  (result,) = protocol_run.run_configured(config, tiny_tokenizer_workdir, model)
  assert result.evaluator == "codebook"
  assert result.metrics["tokens"] == 10 * 3 * 8 * 8
  config.evaluation.protocols = ("is_c3d",)
  with pytest.raises(ValueError, match="evaluation.protocols.*is_c3d.*'tiny"):
    protocol_run.run_configured(config, tiny_tokenizer_workdir, model)
