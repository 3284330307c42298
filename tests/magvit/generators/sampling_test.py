"""Tests of magvit/generators/sampling.py against plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from magvit.generators import sampling

_FACTORS = (4, 8)


def _model(parts_BNF, decided_BN, step):
  """Logits that depend on what is decided, different at every position."""
  known = jnp.where(decided_BN[..., None], parts_BNF + 1 + step, 0)
  mixed = known.sum((1, 2))[:, None, None] + known.sum(-1)[..., None]
  place = jnp.arange(parts_BNF.shape[1])[None, :, None]
  values = lambda v: jnp.arange(v)[None, None]
  return [
    jnp.sin(1.0 + mixed * 0.37 + place * 1.3 + values(v) * (f + 2.1))
    for f, v in enumerate(_FACTORS)
  ]


def _reference(key, condition, fixed, steps, schedule, choice, temperature):
  """Decodes in plain loops over steps, clips and tokens."""
  condition, decided = np.asarray(condition), np.array(fixed)
  parts = condition.copy()
  batch, tokens = decided.shape
  for k in range(steps):
    sample_key, choice_key = jax.random.split(jax.random.fold_in(key, k))
    current = np.where(decided[..., None], parts, condition)
    logits = _model(jnp.asarray(current), jnp.asarray(decided), k)
    log_p = [np.asarray(jax.nn.log_softmax(x)) for x in logits]
    drawn = [
      np.asarray(
        jax.random.categorical(
          jax.random.fold_in(sample_key, f), x / temperature
        )
        if temperature
        else x.argmax(-1)
      )
      for f, x in enumerate(logits)
    ]
    gumbel = np.asarray(jax.random.gumbel(choice_key, (batch, tokens)))
    progress = (k + 1) / steps
    share = float(sampling.SCHEDULES[schedule](jnp.float32(progress), tokens))
    for b in range(batch):
      confidence = np.full(tokens, np.inf)
      for n in range(tokens):
        if decided[b, n]:
          continue
        parts[b, n] = [d[b, n] for d in drawn]
        chosen = zip(log_p, parts[b, n], strict=True)
        confidence[n] = sum(p[b, n, i] for p, i in chosen)
        confidence[n] += choice * (1 - progress) * gumbel[b, n]
      undecided = int((~decided[b]).sum())
      remask = int(np.clip(np.floor(tokens * share), 1, undecided - 1))
      order = np.argsort(confidence, kind="stable")
      decided[b] = True
      decided[b, order[: max(remask, 0)]] = False
  return parts


@pytest.mark.parametrize(
  "schedule, fixed_tokens, steps, temperature",
  [(schedule, 4, 5, 1.0) for schedule in sorted(sampling.SCHEDULES)]
  + [
    ("cosine", 0, 5, 1.0),
    ("cosine", 4, 5, 0.0),
    ("cosine", 4, 5, 0.5),
    ("exp", 4, 1, 1.0),
    ("uniform", 4, 30, 1.0),  # more steps than tokens
    ("cosine", 12, 2, 1.0),  # nothing to predict
  ],
)
def test_decoding_is_the_reference_token_by_token(
  schedule, fixed_tokens, steps, temperature
):
  key = jax.random.key(3)
  condition = jax.random.randint(jax.random.key(0), (3, 12, 2), 0, 4)
  fixed = jnp.zeros((3, 12), bool).at[:, :fixed_tokens].set(True)
  settings = (condition, fixed, steps, schedule, 2.0, temperature)
  tokens = jax.jit(lambda key: sampling.decode(key, _model, *settings))(key)
  np.testing.assert_array_equal(tokens, _reference(key, *settings))
  np.testing.assert_array_equal(
    tokens[:, :fixed_tokens], condition[:, :fixed_tokens]
  )


def test_the_loop_is_one_program_with_one_prediction_per_step():
  calls = []

  def counting(parts_BNF, decided_BN, step):
    jax.debug.callback(lambda k: calls.append(int(k)), step, ordered=True)
    return _model(parts_BNF, decided_BN, step)

  decode = jax.jit(
    lambda key: sampling.decode(
      key,
      counting,
      jnp.zeros((2, 10, 2), jnp.int32),
      jnp.zeros((2, 10), bool),
      7,
      "cosine",
      1.0,
    )
  )
  first = decode(jax.random.key(0))
  jax.effects_barrier()
  assert calls == list(range(7))
  np.testing.assert_array_equal(decode(jax.random.key(0)), first)
  assert (decode(jax.random.key(1)) != first).any()
  assert decode._cache_size() == 1


def test_decided_tokens_never_change_within_a_run():
  """The model sees that a token, once decided, keeps its value."""
  seen = []

  def recording(parts_BNF, decided_BN, step):
    jax.debug.callback(
      lambda p, d: seen.append((np.array(p), np.array(d))),
      parts_BNF,
      decided_BN,
      ordered=True,
    )
    return _model(parts_BNF, decided_BN, step)

  sampling.decode(
    jax.random.key(0),
    recording,
    jnp.zeros((2, 12, 2), jnp.int32),
    jnp.zeros((2, 12), bool),
    6,
    "cosine",
    3.0,
  )
  jax.effects_barrier()
  assert len(seen) == 6
  for (before, decided), (after, decided_after) in itertools.pairwise(seen):
    assert (decided_after >= decided).all()
    assert decided_after.sum() > decided.sum()
    np.testing.assert_array_equal(after[decided], before[decided])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_confidence_is_the_models_probability_of_both_factors(temperature):
  """Brute force over all pairs of factors gives it, at any temperature."""
  logits = _model(jnp.zeros((2, 3, 2), jnp.int32), jnp.zeros((2, 3), bool), 0)
  drawn, log_p = sampling.sample_factors(jax.random.key(0), logits, temperature)
  joint = np.einsum("bni,bnj->bnij", *[jax.nn.softmax(x) for x in logits])
  np.testing.assert_allclose(joint.sum((2, 3)), 1.0, rtol=1e-5)
  for b, n in np.ndindex(2, 3):
    i, j = drawn[b, n]
    np.testing.assert_allclose(
      np.exp(log_p[b, n]), joint[b, n, i, j], rtol=1e-5
    )


def test_draws_have_the_joint_distribution_of_the_pairs():
  logits = [jnp.array([[[0.0, 1.0]]]), jnp.array([[[0.0, 1.0, -1.0]]])]
  logits = [jnp.tile(x, (4000, 1, 1)) for x in logits]
  drawn, _ = sampling.sample_factors(jax.random.key(0), logits, 2.0)
  code = np.asarray(drawn[:, 0, 0] * 3 + drawn[:, 0, 1])
  joint = np.outer(*[jax.nn.softmax(x[0, 0] / 2.0) for x in logits])
  # Standard error at most 0.5 / sqrt(4000) = 0.008.
  share = np.bincount(code, minlength=6) / 4000
  np.testing.assert_allclose(share, joint.ravel(), atol=0.03)


def test_guidance_extrapolates_from_the_unconditional_logits():
  c, u = [jnp.array([2.0, 0.0])], [jnp.array([1.0, 1.0])]
  np.testing.assert_array_equal(sampling.guide(c, u, 0.0)[0], c[0])
  np.testing.assert_array_equal(sampling.guide(c, u, 3.0)[0], [5.0, -3.0])


@pytest.mark.parametrize(
  "top_k, top_p", [(0, 1.0), (1, 1.0), (3, 1.0), (0, 0.6), (0, 1e-6), (4, 0.7)]
)
def test_truncation_is_its_definition_value_by_value(top_k, top_p):
  logits = np.array(jax.random.normal(jax.random.key(0), (5, 8))) * 2
  truncated = np.asarray(sampling.truncate(logits, top_k, top_p))
  for row, result in zip(logits, truncated, strict=True):
    order = sorted(range(8), key=lambda v: -row[v])[: top_k or 8]
    total = sum(np.exp(row[v]) for v in order)
    kept, held = set(), 0.0
    for v in order:
      if held < top_p or top_p == 1.0:
        kept.add(v)
      held += np.exp(row[v]) / total
    for v in range(8):
      assert result[v] == (row[v] if v in kept else -np.inf)


def test_truncation_keeps_ties_of_the_last_value_kept():
  logits = jnp.log(jnp.array([0.4, 0.2, 0.2, 0.2]))
  for settings in ((2, 1.0), (0, 0.5)):
    np.testing.assert_array_equal(sampling.truncate(logits, *settings), logits)
  assert np.isfinite(sampling.truncate(logits, 1, 1.0)).tolist() == [
    *[True],
    *[False] * 3,
  ]


@pytest.mark.parametrize("scale", [1.0, 4.0, 25.0])
def test_both_conventions_of_guidance_agree(scale):
  c, u = jnp.array([2.0, 0.5]), jnp.array([1.0, -1.0])
  ours = sampling.guide([c], [u], sampling.guidance_of_scale(scale))[0]
  np.testing.assert_allclose(ours, u + scale * (c - u), rtol=1e-6)


def test_the_guidance_schedules():
  def values(schedule, steps, power=1.0):
    settings = (steps, 24.0, schedule, power)
    return [float(sampling.guidance_at(k, *settings)) for k in range(steps)]

  assert values("constant", 3) == [24.0, 24.0, 24.0]
  assert values("constant", 1) == values("power_cosine", 1) == [24.0]
  # 12 (1 - cos(pi r^power)), from r = 0 in the first step to 1 in the last
  quarters = [0, 12 - 6 * 2**0.5, 12, 12 + 6 * 2**0.5, 24]
  np.testing.assert_allclose(values("power_cosine", 5), quarters, atol=1e-5)
  late = values("power_cosine", 3, power=4.0)  # 12 (1 - cos(pi / 16))
  np.testing.assert_allclose(late, [0, 0.230577, 24], atol=1e-5)
  # MDT writes it for the scale w: (w - 1) (1 - cos(pi r^4)) / 2 + 1.
  scale = 24.0 * 0.5 * (1 - np.cos(np.pi * 0.5**4)) + 1.0
  assert sampling.guidance_of_scale(scale) == pytest.approx(late[1], abs=1e-5)


@pytest.mark.parametrize(
  "field, value",
  [
    ("steps", 0),
    ("schedule", "linear"),
    ("guidance_schedule", "cosine"),
    ("completion", "greedy"),
    ("guidance_power", 0.0),
    ("temperature", -1.0),
    ("choice_temperature", -1.0),
  ],
)
def test_settings_that_cannot_work_are_refused(field, value):
  settings = base.masked().sampling
  sampling.check_settings(settings)
  settings[field] = value
  with pytest.raises(ValueError, match=f"^sampling.{field}={value!r} must"):
    sampling.check_settings(settings)
