"""Tests of magvit/api.py: the Python interface."""

import jax
import numpy as np
import pytest

import magvit
from magvit import api
from magvit import trained as trained_lib
from tests import tiny


@pytest.fixture(scope="module")
def generator(tiny_generator_workdir):
  return magvit.load_generator(tiny_generator_workdir)  # compiles once for all


def test_a_tokenizer_encodes_and_decodes(tiny_tokenizer_workdir):
  tokenizer = magvit.load_tokenizer(tiny_tokenizer_workdir)
  video = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  ids = tokenizer.encode(video)
  assert ids.shape == (2, 3, 8, 8) and ids.dtype == np.int32
  decoded = tokenizer.decode(ids)
  assert decoded.shape == video.shape and decoded.dtype == np.float32
  assert 0 <= decoded.min() and decoded.max() <= 1
  same = tokenizer.encode((255 * video).round().astype(np.uint8))
  assert (same == ids).mean() > 0.9  # rounding flips few bits
  image_ids = tokenizer.encode(video[:, :1])
  np.testing.assert_array_equal(image_ids, ids[:, :1])
  assert tokenizer.config.quantizer.bits == 6


def test_a_generators_workdir_holds_the_same_tokenizer(
  tiny_generator_workdir, tiny_tokenizer_workdir
):
  video = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  a, b = (
    magvit.load_tokenizer(path).encode(video)
    for path in (tiny_generator_workdir, tiny_tokenizer_workdir)
  )
  np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  "video, message",
  [
    (np.zeros((5, 16, 16, 3)), "must be .batch, frames, height, width"),
    (np.zeros((1, 5, 16, 16, 1)), "must be .batch, frames, height, width"),
    (np.full((1, 5, 16, 16, 3), 128.0), r"give floats in .0, 1., or uint8"),
    (np.full((1, 5, 16, 16, 3), -1.0), r"give floats in .0, 1., or uint8"),
    (np.zeros((1, 4, 16, 16, 3)), "clip length 4"),
  ],
)
def test_what_is_no_clip_is_refused(tiny_tokenizer_workdir, video, message):
  with pytest.raises(ValueError, match=message):
    magvit.load_tokenizer(tiny_tokenizer_workdir).encode(video)


def test_ids_outside_the_vocabulary_are_refused(tiny_tokenizer_workdir):
  tokenizer = magvit.load_tokenizer(tiny_tokenizer_workdir)
  with pytest.raises(ValueError, match=r"ids in \[64, 64\] must be in 0\.\.63"):
    tokenizer.decode(np.full((1, 3, 8, 8), 64))
  with pytest.raises(ValueError, match="type float64 must be integers"):
    tokenizer.decode(np.zeros((1, 3, 8, 8)))


def test_a_generator_samples_by_label_and_condition(generator):
  key = jax.random.key(0)
  video = generator.sample(key, 2, label=3)
  assert video.shape == (2, 5, 16, 16, 3)
  np.testing.assert_array_equal(video, generator.sample(key, 2, label=3))
  clips = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  generator.sample(
    key, 2, task="frame_prediction", condition=clips, steps=2, guidance=0.5
  )


def test_a_long_video_goes_on_from_its_condition(generator):
  first = np.random.default_rng(0).random((2, 3, 16, 16, 3), np.float32)
  key = jax.random.key(0)
  chunks = list(generator.sample_long(key, first, 5))
  assert [chunk.shape[1] for chunk in chunks] == [2, 2, 1]
  clip = np.zeros((2, 5, 16, 16, 3), np.float32)
  clip[:, :3] = first
  predict = lambda clip, place: generator.sample(
    jax.random.fold_in(key, place), 2, task="frame_prediction", condition=clip
  )
  video = predict(clip, 0)
  np.testing.assert_array_equal(chunks[0], video[:, 3:])
  clip[:, :3] = video[:, 2:]
  np.testing.assert_array_equal(chunks[1], predict(clip, 1)[:, 3:])


@pytest.mark.parametrize(
  "arguments, message",
  [
    (
      dict(task="interpolation"),
      "task='interpolation' must be frame_prediction",
    ),
    (dict(task="prediction"), "task='prediction' must be one of"),
    (dict(condition=np.zeros((2, 5, 16, 16, 3))), "condition_frames=3"),
    (dict(label=10), "label=10"),
  ],
)
def test_what_cannot_be_rolled_is_refused(generator, arguments, message):
  arguments = {"condition": np.zeros((2, 3, 16, 16, 3)), **arguments}
  with pytest.raises(ValueError, match=message):
    generator.sample_long(jax.random.key(0), frames=5, **arguments)


@pytest.mark.parametrize(
  "arguments, message",
  [
    (dict(task="outpainting"), "task='outpainting' must be one of"),
    (dict(label=10), r"label=10 must be in 0\.\.9"),
    (dict(task="frame_prediction"), "task='frame_prediction' needs condition"),
    (
      dict(task="frame_prediction", condition=np.zeros((2, 4, 16, 16, 3))),
      r"condition of shape \(2, 4, .* must be \(2, 5, 16, 16, 3\)",
    ),
  ],
)
def test_what_cannot_be_sampled_is_refused(generator, arguments, message):
  with pytest.raises(ValueError, match=message):
    generator.sample(jax.random.key(0), 2, **arguments)


@pytest.mark.parametrize(
  "config",
  [tiny.masked(""), tiny.autoregressive("")],
  ids=["masked", "autoregressive"],
)
def test_settings_reach_the_algorithm_that_was_trained(
  monkeypatch, tmp_path, config
):
  class Built(Exception):
    pass

  class Algorithm(trained_lib.ALGORITHMS[config.algorithm]):
    @classmethod
    def build(cls, config, mesh, abstract=False):
      raise Built(config.sampling)

  monkeypatch.setitem(trained_lib.ALGORITHMS, config.algorithm, Algorithm)
  generator = api.LoadedGenerator(config, str(tmp_path))
  with pytest.raises(Built) as built:
    generator.sample(jax.random.key(0), 2, guidance=0.5, temperature=0.25)
  (settings,) = built.value.args
  assert (settings.guidance, settings.temperature) == (0.5, 0.25)


def test_an_autoregressive_model_has_no_number_of_steps(tmp_path):
  generator = api.LoadedGenerator(tiny.autoregressive(""), str(tmp_path))
  with pytest.raises(ValueError, match="steps=4 .* autoregressive"):
    generator.sample(jax.random.key(0), 2, steps=4)


def test_a_tokenizer_is_no_generator(tiny_tokenizer_workdir):
  with pytest.raises(ValueError, match="'tiny tokenizer', .* load_tokenizer"):
    magvit.load_generator(tiny_tokenizer_workdir)
