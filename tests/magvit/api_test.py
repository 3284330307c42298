"""Tests of magvit/api.py: the Python interface."""

import pathlib
import subprocess
import sys

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


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_workdir):
  return magvit.load_tokenizer(tiny_tokenizer_workdir)


def test_a_tokenizer_encodes_and_decodes(tokenizer):
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
  tiny_generator_workdir, tokenizer
):
  video = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  ids = magvit.load_tokenizer(tiny_generator_workdir).encode(video)
  np.testing.assert_array_equal(ids, tokenizer.encode(video))


@pytest.mark.parametrize(
  "video, message",
  [
    (np.zeros((5, 16, 16, 3)), "must be .batch, frames, height, width"),
    (np.zeros((1, 5, 16, 16, 1)), "must be .batch, frames, height, width"),
    (np.full((1, 5, 16, 16, 3), 128.0), r"give floats in .0, 1., or uint8"),
    (np.full((1, 5, 16, 16, 3), -1.0), r"give floats in .0, 1., or uint8"),
    (np.zeros((1, 4, 16, 16, 3)), "clip length 4"),
    (
      np.full((1, 5, 16, 16, 3), np.nan),
      r"in .nan, nan.: give floats in",
    ),
    (
      np.full((1, 5, 16, 16, 3), np.inf),
      r"in .inf, inf.: give floats in",
    ),
    (np.zeros((1, 5, 16, 16, 3), int), "type int64 must be floats in .0, 1."),
    (np.zeros((1, 5, 16, 16, 3), bool), "type bool must be floats in .0, 1."),
    (np.zeros((1, 5, 16, 16, 3), complex), "type complex128 must be floats"),
    (np.full((1, 5, 16, 16, 3), "a"), "type <U1 must be floats"),
    (np.zeros((0, 5, 16, 16, 3)), r"shape \(0, 5, .* none of them 0"),
    (np.zeros((1, 0, 16, 16, 3)), r"shape \(1, 0, .* none of them 0"),
    (np.zeros((1, 5, 0, 16, 3)), r"shape \(1, 5, 0, .* none of them 0"),
    ([[0.0, 1.0], [0.0]], "video is a list of parts of several sizes"),
    ([], "must be .batch, frames, height, width"),
    (None, "video is a NoneType: give an array .batch, frames, height, width"),
    ("clip.mp4", "video is a str: give an array .batch, frames, height, width"),
  ],
)
def test_what_is_no_clip_is_refused(tokenizer, video, message):
  with pytest.raises(ValueError, match=message):
    tokenizer.encode(video)


@pytest.mark.parametrize(
  "ids, message",
  [
    ([[[0]]], "shape .1, 1, 1. .* must be integers .batch, time, height"),
    ([[[["a"]]]], "type <U1 must be integers"),
    (None, "ids is a NoneType: give an array"),
    (np.zeros((3, 8, 8), int), "must be integers .batch, time, height, width."),
    (np.zeros((1, 3, 8, 8), bool), "type bool must be integers"),
    (np.zeros((0, 3, 8, 8), int), r"shape \(0, 3, 8, 8\) .* none of them 0"),
    (np.zeros((1, 0, 8, 8), int), r"shape \(1, 0, 8, 8\) .* none of them 0"),
    (np.zeros((1, 3, 0, 8), int), r"shape \(1, 3, 0, 8\) .* none of them 0"),
    (np.full((1, 3, 8, 8), 2**40), r"must be in 0\.\.63"),
    (np.full((1, 3, 8, 8), -1), r"must be in 0\.\.63"),
  ],
)
def test_what_is_no_grid_of_ids_is_refused(tokenizer, ids, message):
  with pytest.raises(ValueError, match=message):
    tokenizer.decode(ids)
  if np.shape(ids) != (1, 0, 8, 8):
    with pytest.raises(ValueError, match=message):
      list(tokenizer.decode_stream([ids]))


def test_streams_without_a_frame_or_with_a_bad_one_are_refused(tokenizer):
  for code in (tokenizer.encode_stream, tokenizer.decode_stream):
    with pytest.raises(ValueError, match="the clip has no frames"):
      list(code([]))
  bad = np.full((1, 1, 16, 16, 3), np.nan)
  with pytest.raises(ValueError, match="give floats in"):
    list(tokenizer.encode_stream([bad]))


def test_lists_are_read_as_arrays(tokenizer):
  video = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  ids = tokenizer.encode(video)
  np.testing.assert_array_equal(tokenizer.encode(video.tolist()), ids)
  np.testing.assert_array_equal(tokenizer.encode(list(video)), ids)
  decoded = tokenizer.decode(np.asarray(ids).tolist())
  np.testing.assert_array_equal(decoded, tokenizer.decode(ids))


