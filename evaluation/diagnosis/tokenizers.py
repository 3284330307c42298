"""Signs of tokenizers: clips, reconstruction, codebook, discriminator."""

import math

import numpy as np

from evaluation.diagnosis import any_run
from evaluation.diagnosis.any_run import from_now
from evaluation.diagnosis.history import LEAST_ROWS
from evaluation.diagnosis.history import Finding
from evaluation.diagnosis.history import History
from evaluation.diagnosis.history import number

# Rounding of clips that a float map has brought to [0, 1].
_PIXEL_SLACK = 1 / 255
# No logged batch with a brighter pixel: no film is that dark for long, and
# uint8 divided by 255 twice ends at 0.004.
_DARKEST = 0.1
# Share of the variance that one colour leaves; healthy runs have less than a
# third of it left 100 steps after the warm-up.
_NO_BETTER = 0.9
# Above this multiple of the variance the output is no grey, but has diverged.
_FAR_WORSE = 2.0
# A bit is stuck when less than one token in a thousand has its other value: the
# rarest bit of healthy digits has 1 in 300, and such a bit says something.
_STUCK_SHARE = 0.001
# Share of the bits that may be stuck. One sleeps in healthy runs, as in
# `overfit`, which reaches 28.6 dB with 17 of 18.
_STUCK_BITS = 0.1
# Entropy per bit of the vocabulary: the digits, most of which is black, use
# 0.45, and `overfit`, one clip of 1,280 tokens, 0.44.
_LEAST_ENTROPY = 0.25
# The same where nothing holds the bits apart because loss.entropy is 0: digits
# of 150 steps then use 0.30 against 0.37, too little to tell without the field.
_LEAST_WITHOUT_LOSS = 0.5
# Share of signs that flip between two looks; drawn at random it is a half. The
# rate has to have fallen, because at its peak healthy codes move as much.
_FLIPS = 0.4
_FALLEN_RATE = 0.5
# A channel of latents without codes that varies by less than this share of the
# largest says nothing, as in magvit/tokenizer/health.py.
_DEAD_CHANNEL = 0.01
# Codes of LFQ are -1 and 1; healthy latents stay within 2 of 0.
_FARTHEST = 5.0
# The discriminator's loss as a share of that of a coin. Healthy ones are at 0.8
# or more, those that win for good at 0.1 and less.
_WINNING_LOSS = 0.25
_COIN = {"hinge": 2.0}  # its loss at logits of 0, by loss.gan
_COIN_DEFAULT = 2 * math.log(2)
# Where the discriminator wins, the GAN's part of the generator's loss above
# which its gradient, which says the same whatever the output, sets the course.
_LARGE_PART = 0.15
# What the reconstruction may rise by above its least while it wins.
_RISEN = 1.3
# The papers' loss.r1. With it the penalty of healthy discriminators is below a
# tenth of a coin's loss; one that outweighs the whole loss would not be there.
_USUAL_R1 = 10.0
# Logits of healthy discriminators stay within 10; beyond, softplus is a line
# whose slope has no more information.
_LARGEST_LOGIT = 50.0


def find_wrong_pixels(history: History) -> Finding | None:
  """Clips that are not in [0, 1]."""
  low, high = (history.curve(f"health/pixel_{x}") for x in ("low", "high"))
  if not len(low) or not len(high):
    return None
  least, largest = low.values.min(), high.values.max()
  wrong = (low.values < -_PIXEL_SLACK) | (high.values > 1 + _PIXEL_SLACK)
  reaches = f"pixels reach from {number(least)} to {number(largest)}"
  if wrong.any():
    return Finding(
      "inputs",
      f"{reaches} since step {low.steps[wrong.argmax()]:,}, expected [0, 1]",
      f"give clips as uint8, or as floats in [0, 1], from {_source(history)}",
    )
  if largest <= _DARKEST:
    return Finding(
      "inputs",
      f"{reaches} in all {len(high)} rows, which is black",
      f"look whether {_source(history)} divides by 255 twice, or reads the"
      " wrong clips",
    )
  return None


def _source(history: History) -> str:
  name = history.field("dataset.name")
  return "the pipeline" if name is None else f"dataset.name={name}"


def find_one_colour(history: History) -> Finding | None:
  """Reconstructions that are no closer than one colour would be."""
  error = history.level("generator/reconstruction")
  variance = history.level("health/pixel_variance")
  if error is None or variance is None or error < _NO_BETTER * variance:
    return None
  if any_run.find_no_learning_rate(history):
    return None  # which explains it
  remedy = any_run.lower_rate(history)
  if error < _FAR_WORSE * variance:
    remedy += f", or raise {from_now(history, 'loss.reconstruction')}"
  return Finding(
    "learning",
    f"the reconstruction's error is {number(error)} at step"
    f" {history.last_step:,}, and one colour all over has {number(variance)}",
    remedy,
  )


