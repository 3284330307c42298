"""Tests of evaluation/diagnosis/: each fault and its neighbour, on made curves.

A history is that of a healthy run in which some curves are replaced.
"""

import math

import pytest

from evaluation.diagnosis import history as history_lib
from evaluation.diagnosis import lines as diagnosis

_STEPS = range(10, 401, 10)
_BITS = 10
_TOKENIZER = {
  "algorithm": "tokenizer",
  "num_steps": 400,
  "health_every": 100,
  "dataset": {"name": "digits"},
  "quantizer": {"name": "lfq", "bits": _BITS, "entropy_temperature": 0.01},
  "discriminator": {"base_channels": 4},
  "loss": {
    "reconstruction": 50.0,
    "adversarial": 0.1,
    "gan": "non_saturating",
    "r1": 10.0,
    "entropy": 0.02,
    "commitment": 0.25,
  },
  "optimizer": {
    "peak_learning_rate": 0.002,
    "warmup_steps": 20,
    "clip_norm": 0.0,
  },
}
_GENERATOR = {
  "algorithm": "masked",
  "num_steps": 400,
  "transformer": {"factor_bits": [5, 5]},
  "optimizer": {
    "peak_learning_rate": 0.003,
    "warmup_steps": 50,
    "clip_norm": 1.0,
  },
}


# Curves of a discriminator that wins outright.
_WINNING = {
  "discriminator/adversarial": lambda _: 0.02,
  "discriminator/accuracy": lambda _: 1.0,
  "generator/adversarial": lambda _: 6.0,
}


def _falling(step):
  return 0.004 + 0.3 / step


def _bits(share, stuck=()):
  """Shares of ones of all bits: `share`, and 0 of those that are stuck."""
  return tuple(0.0 if k in stuck else share for k in range(_BITS))


_HEALTHY = {
  "generator/reconstruction": _falling,
  "generator/adversarial": lambda step: 0.7,
  "generator/gradient_norm": lambda step: 500 / step,
  "generator/codebook_entropy": lambda step: 3.2,
  "health/positive_share": lambda step: _bits(0.4),
  "health/flip_rate": lambda step: _bits(0.1),
  "health/mean_magnitude": lambda step: _bits(1.2),
  "health/pixel_low": lambda step: 0.0,
  "health/pixel_high": lambda step: 1.0,
  "health/pixel_variance": lambda step: 0.08,
  "discriminator/adversarial": lambda step: 1.35,
  "discriminator/accuracy": lambda step: 0.7,
  "discriminator/r1": lambda step: 0.002,
  "discriminator/real_logit": lambda step: 0.1,
  "discriminator/fake_logit": lambda step: -0.1,
  "learning_rate": lambda step: 0.002 * (1 - step / 500),
}
_HEALTHY_GENERATOR = {
  "loss": lambda step: 1.5 + 40 / step,
  "gradient_norm": lambda step: 1.0,
  "learning_rate": lambda step: 0.003,
}


def _curves(functions, steps=_STEPS):
  return {
    name: {step: function(step) for step in steps}
    for name, function in functions.items()
  }


def _with(config, fields):
  """The config with {"section.name": value} replaced."""
  copy = {k: dict(v) if isinstance(v, dict) else v for k, v in config.items()}
  for path, value in fields.items():
    *section, name = path.split(".")
    (copy[section[0]] if section else copy)[name] = value
  return copy


def _say(changes=None, fields=None, steps=_STEPS):
  """The lines on a tokenizer, healthy but for these curves and fields."""
  metrics = _curves({**_HEALTHY, **(changes or {})}, steps)
  return diagnosis.lines(metrics, _with(_TOKENIZER, fields or {}))


def _say_of_generator(changes=None):
  metrics = _curves({**_HEALTHY_GENERATOR, **(changes or {})})
  return diagnosis.lines(metrics, _GENERATOR)


def _from(first, before, after):
  """A curve that is `after` from a step on."""
  return lambda step: after if step >= first else before