def test_a_tokenizer_says_what_it_is(tiny_tokenizer_workdir):
  tokenizer = magvit.load_tokenizer(tiny_tokenizer_workdir)
  assert repr(tokenizer).splitlines() == [
    "<LoadedTokenizer video tokenizer 'tiny tokenizer' (lfq)",
    "  clips 5 x 16 x 16 to 3 x 8 x 8 ids, strides 2 x 2 x 2; "
    "6 bits (64 codes)",
    f"  {tokenizer.parameters:,} parameters",
    "  step 1",
    f"  {tiny_tokenizer_workdir}>",
  ]
  assert tokenizer.clip_shape == (5, 16, 16)
  assert tokenizer.latent_shape == (3, 8, 8)
  assert tokenizer.strides == (2, 2, 2)
  assert (tokenizer.bits, tokenizer.vocabulary) == (6, 64)
  assert (tokenizer.path, tokenizer.step) == (tiny_tokenizer_workdir, 1)


def test_a_generator_says_what_it_is(generator, tiny_generator_workdir):
  first, *lines = repr(generator).splitlines()
  assert first == "<LoadedGenerator masked generator 'tiny generator'"
  assert lines[0] == "  video tokenizer 'tiny tokenizer' (lfq)"
  assert "5 x 16 x 16 to 3 x 8 x 8 ids" in lines[1] and "6 bits" in lines[1]
  assert lines[2] == "  10 classes"
  assert lines[3].startswith("  tasks class_conditional, frame_prediction, ")
  assert lines[4:] == [
    f"  {generator.parameters:,} parameters",
    "  step 1",
    f"  {tiny_generator_workdir}>",
  ]
  assert generator.clip_shape == (5, 16, 16)
  assert generator.latent_shape == (3, 8, 8)
  assert generator.strides == (2, 2, 2)
  assert (generator.bits, generator.vocabulary) == (6, 64)
  assert (generator.path, generator.step) == (tiny_generator_workdir, 1)
  assert generator.num_classes == 10 and generator.class_names[7] == "seven"
  assert generator.tasks[0] == "class_conditional"


def test_names_that_are_not_at_hand_are_no_labels(generator, monkeypatch):
  def unreadable(dataset):
    raise ValueError(f"{dataset.name} is gone")

  monkeypatch.setattr(api.pipeline, "class_names", unreadable)
  with pytest.raises(ValueError, match=r"in 0\.\.9 .*read: digits is gone"):
    generator.sample(0, 2, label="seven")
  monkeypatch.setattr(api.pipeline, "class_names", lambda dataset: ())
  with pytest.raises(ValueError, match=r"'seven' must be in 0\.\.9, or None"):
    generator.sample(0, 2, label="seven")


