"""Tests of benchmarks/duel.py: its rules and refusals; no step is compiled."""

import json
import sys

import jax
import ml_collections
import numpy as np
import pytest

from benchmarks import clocked
from benchmarks import clocked_algorithm
from benchmarks import duel
from benchmarks import duel_ours
from benchmarks import duel_peer
from benchmarks import duel_report
from benchmarks import duel_run
from benchmarks import sides
from configs import tokenizer_video
from magvit.tokenizer import describe
from models.features import perceptual
from models.weights import safetensors_file
from tests import tiny


def _rows(*scores):
  return [
    {"moment": 10.0 * k, "seconds": 10.0 * k, "steps": 5 * k, "psnr": psnr}
    | {"squeezenet": distance}
    for k, (psnr, distance) in enumerate(scores)
  ]


def test_the_highest_psnr_and_the_lowest_distance_lead():
  histories = {
    "ours": _rows((10, 0.9), (20, 0.5), (21, 0.4)),
    "peer": _rows((10, 0.8), (19, 0.6), (22, 0.3)),
  }
  leaders = duel_report.who_leads(histories)
  assert [(r["psnr"], r["squeezenet"]) for r in leaders] == [
    (None, "peer"),
    ("ours", "ours"),
    ("peer", "peer"),
  ]


def test_a_side_that_diverged_does_not_lead_later():
  histories = {"ours": _rows((10, 0.9), (20, 0.5)), "peer": _rows((30, 0.1))}
  first, second = duel_report.who_leads(histories)
  assert first["psnr"] == "peer"
  assert second["psnr"] == "ours"


def test_nobody_leads_alone():
  (leader,) = duel_report.who_leads({"ours": _rows((10, 0.9))})
  assert leader["psnr"] is None
  assert duel_report.verdict([leader], 0.0) == {}
  assert duel_report.at_equal_steps({"ours": _rows((10, 0.9))}) == []


def test_the_verdict_leaves_out_the_first_third():
  leaders = [
    {"moment": 10.0, "psnr": "peer", "squeezenet": "peer"},
    {"moment": 20.0, "psnr": "ours", "squeezenet": "ours"},
    {"moment": 60.0, "psnr": "ours", "squeezenet": "peer"},
  ]
  expected = {"psnr": "ours", "squeezenet": "changing"}
  assert duel_report.verdict(leaders, 60.0) == expected


def test_a_moment_that_nobody_leads_makes_a_verdict_changing():
  leaders = [{"moment": 40.0, "psnr": None}, {"moment": 60.0, "psnr": "ours"}]
  assert duel_report.verdict(leaders, 60.0) == {"psnr": "changing"}


def test_at_equal_steps_a_slow_side_may_lead():
  fast = _rows((10, 0.9), (20, 0.5), (30, 0.4))
  slow = [{**row, "steps": row["steps"] / 5} for row in fast]
  leaders = duel_report.at_equal_steps({"ours": fast, "peer": slow})
  assert [row["psnr"] for row in leaders] == ["peer"] * len(leaders)
  assert leaders[-1]["steps"] == 2.0  # the slow side has done no more


def test_the_table_marks_who_leads():
  histories = {"ours": _rows((10, 0.9)), "peer_0.001": _rows((12, 0.9))}
  leaders = duel_report.who_leads(histories)
  lines = duel_report.table(histories, leaders).splitlines()
  assert lines[3].split() == ["0", "10", "12*"]
  assert lines[7].split() == ["0", "0.9", "0.9"]


def test_the_plot_and_the_strip_are_pictures(tmp_path):
  histories = {"ours": _rows((10, 0.9)), "peer": _rows((12, 0.9))}
  parameters = {"ours": 5, "peer": 6}
  duel_report.draw(histories, 60.0, parameters, tmp_path / "duel.png")
  clips = np.zeros((2, 5, 16, 16, 3), np.uint8)
  outputs = {"peer": clips + 100, "ours": clips + 200}
  duel_report.draw_clips(clips, outputs, tmp_path / "clips.png")
  for name in ("duel.png", "clips.png"):
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_width_of_the_closest_number_of_parameters_is_found():
  count = lambda width: 100 * width**2
  assert duel_peer.match(25_000, count, 4) == (16, 25_600)
  assert duel_peer.match(39_900, count, 4) == (20, 40_000)


def test_without_a_width_within_5_percent_the_closest_is_named():
  with pytest.raises(ValueError, match=r"closest, 16, has 25,600.*--width"):
    duel_peer.match(30_000, lambda width: 100 * width**2, 8)


