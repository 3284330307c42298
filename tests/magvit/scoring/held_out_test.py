"""Tests of magvit/scoring/held_out.py: how many clips are read."""

import types

import numpy as np
import pytest

from configs import masked as masked_config
from configs import tokenizer_image
from configs import tokenizer_video
from magvit.scoring import held_out
from magvit.scoring import model as scored_model
from tests import tiny


@pytest.mark.parametrize(
  "num_steps, batch_size, eval_examples, count",
  [
    (1000, 24, 256, 256),
    (60, 8, 256, 120),  # a quarter of 480
    (63, 8, 256, 120),  # whole batches
    (3, 24, 256, 24),  # a batch at least
    (3, 2, 256, 8),  # two clips make no statistics
    (3, 24, 10, 10),  # never more than the config says
  ],
)
def test_an_evaluation_reads_a_quarter_of_the_clips_trained_on(
  num_steps, batch_size, eval_examples, count
):
  config = tiny.tokenizer()
  config.num_steps, config.batch_size = num_steps, batch_size
  config.dataset.eval_examples = eval_examples
  assert held_out.training_count(config) == count


@pytest.mark.parametrize(
  "module, row",
  [
    (tokenizer_image, "digits"),
    (tokenizer_video, "digits"),
    (tokenizer_video, "overfit"),
    (masked_config, "digits"),
  ],
)
def test_rows_with_stated_scores_read_all_their_clips(module, row):
  config = module.get_config(row)
  assert held_out.training_count(config) == config.dataset.eval_examples


def test_fewer_clips_are_scored_with_fewer_samples(monkeypatch, caplog):
  """Scores say of how many clips they are; None is all of them."""
  config = tiny.masked("a tokenizer's workdir")
  for task in config.tasks:
    config.tasks[task] = float(task in ("class_conditional", "interpolation"))
  config.dataset.eval_examples, config.sampling.samples_per_class = 20, 4

  def run(task, label, video, seed):
    del task, label
    return {"video": np.random.default_rng(seed).random(video.shape)}

  judge = types.SimpleNamespace(
    classify=lambda video: np.zeros(len(video), int),
    features=lambda video: {"mean": video.mean((2, 3, 4))},
  )
  monkeypatch.setattr(scored_model, "sampler", lambda _: run)
  monkeypatch.setattr(held_out, "fitted_judge", lambda _: judge)
  drawn = []
  evaluator = held_out.Evaluator(
    held_out.EVALUATORS["samples"].score, drawn.append
  )
  monkeypatch.setitem(held_out.EVALUATORS, "samples", evaluator)
  monkeypatch.setattr(held_out.processes, "is_first", lambda: False)
  facts = types.SimpleNamespace(evaluators=("samples",))
  trained = types.SimpleNamespace(
    config=config, algorithm=types.SimpleNamespace(facts=facts)
  )
  classes = len(np.unique(scored_model.held_out(config, 10)["label"]))
  all_classes = len(np.unique(scored_model.held_out(config, 20)["label"]))
  with caplog.at_level("INFO"):
    few = held_out.evaluate(trained, 10)
    assert "evaluating 10 of 20 held-out clips, for" in caplog.text
    caplog.clear()
    whole = held_out.evaluate(trained)
    assert "held-out clips" not in caplog.text
  examples = lambda results: {
    r.evaluator: r.protocol["examples"] for r in results
  }
  assert examples(few) == {
    "class_conditional": 2 * classes,
    "frechet": 2 * classes,
    "interpolation": 10,
  }
  assert examples(whole) == {
    "class_conditional": 4 * all_classes,
    "frechet": 4 * all_classes,
    "interpolation": 20,
  }
  assert len(drawn) == 2