@pytest.mark.slow
def test_loading_prints_nothing(tiny_generator_workdir):
  """Neither do libraries: no warning, and no line of their logs."""
  program = """
import sys
import magvit

print(magvit.load_tokenizer(sys.argv[1]).step)
generator = magvit.load_generator(sys.argv[1])
print(generator.parameters)
print(generator.sample(0, 2, label="three").shape)
"""
  ended = subprocess.run(
    [sys.executable, "-W", "error", "-c", program, tiny_generator_workdir],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.stderr == "" and ended.returncode == 0
  step, parameters, shape = ended.stdout.splitlines()
  assert step == "1" and int(parameters) > 0 and shape == "(2, 5, 16, 16, 3)"


def test_ids_outside_the_vocabulary_are_refused(tokenizer):
  with pytest.raises(ValueError, match=r"ids in \[64, 64\] must be in 0\.\.63"):
    tokenizer.decode(np.full((1, 3, 8, 8), 64))
  with pytest.raises(ValueError, match="ids is a list of parts of several"):
    tokenizer.decode([[[[0, 1], [0]]]])
  with pytest.raises(ValueError, match="type float64 must be integers"):
    tokenizer.decode(np.zeros((1, 3, 8, 8)))


def test_a_generator_samples_by_label_and_condition(generator):
  key = jax.random.key(0)
  video = generator.sample(key, 2, label=3)
  assert video.shape == (2, 5, 16, 16, 3)
  np.testing.assert_array_equal(video, generator.sample(key, 2, label=3))
  np.testing.assert_array_equal(video, generator.sample(0, 2, label="three"))
  clips = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  generator.sample(
    key, 2, task="frame_prediction", condition=clips, steps=2, guidance=0.5
  )


def test_a_changed_setting_counts_from_the_next_sample_on(
  tiny_generator_workdir,
):
  generator = magvit.load_generator(tiny_generator_workdir)
  clips = np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)
  predict = lambda: generator.sample(
    0, 2, task="frame_prediction", condition=clips, steps=2
  )
  plain = predict()
  generator.config.sampling.replace_condition_pixels = True
  np.testing.assert_allclose(predict()[:, :3], clips[:, :3], atol=1e-6)
  generator.config.sampling.replace_condition_pixels = False
  np.testing.assert_array_equal(predict(), plain)


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
    (dict(frames=0), "frames=0 must be at least 1"),
    (dict(frames=2.5), "frames=2.5 must be .* a whole number"),
    (dict(condition=[0.0]), r"condition of shape \(1,\) must be"),
    (dict(label="sevn"), "label='sevn' must be in 0..9, one of 'zero', 'one'"),
    (dict(label=3), "label=3 is for tasks with a class, .* leave it out"),
    (dict(key=-1), "key=-1 must be at least 0"),
    (dict(condition=np.zeros((0, 3, 16, 16, 3))), "none of them 0"),
    (dict(condition=np.full((2, 3, 16, 16, 3), np.nan)), "give floats in"),
    (dict(guidance=np.nan), "guidance=nan must be at least -1 and finite"),
  ],
)
def test_what_cannot_be_rolled_is_refused(generator, arguments, message):
  condition = np.zeros((2, 3, 16, 16, 3))
  arguments = {"condition": condition, "frames": 5, **arguments}
  with pytest.raises(ValueError, match=message):
    generator.sample_long(**{"key": 0, **arguments})


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
    (
      dict(
        task="frame_prediction", condition=np.full((2, 5, 16, 16, 3), np.nan)
      ),
      "condition has values in .nan, nan.: give floats",
    ),
    (
      dict(task="frame_prediction", condition=np.zeros((2, 5, 16, 16, 3), int)),
      "condition of type int64 must be floats",
    ),
    (dict(num=0), "num=0 must be at least 1"),
    (dict(num=1.5), "num=1.5 must be .* a whole number"),
    (dict(label=1.5), r"label=1.5 must be in 0\.\.9"),
    (dict(label="3"), r"label='3' must be in 0\.\.9, one of 'zero', .*None"),
    (dict(label=-1), r"label=-1 must be in 0\.\.9"),
    (dict(label=True), r"label=True must be in 0\.\.9"),
    (dict(label=[3, 4]), r"label=\[3, 4\] must be in 0\.\.9"),
    (dict(label=np.zeros((9, 9))), r"^label=array\(\[\[0.* 0\.\.9[^\n]*$"),
    (
      dict(label=3, task="frame_prediction"),
      "label=3 is for tasks with a class, .*'frame_prediction' has none: leave",
    ),
    (
      dict(condition=np.zeros((2, 5, 16, 16, 3))),
      r"task='class_conditional' is given no pixels, .* \['frame_prediction'",
    ),
    (dict(task=["x"]), r"task=\['x'\] must be one of \['class_conditional'"),
    (
      dict(task="frame_prediction", condition=[[0.0], [0.0, 1.0]]),
      "condition is a list of parts of several sizes",
    ),
    (dict(steps=0), "steps=0 must be at least 1"),
    (dict(guidance=np.nan), "guidance=nan must be at least -1 and finite"),
    (dict(temperature=-1.0), "temperature=-1.0 must be at least 0 and finite"),
    (dict(choice_temperature=np.inf), "choice_temperature=inf must be"),
    (dict(steps=[3]), r"steps=\[3\] must be at least 1"),
    (dict(key=-1), "key=-1 must be at least 0"),
    (dict(key=2**32), "key=4294967296 must be .* at most 4294967295"),
    (dict(key=True), "key=True must be .* a whole number"),
    (dict(key=0.5), "key=0.5 must be .* a whole number"),
    (dict(key="0"), "key='0' must be a seed, like 0, or one key, like jax"),
    (
      dict(key=jax.random.split(jax.random.key(0))),
      "^key=Array.* must be a seed, like 0, or one key, like jax",
    ),
  ],
)
def test_what_cannot_be_sampled_is_refused(generator, arguments, message):
  with pytest.raises(ValueError, match=message):
    generator.sample(**{"key": jax.random.key(0), "num": 2, **arguments})


@pytest.mark.parametrize(
  "config",
  [tiny.masked(""), tiny.autoregressive(""), tiny.masked_diffusion("")],
  ids=["masked", "autoregressive", "masked_diffusion"],
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