def test_the_discriminator_has_its_published_share_of_the_width():
  assert duel_peer.discriminator_width(128) == 64
  assert duel_peer.discriminator_width(8) == 4


def test_schedules_are_stretched_over_the_steps_of_the_duel():
  config = tokenizer_video.get_config("film64_small")
  warmup = config.optimizer.warmup_steps
  twice = clocked_algorithm.stretch(config, 2 * config.num_steps)
  assert twice.optimizer.warmup_steps == 2 * warmup
  assert twice.loss.adversarial_start == 0  # a GAN from the first step on
  config.loss.adversarial_start = config.num_steps // 2
  twice = clocked_algorithm.stretch(config, 2 * config.num_steps)
  assert twice.loss.adversarial_start == config.num_steps
  shortest = clocked_algorithm.stretch(config, 2)
  assert shortest.optimizer.warmup_steps == 1
  assert shortest.loss.entropy_annealing_steps == 1
  assert shortest.loss.adversarial_start == 1
  assert config.optimizer.warmup_steps == warmup


@pytest.mark.parametrize(
  "field, value, words",
  [
    ("quantizer.name", "fsq", "quantizer.name='fsq'"),
    ("tokenizer.temporal_downsample", (True, True, True), "halves time"),
    ("loss.perceptual_network", "off", "squeezenet's distance"),
  ],
)
def test_a_config_without_a_peer_is_refused(field, value, words):
  config = tokenizer_video.get_config("film64_small")
  config.quantizer.name = "lfq"
  duel_peer.check_comparable(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=words):
    duel_peer.check_comparable(config)


class _Contestant:
  """Takes a second of a made clock for a step; reconstructs grey."""

  def __init__(self, clock, lost_at=10**9):
    self._clock, self._lost_at, self.begun = clock, lost_at, []

  def begin(self, num_steps):
    self.begun.append(num_steps)
    self.steps = 0

  def train(self, batch):
    self._clock[0] += 1.0
    self.steps += 1

  def reconstruct(self, video_BTHWC):
    fill = np.nan if self.steps >= self._lost_at else 0.5
    return np.full(video_BTHWC.shape, fill, np.float32), np.zeros(
      len(video_BTHWC)
    )

  def facts(self):
    return {"parameters": 1}


class _Examination:
  def score(self, contestant):
    output, _ = contestant.reconstruct(np.zeros((1, 5, 8, 8, 3)))
    if np.isnan(output).any():
      return None
    scores = {"psnr": 10.0 + contestant.steps, "squeezenet": 0.5}
    return {**scores, "entropy_bits": 1.0}, np.zeros((1, 5, 8, 8, 3), np.uint8)


def _train(tmp_path, monkeypatch, points, **settings):
  clock = [0.0]
  monkeypatch.setitem(clocked.CLOCKS, "cpu", lambda: clock[0])
  contestant = _Contestant(clock, **settings)
  clocked.train(
    _settings(seconds=6.0, points=points),
    contestant,
    lambda: _Examination().score(contestant),
    lambda: iter([{}] * 100),
    tmp_path,
  )
  history = json.loads((tmp_path / "history.json").read_text())
  return contestant, history


def _settings(**changes):
  fields = dict(side="ours", seconds=6.0, points=3, clips=1, clock="cpu")
  fields |= dict(cores=1, weights="", judge="", peer={})
  return duel_run.Settings(**{**fields, **changes})


def test_a_side_is_scored_at_equal_distances_of_its_clock(
  tmp_path, monkeypatch
):
  contestant, history = _train(tmp_path, monkeypatch, points=3)
  assert history["planned_steps"] == 6 and contestant.begun[-1] == 6
  steps = [(row["moment"], row["steps"]) for row in history["rows"]]
  assert steps == [(0.0, 0), (2.0, 2), (4.0, 4), (6.0, 6)]
  assert history["rows"][-1]["psnr"] == 16.0
  assert history["finished"] and history["diverged_at_step"] is None


def test_moments_within_one_step_share_a_row(tmp_path, monkeypatch):
  _, history = _train(tmp_path, monkeypatch, points=12)
  rows = history["rows"]
  assert len(rows) == 13
  assert [row["steps"] for row in rows[:5]] == [0, 1, 1, 2, 2]


def test_a_side_that_diverges_ends_there(tmp_path, monkeypatch):
  _, history = _train(tmp_path, monkeypatch, points=3, lost_at=3)
  assert history["diverged_at_step"] == 4
  assert [row["steps"] for row in history["rows"]] == [0, 2]
  assert history["finished"]