_LOWER = "lower optimizer.peak_learning_rate from 0.002, or set"
_CLIP = f"{_LOWER} optimizer.clip_norm to 1"


@pytest.mark.parametrize(
  "changes, fields, expected",
  [
    (
      {"health/positive_share": lambda s: _bits(0.4, (2, 7) * (s >= 150))},
      {},
      "codebook: 2 of 10 bits stuck since step 150 (2, 7): raise loss.entropy"
      " from 0.02, or quantizer.entropy_temperature from 0.01",
    ),
    (
      {"health/positive_share": lambda _: _bits(0.4, range(9))},
      {"loss.entropy": 0.0},
      "codebook: 9 of 10 bits stuck since step 10 (0, 1, 2, 3, 4, 5, 6, 7,"
      " ...): raise loss.entropy from 0",
    ),
    (
      {"health/positive_share": lambda _: _bits(1.0)},
      {"quantizer.name": "bsq"},
      "codebook: 10 of 10 bits stuck since step 10 (0, 1, 2, 3, 4, 5, 6, 7,"
      " ...): raise loss.entropy from 0.02, or quantizer.entropy_temperature"
      " from 0.01",
    ),
    (
      {"generator/codebook_entropy": lambda _: 1.2},
      {},
      "codebook: its entropy is 1.7 of 10.0 bits at step 400: raise"
      " loss.entropy from 0.02, or quantizer.entropy_temperature from 0.01",
    ),
    (
      {"generator/codebook_entropy": lambda _: 2.1},
      {"loss.entropy": 0.0},
      "codebook: its entropy is 3.0 of 10.0 bits at step 400: raise"
      " loss.entropy from 0",
    ),
    (
      {"generator/codebook_entropy": lambda _: 1.2},
      {"quantizer": {"name": "vq", "codebook_size": 1024}},
      "codebook: its entropy is 1.7 of 10.0 bits at step 400: set"
      " codebook_from_data, or raise loss.entropy from 0.02",
    ),
    (
      {"generator/codebook_entropy": lambda _: 1.2},
      {"quantizer": {"name": "fsq", "levels": [8, 8, 16]}},
      f"codebook: its entropy is 1.7 of 10.0 bits at step 400: {_CLIP}",
    ),
    (
      {"health/channel_std": lambda _: (3.0, 0.02, 0.5, 0.0)},
      {"quantizer": {"name": "none", "embedding_dim": 4}},
      "codebook: 2 of 4 channels of the latents do not vary at step 400 (1, 3):"
      f" {_CLIP}",
    ),
    (
      {"health/flip_rate": lambda _: _bits(0.5)},
      {},
      "codebook: 50% of the bits of a clip flip within 100 steps at step 400:"
      f" raise loss.commitment from 0.25, or {_CLIP}",
    ),
    (
      {"health/mean_magnitude": lambda _: (*_bits(1.0)[1:], 9.0)},
      {},
      "codebook: latents of bit 9 are 9 from 0 at step 400, and their codes 1:"
      f" raise loss.commitment from 0.25, or {_CLIP}",
    ),
    (
      {"generator/reconstruction": _from(250, 0.01, 0.03)},
      {},
      "learning: generator/reconstruction is 0.03 at step 400, and was 0.01"
      f" about step 160: {_CLIP}",
    ),
    (
      {"generator/reconstruction": lambda _: 0.08},
      {"optimizer.clip_norm": 1.0},
      "learning: the reconstruction's error is 0.08 at step 400, and one colour"
      " all over has 0.08: lower optimizer.peak_learning_rate from 0.002, or"
      " raise loss.reconstruction from 50",
    ),
    (
      {"generator/reconstruction": lambda _: 223.0},
      {},
      "learning: the reconstruction's error is 223 at step 400, and one colour"
      f" all over has 0.08: {_CLIP}",
    ),
    (
      {"generator/gradient_norm": _from(300, 4.0, 400.0)},
      {},
      "gradients: generator/gradient_norm is 400 at step 400, and was 4 about"
      f" step 160: {_CLIP}",
    ),
    (
      {
        "discriminator/adversarial": _from(200, 1.35, 0.02),
        "discriminator/accuracy": _from(200, 0.7, 1.0),
        "generator/adversarial": _from(200, 0.7, 6.0),
      },
      {},
      "discriminator: right on 100% of clips with a loss of 0.02 since step"
      " 200, and the GAN is 71% of the generator's loss: raise loss.r1 from 10,"
      " lower loss.adversarial from 0.1 or lower discriminator.base_channels"
      " from 4",
    ),
    (
      {
        "discriminator/adversarial": _from(200, 1.35, 0.02),
        "discriminator/accuracy": _from(200, 0.7, 1.0),
        "generator/reconstruction": _from(200, 0.01, 0.015),
      },
      {},
      "discriminator: right on 100% of clips with a loss of 0.02 since step"
      " 200, and the GAN is 9% of the generator's loss, and the"
      " reconstruction's error rises to 0.015: raise loss.r1 from 10, lower"
      " loss.adversarial from 0.1 or lower discriminator.base_channels from 4",
    ),
    (
      {"discriminator/fake_logit": lambda _: -80.5},
      {},
      "discriminator: its logits are 0.1 on real clips and -80.5 on others at"
      " step 400: raise loss.r1 from 10, lower loss.adversarial from 0.1 or"
      " lower discriminator.base_channels from 4",
    ),
    (
      {"discriminator/r1": lambda _: 1.5},
      {"loss.r1": 0.0},
      "discriminator: too steep, with an R1 of 1.5 at step 400, which the usual"
      " weight of 10 makes 15 against a loss of 1.39: raise loss.r1 from 0,"
      " lower loss.adversarial from 0.1 or lower discriminator.base_channels"
      " from 4",
    ),
    (
      {"discriminator/r1": lambda s: 24.0 * (s % 20 == 0)},
      {"loss.r1_interval": 16, "loss.gan": "hinge", "loss.r1": 1.0},
      "discriminator: too steep, with an R1 of 1.5 at step 400, which the usual"
      " weight of 10 makes 15 against a loss of 2.00: raise loss.r1 from 1,"
      " lower loss.adversarial from 0.1 or lower discriminator.base_channels"
      " from 4",
    ),
    (
      {"health/pixel_low": _from(30, 0.0, -1.0)},
      {},
      "inputs: pixels reach from -1 to 1 since step 30, expected [0, 1]: give"
      " clips as uint8, or as floats in [0, 1], from dataset.name=digits",
    ),
    (
      {"health/pixel_high": lambda _: 255.0},
      {},
      "inputs: pixels reach from 0 to 255 since step 10, expected [0, 1]: give"
      " clips as uint8, or as floats in [0, 1], from dataset.name=digits",
    ),
    (
      {"health/pixel_high": lambda _: 1 / 255},
      {},
      "inputs: pixels reach from 0 to 0.00392 in all 40 rows, which is black:"
      " look whether dataset.name=digits divides by 255 twice, or reads the"
      " wrong clips",
    ),
    (
      {
        "learning_rate": lambda _: 0.0,
        "generator/reconstruction": lambda _: 0.4,
      },
      {"optimizer.peak_learning_rate": 0.0},
      "learning rate: 0 in all 40 rows up to step 400, so that no weight"
      " changes: raise optimizer.peak_learning_rate from 0",
    ),
    (
      {"generator/adversarial": _from(400, 0.7, math.nan)},
      {},
      f"values: generator/adversarial not finite since step 400: {_CLIP}",
    ),
    (
      {"health/flip_rate": _from(390, _bits(0.1), _bits(math.inf))},
      {},
      f"values: health/flip_rate not finite since step 390: {_CLIP}",
    ),
  ],
)
def test_a_fault_is_one_line(changes, fields, expected):
  assert _say(changes, fields) == [expected]