def find_rising_reconstruction(history: History) -> Finding | None:
  return any_run.find_rising_loss(history, "generator/reconstruction")


def find_rising_gradients(history: History) -> Finding | None:
  return any_run.find_rising_gradients(history, "generator/gradient_norm")


def find_stuck_bits(history: History) -> Finding | None:
  """Bits that have one value."""
  late = history.late("health/positive_share")
  if not _has_bits(history) or not len(late):
    return None
  rare = lambda values: np.minimum(values, 1 - values)
  stuck = rare(late.values).mean(0) < _STUCK_SHARE
  count = int(stuck.sum())
  if count <= _STUCK_BITS * len(stuck):
    return None
  whole = history.curve("health/positive_share")
  since = whole.since((rare(whole.values)[:, stuck] < _STUCK_SHARE).all(-1))
  which = np.flatnonzero(stuck).tolist()
  shown = ", ".join(map(str, which[:8])) + (", ..." if count > 8 else "")
  return Finding(
    "codebook",
    f"{count} of {len(stuck)} bits stuck since step {since:,} ({shown})",
    _more_entropy(history),
  )


def find_little_entropy(history: History) -> Finding | None:
  """A codebook of which little is used although no bit is stuck."""
  entropy = history.level("generator/codebook_entropy")
  vocabulary = _vocabulary_bits(history)
  if entropy is None or vocabulary is None:
    return None
  bits = entropy / math.log(2)
  least = _LEAST_ENTROPY
  if _has_bits(history) and history.field("loss.entropy") == 0:
    least = _LEAST_WITHOUT_LOSS
  if bits >= least * vocabulary or find_stuck_bits(history):
    return None
  return Finding(
    "codebook",
    f"its entropy is {bits:.1f} of {vocabulary:.1f} bits at step"
    f" {history.last_step:,}",
    _more_entropy(history),
  )


def _more_entropy(history: History) -> str:
  """The remedy for codes that are not used, by the quantizer's fields."""
  name = history.field("quantizer.name")
  if name == "fsq":  # its entropy has no gradient
    return any_run.lower_rate(history)
  remedy = f"raise {from_now(history, 'loss.entropy')}"
  if name == "vq":
    return f"set codebook_from_data, or {remedy}"
  if history.field("loss.entropy") == 0:  # then the temperature acts on nothing
    return remedy
  temperature = from_now(history, "quantizer.entropy_temperature")
  return f"{remedy}, or {temperature}"


def _closer_latents(history: History) -> str:
  nearer = f"raise {from_now(history, 'loss.commitment')}"
  return f"{nearer}, or {any_run.lower_rate(history)}"


def find_flipping_bits(history: History) -> Finding | None:
  """Bits that still change at random when the learning rate has fallen."""
  late, rate = history.late("health/flip_rate"), history.level("learning_rate")
  peak = history.field("optimizer.peak_learning_rate")
  if not _has_bits(history) or rate is None or not peak or not len(late):
    return None
  share = float(np.median(late.values.mean(-1)))
  if share < _FLIPS or rate > _FALLEN_RATE * peak:
    return None
  return Finding(
    "codebook",
    f"{share:.0%} of the bits of a clip flip within"
    f" {number(history.field('health_every', 0))} steps at step"
    f" {history.last_step:,}",
    _closer_latents(history),
  )


def find_far_latents(history: History) -> Finding | None:
  """Latents that drift away from the codes -1 and 1."""
  late = history.late("health/mean_magnitude")
  if history.field("quantizer.name") != "lfq" or not len(late):
    return None
  size_K = np.median(late.values, 0)
  if size_K.max() <= _FARTHEST:
    return None
  return Finding(
    "codebook",
    f"latents of bit {size_K.argmax()} are {number(size_K.max())} from 0 at"
    f" step {history.last_step:,}, and their codes 1",
    _closer_latents(history),
  )


def find_dead_channels(history: History) -> Finding | None:
  """Channels that do not vary, of latents without a quantizer."""
  late = history.late("health/channel_std")
  if history.field("quantizer.name") != "none" or not len(late):
    return None
  size_K = np.median(late.values, 0)
  dead = size_K <= _DEAD_CHANNEL * size_K.max()
  if not dead.any():
    return None
  which = ", ".join(map(str, np.flatnonzero(dead).tolist()[:8]))
  return Finding(
    "codebook",
    f"{int(dead.sum())} of {len(dead)} channels of the latents do not vary at"
    f" step {history.last_step:,} ({which})",
    any_run.lower_rate(history),
  )


