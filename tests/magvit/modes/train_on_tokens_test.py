"""Tests of generators that train on what --mode=tokenize writes."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit.generators import masked
from magvit.generators import tasks as tasks_lib
from magvit.generators import tokens as tokens_lib
from magvit.tokenizer import fingerprint
from magvit.training import loop
from tests import tiny
from tests import token_folders


def _generator(workdir, folder=""):
  config = tiny.masked(str(workdir))
  config.tasks.class_conditional = 0.0
  config.dataset.tokens = str(folder)
  return config


@pytest.mark.slow
def test_training_from_tokens_is_training_from_pixels(
  folder, tiny_tokenizer_workdir
):
  """Losses and samples agree bit for bit, in prediction and inpainting."""
  mesh = mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])
  config = _generator(tiny_tokenizer_workdir)
  algorithm = masked.MaskedGenerator.build(config, mesh)
  drawn = jax.device_put(tiny.drawn_state(algorithm), mesh_lib.replicated(mesh))
  emitters = "xla_cpu_use_fusion_emitters"  # on by default, not in tests
  options = {emitters: True} if emitters in os.environ["XLA_FLAGS"] else {}
  runs, tasks = [], set()
  for tokens in ("", str(folder)):
    config.dataset.tokens = tokens
    data = pipeline.train_batches(config.dataset, config.batch_size)
    step, state, history = None, drawn, []
    for i in range(3):
      batch = mesh_lib.place_batch(next(data), mesh)
      assert ("video" in batch) == (tokens == "")
      arguments = (state, batch, jax.random.key(i))
      step = step or jax.jit(algorithm.step).lower(*arguments).compile(options)
      state, metrics = step(*arguments)
      history.append(jax.device_get(metrics))
      task_key = jax.random.split(jax.random.key(i), 4)[0]
      tasks.add(int(jax.random.categorical(task_key, np.zeros(2))))
    runs.append((history, state))
  assert tasks == {0, 1}  # both were trained
  jax.tree.map(np.testing.assert_array_equal, *runs)
  clips, _ = next(pipeline.eval_batches(config.dataset, "held_out", 8, 8))
  clips["task"] = np.int32(1)
  sample = jax.jit(algorithm.predict["sample"])
  pixels, tokens = (
    sample(state.predict_params(), clips, jax.random.key(0))["ids"]
    for _, state in runs
  )
  np.testing.assert_array_equal(pixels, tokens)


def _stored(folder, **changes):
  """Changes the folder's manifest, which is all that checks read."""
  path = folder / "tokens.json"
  fields = json.loads(path.read_text())
  path.write_text(json.dumps({**fields, **changes}))


def test_tokens_of_another_tokenizer_are_refused_before_training(
  fast_folder, tiny_tokenizer_workdir, tmp_path
):
  other = token_folders.other_tokenizer(tmp_path)
  config = _generator(other, fast_folder)
  made_by, used = (
    fingerprint.read_fingerprint(workdir)[:16]
    for workdir in (tiny_tokenizer_workdir, other)
  )
  with pytest.raises(ValueError, match=f"{made_by}, .* is {used}:"):
    loop.train(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_tokens_that_do_not_fit_a_generator_are_refused(
  copied, tiny_tokenizer_workdir
):
  def refused(match, **changes):
    config = _generator(tiny_tokenizer_workdir, copied)
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=match):
      tokens_lib.check_stored(config)

  tokens_lib.check_stored(_generator(tiny_tokenizer_workdir, copied))
  refused("made from size=16, .* needs size=32", **{"dataset.size": 32})
  refused("made from frames=5, .* frames=7", **{"dataset.frames": 7})
  refused("made from seed=0, .* needs seed=1", **{"dataset.seed": 1})
  refused("made from flip=False, .* needs flip=True", **{"dataset.flip": True})
  # A folder of before has no kind of labels: they are classes.
  refused("labels='class', .* labels='motion'", **{"dataset.labels": "motion"})
  for field, value in (("latent_shape", [1, 4, 4]), ("vocabulary", 128)):
    kept = json.loads((copied / "tokens.json").read_text())[field]
    _stored(copied, **{field: value})
    refused(f"says {field}=.* makes .* of such clips")
    _stored(copied, **{field: kept})
  refused("holds no tokens.json", **{"dataset.tokens": str(copied.parent)})
  _stored(copied, tasks=[])
  refused(r"tasks.interpolation=1.0 .* --tasks=interpolation,\.")
  # Tasks that are exact under a causal tokenizer need nothing stored.
  config = _generator(tiny_tokenizer_workdir, copied)
  for task in token_folders.COMMIT_TASKS:
    config.tasks[task] = 0.0
  tokens_lib.check_stored(config)
  held_out = {**tokens_lib.clips_of(config.dataset), "split": "held_out"}
  _stored(copied, dataset=held_out)
  refused("made from split='held_out', .* needs split='train'")


def test_condition_frames_count_where_a_stored_condition_depends_on_them(
  copied, tiny_tokenizer_workdir, monkeypatch
):
  config = _generator(tiny_tokenizer_workdir, copied)
  config.condition_frames = 1
  tokens_lib.check_stored(config)  # central inpainting does not read it
  by_frames = dataclasses.replace(
    tasks_lib.TASKS["central_inpainting"],
    given=tasks_lib.TASKS["frame_prediction"].given,
  )
  monkeypatch.setitem(tasks_lib.TASKS, "central_inpainting", by_frames)
  _stored(copied, condition_frames=3)
  with pytest.raises(ValueError, match="condition_frames=1 .* 3 "):
    tokens_lib.check_stored(config)
  config.condition_frames = 3
  tokens_lib.check_stored(config)


def test_tokenizers_train_from_pixels(fast_folder, tmp_path):
  config = tiny.tokenizer()
  config.dataset.tokens = str(fast_folder)
  with pytest.raises(ValueError, match="dataset.tokens=.* is for generators"):
    loop.train(config, str(tmp_path / "run"))
