"""Tests of magvit/recognition: inputs, masks, losses and training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.modes import export as export_mode
from magvit.recognition import recognition
from magvit.recognition import tubes
from magvit.training import starting_point
from tests import tiny
from tests import untrained


@pytest.fixture(scope="module")
def one_device():
  return mesh_lib.make_mesh(tiny.tokenizer().mesh, jax.devices()[:1])


def _config(tokenizer="", **fields):
  config = tiny.recognition(tokenizer)
  config.update_from_flattened_dict(fields)
  return config


_PIXELS = {"recognizer.input": "pixels"}
_PARTS = {"pretraining.targets": "parts"}
_BITS = {"pretraining.targets": "bits"}


def _build(config, mesh):
  algorithm = recognition.Recognition.build(config, mesh)
  return algorithm, tiny.drawn_state(algorithm)


def _program(function):
  """Compiles a function of (parameters, batch), which may have no hash."""
  return jax.jit(lambda params, batch: function(params, batch))


def _batch(config):
  return next(pipeline.train_batches(config.dataset, config.batch_size))


def test_tokens_enter_as_signs_and_pixels_in_as_many_places(
  tiny_tokenizer_workdir, one_device
):
  tokens, state = _build(_config(tiny_tokenizer_workdir), one_device)
  batch = _batch(tokens.config)
  x = _program(tokens.inputs)(state.frozen, batch)
  assert x.shape == (8, 3, 8, 8, 6)
  assert set(np.unique(x)) == {-1.0, 1.0}
  ids_BN = _program(tokens.inputs.ids)(state.frozen, batch)
  bits = np.asarray(ids_BN)[..., None] >> np.arange(6) & 1
  np.testing.assert_array_equal(x.reshape(8, -1, 6), 2 * bits - 1)

  latents, _ = _build(
    _config(tiny_tokenizer_workdir, **{"recognizer.input": "latents"}),
    one_device,
  )
  z = _program(latents.inputs)(state.frozen, batch)
  np.testing.assert_array_equal(jnp.where(z >= 0, 1.0, -1.0), x)

  pixels, _ = _build(_config(**_PIXELS), one_device)
  assert pixels.frozen == {}
  assert pixels.inputs.latent_shape == tokens.inputs.latent_shape
  x = pixels.inputs({}, batch)
  np.testing.assert_allclose(x, batch["video"] / 127.5 - 1, atol=1e-6)


def test_the_first_frame_alone_is_seen_where_the_others_are_hidden(one_device):
  config = _config(**_PIXELS, **{"recognizer.first_frame": True})
  algorithm, state = _build(config, one_device)
  batch = _batch(config)
  program = jax.jit(algorithm.predict["classify"])
  classify = lambda video: program(
    state.predict_params(), {"video": video}, jax.random.key(0)
  )
  logits = classify(batch["video"])
  later = batch["video"].copy()
  later[:, 1:] = 77
  np.testing.assert_array_equal(logits, classify(later))
  first = batch["video"].copy()
  first[:, 0] = 77
  assert jnp.abs(logits - classify(first)).max() > 1e-5


@pytest.mark.parametrize("shape", [(5, 4, 4), (5, 16, 16), (1, 8, 8)])
def test_masks_are_tubes_of_half_of_the_positions(shape):
  hidden = np.asarray(tubes.draw(jax.random.key(0), 64, shape, 0.5, 0.5))
  frames = hidden.any((2, 3))
  for clip, frame in zip(hidden, frames, strict=True):
    places = np.flatnonzero(frame)
    assert len(places) >= shape[0] / 2
    assert places[-1] - places[0] + 1 == len(places)  # without gaps
    for shown in clip[frame]:
      np.testing.assert_array_equal(shown, clip[places[0]])
      assert shown.sum() == shape[1] * shape[2] // 2
  assert len({clip.tobytes() for clip in hidden}) > 50
  share_t = hidden.mean((0, 2, 3))
  assert 0.25 < share_t.min() and share_t.max() <= 0.5
  place_hw = hidden.any(1).mean(0)  # each as often as any other
  assert 0.2 < place_hw.min() and place_hw.max() < 0.8
  if shape[0] > 1:
    assert len(set(frames.sum(1).tolist())) == 3  # 3, 4 or 5 of 5


def test_large_grids_are_masked_in_blocks():
  """A neighbour of a hidden position is hidden more often than by chance."""
  hidden = np.asarray(tubes.draw(jax.random.key(0), 32, (1, 16, 16), 0.5, 1.0))
  both = hidden[..., 1:] & hidden[..., :-1]
  assert both.mean() / hidden.mean() > 0.75


def test_bits_and_parts_are_right_together_with_their_tokens(
  tiny_tokenizer_workdir, one_device
):
  ids_BN = jnp.arange(12).reshape(2, 6) * 5
  for targets, value in (("bits", 6), ("parts", 8)):
    config = _config(tiny_tokenizer_workdir, **{"pretraining.targets": targets})
    algorithm = recognition.Recognition.build(config, one_device)
    count = 1 if targets == "bits" else 2
    nothing = [jnp.zeros((2, 6, value))] * count
    loss_BN, _ = algorithm.target_losses(nothing, ids_BN)
    np.testing.assert_allclose(loss_BN, 6 * np.log(2), rtol=1e-5)
    if targets == "bits":
      bits = ids_BN[..., None] >> jnp.arange(6)[None, None] & 1
      sure = [40.0 * (2 * bits - 1.0)]
    else:
      parts = (ids_BN % 8, ids_BN // 8)
      sure = [40.0 * jax.nn.one_hot(part, 8) for part in parts]
    loss_BN, hits_BN = algorithm.target_losses(sure, ids_BN)
    assert hits_BN.all() and float(loss_BN.max()) < 1e-5
    wrong = [sure[0].at[0, 0].multiply(-1.0), *sure[1:]]
    _, hits_BN = algorithm.target_losses(wrong, ids_BN)
    assert not hits_BN[0, 0] and hits_BN.sum() == 11


@pytest.mark.parametrize(
  "fields",
  [_PARTS, *(pytest.param(x, marks=pytest.mark.rows) for x in ({}, _BITS))],
)
def test_the_loss_of_hidden_tokens_alone_counts(
  tiny_tokenizer_workdir, one_device, fields
):
  config = _config(tiny_tokenizer_workdir, **fields)
  config.recognizer.dropout = 0.0
  algorithm, state = _build(config, one_device)
  batch = _batch(config)
  one, metrics = jax.jit(algorithm.step)(state, batch, jax.random.key(0))
  assert jnp.isfinite(metrics["loss"]) and metrics["gradient_norm"] > 0
  # In two parts the gradient is the same, masks included.
  config.microbatches = 2
  parts, again = jax.jit(algorithm.step)(state, batch, jax.random.key(0))
  np.testing.assert_allclose(metrics["loss"], again["loss"], rtol=1e-5)
  moments = [jax.tree.leaves(s.opt_state["recognizer"]) for s in (one, parts)]
  for a, b in zip(*moments, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-3)


def test_targets_that_are_shown_carry_no_loss(
  tiny_tokenizer_workdir, one_device
):
  algorithm, state = _build(
    _config(tiny_tokenizer_workdir, **_PARTS), one_device
  )
  batch = _batch(algorithm.config)
  hidden = algorithm.hidden(jax.random.key(1), 8)
  examples = {
    "x": _program(algorithm.inputs)(state.frozen, batch),
    "hidden": hidden,
    "ids": _program(algorithm.inputs.ids)(state.frozen, batch),
  }
  loss = jax.jit(
    lambda examples: algorithm.masked_loss(
      state.params["recognizer"], examples, None
    )[0]
  )
  changed = jnp.where(
    hidden.reshape(8, -1), examples["ids"], 63 - examples["ids"]
  )
  np.testing.assert_array_equal(
    loss(examples), loss({**examples, "ids": changed})
  )
  changed = 63 - examples["ids"]
  assert loss(examples) != loss({**examples, "ids": changed})


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"recognizer.input": "sound"}, r"recognizer.input='sound' .*'pixels'"),
    ({}, "tokenizer_workdir is empty"),
    ({**_PIXELS, "recognizer.patch": (2, 2, 4)}, "patches are square"),
    ({**_PIXELS, "recognizer.patch": (3, 2, 2)}, "length 5 .* stride 3"),
    ({**_PIXELS, "tokenizer_workdir": "x"}, "workdir=x is not read"),
    ({**_PIXELS, "dataset.tokens": "x"}, "dataset.tokens=x has no pixels"),
    ({**_PIXELS, "recognizer.dtype": "int8"}, "recognizer.dtype='int8'"),
    ({**_PIXELS, "dataset.joint_images": 8}, "joint_images=8 is for token"),
    ({**_PIXELS, "evaluation.protocols": ("pfid",)}, "makes none"),
    ({"pretraining.targets": "words"}, "targets='words' must be"),
    ({**_PARTS, "pretraining.factor_bits": (3, 4)}, r"\(3, 4\) .* 64 codes"),
    ({**_PARTS, "recognizer.first_frame": True}, "first_frame=True hides"),
    (
      {**_PIXELS, **_PARTS, "recognizer.patch": (4, 4, 4)},
      r"2 x 4 x 4 tokens .* 3 x 8 x 8: .*\(2, 2, 2\)",
    ),
  ],
)
def test_fields_that_contradict_each_other_are_refused(
  tiny_tokenizer_workdir, one_device, fields, message
):
  tokenizer = tiny_tokenizer_workdir if "pretraining.targets" in fields else ""
  with pytest.raises(ValueError, match=message):
    recognition.Recognition.build(_config(tokenizer, **fields), one_device)


def _start(config, source, mesh):
  config.init_from = source
  starting_point.check(config, "new")
  algorithm, state = _build(config, mesh)
  drawn = state.params["recognizer"]
  first = starting_point.first_state(config, algorithm, mesh, state)
  return drawn, first.params["recognizer"]


@pytest.mark.slow
def test_a_pretrained_network_starts_with_a_new_head(
  tiny_tokenizer_workdir, one_device, tmp_path
):
  workdir, folder = str(tmp_path / "pretrained"), str(tmp_path / "export")
  pretrained = _config(tiny_tokenizer_workdir, **_PARTS)
  untrained.write(workdir, pretrained)
  export_mode.export(workdir, folder)
  restored = trained_lib.open_trained(workdir).params["recognizer"]
  assert "classes" not in restored
  for source in (workdir, folder):
    config = _config(tiny_tokenizer_workdir)
    drawn, params = _start(config, source, one_device)
    assert params.keys() == drawn.keys()
    for name in params:
      expected = drawn[name] if name == "classes" else restored[name]
      jax.tree.map(np.testing.assert_array_equal, params[name], expected)
  _, params = _start(pretrained, workdir, one_device)
  jax.tree.map(np.testing.assert_array_equal, params, restored)
  narrow = _config(tiny_tokenizer_workdir, **{"recognizer.width": 8})
  match = r"init_from=.*: embed_first.* has shape \(16,\), expected \(8,\)"
  with pytest.raises(ValueError, match=match):
    _start(narrow, workdir, one_device)