def _store(folder, settings, finished):
  config = ml_collections.ConfigDict({"batch_size": 4})
  history = {"settings": vars(settings), "finished": finished}
  (folder / "history.json").write_text(json.dumps(history))
  (folder / "config.json").write_text(config.to_json())
  return config


def test_a_finished_side_is_not_run_again(tmp_path):
  for finished in (True, False):
    config = _store(tmp_path, _settings(), finished)
    assert sides.is_finished(tmp_path, _settings(), config) is finished


def test_a_folder_of_another_duel_is_refused(tmp_path):
  config = _store(tmp_path, _settings(), True)
  with pytest.raises(ValueError, match="with another seconds: name another"):
    sides.is_finished(tmp_path, _settings(seconds=7.0), config)
  config.batch_size = 5
  with pytest.raises(ValueError, match="with another config: name another"):
    sides.is_finished(tmp_path, _settings(), config)


def _run(monkeypatch, *flags):
  monkeypatch.setattr(sys, "argv", ["duel", *flags])
  with pytest.raises(SystemExit) as refused:
    duel.main()
  message = str(refused.value)
  assert "\n" not in message
  return message


def _weights(path):
  """A file of drawn weights of SqueezeNet."""
  _, abstract = perceptual.define("squeezenet")
  tensors = safetensors_file.by_name(tiny.draw(abstract))
  arrays = {name: np.asarray(x) for name, x in tensors.items()}
  safetensors_file.save(str(path), "squeezenet", arrays, {})
  return path


def test_what_is_missing_is_named_with_its_remedy(tmp_path, monkeypatch):
  output = f"--output={tmp_path / 'out'}"
  absent = tmp_path / "none.safetensors"
  flags = [output, f"--shards={tmp_path / 'film'}", f"--weights={absent}"]
  assert "models.weights.fetch --network=squeezenet" in _run(
    monkeypatch, *flags
  )
  flags[2] = f"--weights={_weights(tmp_path / 'squeezenet.safetensors')}"
  assert "input_pipeline.prepare --format=film" in _run(monkeypatch, *flags)
  assert "--points=0 must be above 0" in _run(monkeypatch, *flags, "--points=0")
  for wrong in ("loss.perceptuall=1", "batch_size=many", "los.r1=1"):
    refused = _run(monkeypatch, *flags, f"--set={wrong}")
    assert "the config has no field" in refused
  assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
  with pytest.raises(ValueError, match="has no file src/Open_MAGVIT2"):
    duel_peer.check(tmp_path)


def _checkout(folder):
  """A folder with the files that the check looks for."""
  networks = "src/Open_MAGVIT2/modules/diffusionmodules/improved_video_model.py"
  for name in (networks, duel_peer._RECIPE):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).touch()


def test_without_torch_the_remedy_is_named(tmp_path, monkeypatch):
  _checkout(tmp_path)
  missing = lambda name: None if name == "torch" else object()
  monkeypatch.setattr(duel_peer.importlib.util, "find_spec", missing)
  with pytest.raises(ValueError, match="pip install torch einops"):
    duel_peer.check(tmp_path)


def test_the_recipe_is_read_with_its_numbers(tmp_path):
  _checkout(tmp_path)
  (tmp_path / duel_peer._RECIPE).write_text(
    "trainer: {max_epochs: 2000}\n"
    "model:\n"
    "  init_args:\n"
    "    ddconfig: {ch: 128}\n"
    "    learning_rate: 1e-4\n"
    "    wp: 2\n"
  )
  recipe = duel_peer.recipe(tmp_path)
  assert (recipe["learning_rate"], recipe["epochs"]) == (1e-4, 2000)
  assert recipe["wp"] == 2 and "ddconfig" not in recipe


def test_the_distances_in_torch_and_jax_agree(tmp_path, monkeypatch):
  pytest.importorskip("torch")
  from benchmarks import duel_perceptual

  path = _weights(tmp_path / "squeezenet.safetensors")
  frames = np.random.default_rng(0).uniform(size=(2, 33, 34, 3))
  frames = frames.astype(np.float32)
  distance = duel_perceptual.load(str(path), frames)  # raises if they differ
  assert not list(distance.parameters())
  plain = lambda x: x
  monkeypatch.setattr(duel_perceptual, "_unit_length", plain)
  with pytest.raises(ValueError, match="in torch and JAX differ by"):
    duel_perceptual.load(str(path), frames)


def test_our_parameters_are_counted_without_drawing_them():
  config = tiny.tokenizer()
  tokenizer = describe.define_tokenizer(config)
  drawn = tiny.trained_like(tokenizer)
  expected = sum(x.size for x in jax.tree.leaves(drawn))
  assert duel_ours.count(config) == expected