@pytest.mark.parametrize(
  "changes, fields",
  [
    ({}, {}),
    # One bit of ten sleeps, and one is rare, as in healthy digits.
    ({"health/positive_share": lambda _: _bits(0.4, (1,))}, {}),
    ({"health/positive_share": lambda _: (*_bits(0.4)[2:], 0.003, 0.997)}, {}),
    ({"health/positive_share": lambda s: _bits(0.4, (2, 7) * (s < 390))}, {}),
    # Channels of "vq" are no bits.
    (
      {"health/positive_share": lambda _: _bits(0.4, range(9))},
      {"quantizer": {"name": "vq", "codebook_size": 1024}},
    ),
    # Without codes there is no entropy, and channels vary as they like.
    (
      {
        "generator/codebook_entropy": lambda _: 0.0,
        "health/channel_std": lambda _: (3.0, 0.1, 0.5, 0.1),
      },
      {"quantizer": {"name": "none", "embedding_dim": 4}},
    ),
    ({"generator/codebook_entropy": lambda _: 2.1}, {}),
    ({"generator/codebook_entropy": lambda _: 3.6}, {"loss.entropy": 0.0}),
    (
      {"generator/codebook_entropy": lambda _: 2.1},
      {
        "quantizer": {"name": "vq", "codebook_size": 1024},
        "loss.entropy": 0.0,
      },
    ),
    # Bits that flip while the learning rate is at its peak.
    (
      {
        "health/flip_rate": lambda _: _bits(0.5),
        "learning_rate": lambda _: 0.002,
      },
      {},
    ),
    ({"health/mean_magnitude": lambda _: _bits(1.9)}, {}),
    # A spike, and noise.
    ({"generator/reconstruction": lambda s: 0.3 if s == 390 else 0.01}, {}),
    ({"generator/reconstruction": lambda s: (0.01, 0.018)[s // 10 % 2]}, {}),
    # Clips of a film differ more from each other than the error falls.
    ({"generator/reconstruction": lambda s: 0.01 * (1 + s // 10 % 7)}, {}),
    ({"generator/gradient_norm": lambda s: 400.0 if s == 390 else 4.0}, {}),
    # Right, but by a hair, as in healthy digits.
    ({"discriminator/accuracy": lambda _: 1.0}, {}),
    # A discriminator that wins without a weight, as in the rows of a film.
    (_WINNING, {"loss.adversarial": 0.001}),
    # One that has a start before the generator.
    (_WINNING, {"loss.adversarial_start": 400}),
    # One that the generator hears no more.
    (_WINNING, {"loss.pixel_share": 0.25}),
    ({"discriminator/fake_logit": lambda _: -9.0}, {}),
    ({"discriminator/r1": lambda _: 0.05}, {}),
    (
      {"discriminator/r1": lambda s: 1.5 * (s % 20 == 0)},
      {"loss.r1_interval": 16},
    ),
    # A dark film, a rounded float, and the first step of a warm-up.
    ({"health/pixel_high": lambda s: 0.2 if s == 50 else 0.05}, {}),
    ({"health/pixel_high": lambda _: 1.0000002}, {}),
    ({"learning_rate": lambda s: 0.0 if s == 10 else 1e-7}, {}),
  ],
)
def test_neighbours_of_faults_are_nothing_unusual(changes, fields):
  (line,) = _say(changes, fields)
  assert line == (
    "health: nothing unusual up to step 400 (values, inputs, learning rate,"
    " learning, gradients, codebook, discriminator)"
  )


@pytest.mark.parametrize(
  "changes, expected",
  [
    (
      {"loss": lambda _: 6.9},
      "learning: the loss is 6.9 at step 400, and a uniform draw of 2^10 tokens"
      " has 6.93: lower optimizer.peak_learning_rate from 0.003",
    ),
    (
      {"loss": _from(250, 1.5, 4.0)},
      "learning: loss is 4 at step 400, and was 1.5 about step 190: lower"
      " optimizer.peak_learning_rate from 0.003",
    ),
    (
      {"gradient_norm": _from(300, 1.0, 30.0)},
      "gradients: gradient_norm is 30 at step 400, and was 1 about step 190:"
      " lower optimizer.peak_learning_rate from 0.003",
    ),
    (
      {"loss": lambda s: (1.0, 1.9)[s // 10 % 2]},
      "health: nothing unusual up to step 400 (values, learning rate,"
      " learning, gradients)",
    ),
  ],
)
def test_generators_have_signs_of_their_own(changes, expected):
  assert _say_of_generator(changes) == [expected]


def test_held_out_clips_that_get_worse_alone_are_learned_by_heart():
  psnr = {100: 20.0, 200: 24.1, 300: 23.9, 400: 22.5}
  metrics = {**_curves(_HEALTHY), "eval/held_out_reconstruction/psnr": psnr}
  expected = (
    "held out: PSNR fell from 24.1 dB at step 200 to 22.5 dB at step 400, while"
    " that of training clips did not: train on more clips, or lower num_steps"
    " from 400"
  )
  assert diagnosis.lines(metrics, _TOKENIZER) == [expected]
  psnr[400] = 23.4
  (line,) = diagnosis.lines(metrics, _TOKENIZER)
  assert line.startswith("health: nothing unusual")
  assert line.endswith("discriminator, held out)")


def test_what_any_start_shows_is_not_read_from_a_start():
  broken = {
    "health/positive_share": lambda _: _bits(0.4, range(9)),
    "generator/reconstruction": lambda _: 0.08,
    "generator/codebook_entropy": lambda _: 0.1,
  }
  (line,) = _say(broken, steps=range(10, 111, 10))
  assert line == (
    "health: nothing unusual up to step 110 (values, inputs, learning rate);"
    " other signs are read from step 120 on"
  )
  # Not even from the first two rows behind it.
  (line,) = _say(broken, steps=range(10, 131, 10))
  assert line.startswith("health: nothing unusual up to step 130 (values")
  assert len(_say(broken, steps=range(10, 141, 10))) == 2


def test_wrong_clips_are_seen_at_the_first_row():
  (line,) = _say({"health/pixel_low": lambda _: -1.0}, steps=[1])
  assert line.startswith("inputs: pixels reach from -1 to 1 since step 1")


def test_the_nearest_to_the_root_is_the_first_line():
  changes = {
    "health/positive_share": lambda _: _bits(0.4, range(9)),
    "health/pixel_low": lambda _: -1.0,
  }
  first, second = _say(changes)
  assert first.startswith("inputs: ") and second.startswith("codebook: ")


def test_metrics_of_earlier_versions_and_others_configs_are_read():
  assert diagnosis.lines({}, {}) == []
  assert diagnosis.lines({"loss": {}}, {}) == []
  (line,) = diagnosis.lines(_curves({"reconstruction": _falling}), {})
  assert line == "health: nothing unusual up to step 400 (values)"
  (line,) = diagnosis.lines(_curves({"loss": lambda _: math.inf}), {})
  assert line == (
    "values: loss not finite since step 10: lower"
    " optimizer.peak_learning_rate, or set optimizer.clip_norm to 1"
  )
  # A sum that is negative, as generator/loss is with an entropy in it.
  (line,) = diagnosis.lines(_curves({"loss": lambda s: s / 200 - 4}), {})
  assert line.startswith("health: nothing unusual")
  # A config of something else: a section that is no section.
  (line,) = diagnosis.lines(_curves(_HEALTHY), {"loss": 3, "quantizer": "lfq"})
  assert line.startswith("health: nothing unusual")


def test_each_check_names_a_metric_that_a_healthy_run_has():
  names = {
    *_HEALTHY,
    *_HEALTHY_GENERATOR,
    "health/channel_std",  # a tokenizer without codes has it
    "eval/held_out_reconstruction/psnr",
  }
  for check in diagnosis.CHECKS:
    assert set(check.needs) <= names


def test_late_rows_are_few_and_after_the_start():
  curve = {step: float(step) for step in range(10, 1001, 10)}
  config = {"optimizer": {"warmup_steps": 20}}
  history = history_lib.History({"loss": curve}, config)
  assert history.late("loss").steps[0] == 810  # the last fifth
  assert history.level("loss") == 905.0
  assert history.judged_from == 120
  assert history.level("missing") is None