def find_strong_discriminator(history: History) -> Finding | None:
  """A discriminator that always wins, and that the generator feels."""
  loss, accuracy, part = (
    history.level("discriminator/adversarial"),
    history.level("discriminator/accuracy"),
    _adversarial_part(history),
  )
  if loss is None or accuracy is None or part is None:
    return None
  coin = _COIN.get(history.field("loss.gan"), _COIN_DEFAULT)
  error = history.level("generator/reconstruction")
  best = history.best("generator/reconstruction")
  if error is None or best is None:
    return None
  rises = error > _RISEN * best[1]
  if loss > _WINNING_LOSS * coin or (part < _LARGE_PART and not rises):
    return None
  curve = history.curve("discriminator/adversarial")
  since = curve.since(curve.values < _WINNING_LOSS * coin)
  effect = f"the GAN is {part:.0%} of the generator's loss"
  if rises:
    effect += f", and the reconstruction's error rises to {number(error)}"
  return Finding(
    "discriminator",
    f"right on {accuracy:.0%} of clips with a loss of {number(loss)} since step"
    f" {since:,}, and {effect}",
    _weaker_discriminator(history),
  )


def find_steep_discriminator(history: History) -> Finding | None:
  """A discriminator whose logits change too much with the pixels."""
  values = history.late("discriminator/r1").values
  # Between the steps of a lazy R1 it is 0, and at them as many times as large.
  values = values[values > 0] / history.field("loss.r1_interval", 1)
  if len(values) < LEAST_ROWS:
    return None
  r1 = float(np.median(values))
  coin = _COIN.get(history.field("loss.gan"), _COIN_DEFAULT)
  if _USUAL_R1 * r1 <= coin:
    return None
  return Finding(
    "discriminator",
    f"too steep, with an R1 of {number(r1)} at step {history.last_step:,},"
    f" which the usual weight of {_USUAL_R1:g} makes {number(_USUAL_R1 * r1)}"
    f" against a loss of {coin:.2f}",
    _weaker_discriminator(history),
  )


def _adversarial_part(history: History) -> float | None:
  """The GAN's share of the losses that pull at the output; None without it."""
  first = history.field("loss.adversarial_start", 0)
  share = 1 - history.field("loss.pixel_share", 0.0)
  if not first < history.last_step <= share * history.field("num_steps", 0):
    return None
  terms = {}
  for name in ("adversarial", "reconstruction", "perceptual"):
    weight, value = (
      history.field(f"loss.{name}"),
      history.level(f"generator/{name}"),
    )
    if weight is not None and value is not None:
      terms[name] = weight * abs(value)
  if "adversarial" not in terms or len(terms) < 2:
    return None
  return terms["adversarial"] / max(sum(terms.values()), 1e-12)


def find_large_logits(history: History) -> Finding | None:
  """Logits of a discriminator that has run away."""
  real = history.level("discriminator/real_logit")
  fake = history.level("discriminator/fake_logit")
  if real is None or fake is None:
    return None
  if max(abs(real), abs(fake)) <= _LARGEST_LOGIT:
    return None
  return Finding(
    "discriminator",
    f"its logits are {number(real)} on real clips and {number(fake)} on others"
    f" at step {history.last_step:,}",
    _weaker_discriminator(history),
  )


def _weaker_discriminator(history: History) -> str:
  remedies = {
    "loss.r1": "raise",
    "loss.adversarial": "lower",
    "discriminator.base_channels": "lower",
  }
  changes = [
    f"{verb} {from_now(history, name)}" for name, verb in remedies.items()
  ]
  return f"{', '.join(changes[:-1])} or {changes[-1]}"


def _has_bits(history: History) -> bool:
  """Whether the channels of a latent are the bits of an id."""
  return history.field("quantizer.name", "lfq") in ("lfq", "bsq")


def _vocabulary_bits(history: History) -> float | None:
  """Bits of the whole vocabulary; None where the config does not say."""
  name = history.field("quantizer.name")
  if name == "none":
    return None
  if name == "vq":
    return math.log2(history.field("quantizer.codebook_size"))
  if name == "fsq":
    return math.log2(math.prod(history.field("quantizer.levels")))
  return history.field("quantizer.bits")
