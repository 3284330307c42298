"""Algorithm: the tokenizer, trained as a GAN (arXiv 2310.05737, section 3).

Generator and discriminator are updated together from one forward pass, as in
Google's code: one vector-Jacobian product with cotangent (1, 0) gives the
generator's gradient, one with (0, 1) the discriminator's.
"""

from collections.abc import Callable

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import optax

from magvit import checkpoint
from magvit import inflation
from magvit import losses
from magvit import optimizer
from magvit import state as state_lib
from magvit.state import TrainState
from models import discriminators
from models import network
from models import perceptual
from models import tokenizer


def build(config: ml_collections.ConfigDict, mesh: Mesh) -> state_lib.Algorithm:
  """Checks the config, describes the networks; allocates nothing large.

  Raises:
    ValueError: a clip the strides reject, missing perceptual weights, or an
      image tokenizer that cannot be inflated into this one.
  """
  c = config
  generator = define_tokenizer(c)
  video_shape = clip_shape(c)
  tokenizer.latent_shape(video_shape, *strides(c))
  discriminator = network.define(
    lambda rngs: discriminators.Discriminator(
      video_shape, **c.discriminator, rngs=rngs
    )
  )
  frozen, distance = {}, None
  if c.loss.perceptual_network != "off":
    distance, frozen["perceptual"] = perceptual.load(
      c.loss.perceptual_network, c.loss.perceptual_weights
    )
  optimizers = {
    name: optimizer.make_optimizer(c.optimizer, c.num_steps)
    for name in ("generator", "discriminator")
  }

  def init(key: jax.Array) -> TrainState:
    keys = jax.random.split(key)
    params = {
      "generator": generator.init(keys[0]),
      "discriminator": discriminator.init(keys[1]),
    }
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state={k: optimizers[k].init(p) for k, p in params.items()},
      ema={"generator": state_lib.copy(params["generator"])},
      extras={"lecam_real": jnp.zeros(()), "lecam_fake": jnp.zeros(())},
      frozen={},
    )

  def step(state: TrainState, batch, key: jax.Array):
    del key  # nothing in this step is random
    video = tokenizer.to_float(batch["video"])
    entropy_weight = losses.entropy_weight(
      state.step,
      c.loss.entropy,
      c.loss.entropy_start_factor,
      c.loss.entropy_annealing_steps,
    )

    def both_losses(g_params, d_params):
      output, quantized = generator(g_params, video)
      real_logits, r1 = losses.logits_and_r1(
        lambda x: discriminator(d_params, x), video
      )
      fake_logits = discriminator(d_params, output)
      # The anchors are updated before they are used (praxis).
      anchor = lambda old, logits: (
        c.loss.lecam_decay * old
        + (1.0 - c.loss.lecam_decay) * lax.stop_gradient(logits.mean())
      )
      extras = {
        "lecam_real": anchor(state.extras["lecam_real"], real_logits),
        "lecam_fake": anchor(state.extras["lecam_fake"], fake_logits),
      }
      terms = {
        "reconstruction": losses.reconstruction(video, output),
        "adversarial": losses.generator_adversarial(fake_logits),
        "commitment": quantized.commitment,
        "entropy": quantized.sample_entropy - quantized.batch_entropy,
      }
      weights = {
        "reconstruction": c.loss.reconstruction,
        "adversarial": c.loss.adversarial,
        "commitment": c.loss.commitment,
        "entropy": entropy_weight,
      }
      if distance is not None:
        terms["perceptual"] = losses.perceptual(
          lambda x, y: distance(state.frozen["perceptual"], x, y), video, output
        )
        weights["perceptual"] = c.loss.perceptual
      g_loss = sum(weights[k] * terms[k] for k in terms)
      d_adversarial = losses.discriminator_adversarial(real_logits, fake_logits)
      lecam = losses.lecam(
        real_logits, fake_logits, extras["lecam_real"], extras["lecam_fake"]
      )
      d_loss = d_adversarial + c.loss.r1 * r1 + c.loss.lecam * lecam
      metrics = {
        "generator/loss": g_loss,
        **{f"generator/{k}": v for k, v in terms.items()},
        "generator/entropy_weight": entropy_weight,
        "generator/sample_entropy": quantized.sample_entropy,
        "generator/codebook_entropy": quantized.codebook_entropy,
        "discriminator/loss": d_loss,
        "discriminator/adversarial": d_adversarial,
        "discriminator/r1": r1,
        "discriminator/lecam": lecam,
        "discriminator/real_logit": real_logits.mean(),
        "discriminator/fake_logit": fake_logits.mean(),
      }
      return (g_loss, d_loss), (extras, metrics)

    _, pullback, (extras, metrics) = jax.vjp(
      both_losses,
      state.params["generator"],
      state.params["discriminator"],
      has_aux=True,
    )
    gradients = {
      "generator": pullback((1.0, 0.0))[0],
      "discriminator": pullback((0.0, 1.0))[1],
    }
    params, opt_state = {}, {}
    for name, gradient in gradients.items():
      metrics[f"{name}/gradient_norm"] = optax.tree.norm(gradient)
      updates, opt_state[name] = optimizers[name].update(
        gradient, state.opt_state[name], state.params[name]
      )
      params[name] = optax.apply_updates(state.params[name], updates)
    ema = state_lib.update_ema(
      state.ema["generator"], params["generator"], c.ema_decay
    )
    state = state.replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema={"generator": ema},
      extras=extras,
    )
    return state, metrics

  return state_lib.Algorithm(
    init=init,
    step=step,
    predict=predict_functions(generator),
    frozen=frozen,
    warm_start=_warm_start(c, mesh),
  )


def define_tokenizer(config: ml_collections.ConfigDict) -> network.Network:
  return network.define(
    lambda rngs: tokenizer.Tokenizer(**config.tokenizer, rngs=rngs)
  )


def clip_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int]:
  """(T, H, W) of the config's clips."""
  return (config.dataset.frames, config.dataset.size, config.dataset.size)


def strides(config: ml_collections.ConfigDict) -> tuple[int, int]:
  """(time, space): pixels per latent along each axis."""
  halvings = config.tokenizer.temporal_downsample
  return 2 ** sum(halvings), 2 ** len(halvings)


def predict_functions(generator: network.Network) -> dict[str, Callable]:
  """`params["generator"]` holds the weights; videos come out in [0, 1]."""

  def reconstruct(params, batch, key):
    """{"video"} -> {"video": float32 (B, T, H, W, 3), "ids", entropies}."""
    del key
    video = tokenizer.to_float(batch["video"])
    output, quantized = generator(params["generator"], video)
    return {
      "video": jnp.clip(output, 0.0, 1.0),
      "ids": quantized.ids,
      "sample_entropy": quantized.sample_entropy,
      "codebook_entropy": quantized.codebook_entropy,
    }

  def encode(params, batch, key):
    """{"video"} -> int32 (B, t, h, w)."""
    del key
    video = tokenizer.to_float(batch["video"])
    return generator(params["generator"], video, method="encode")

  def decode(params, batch, key):
    """{"ids"} -> float32 (B, T, H, W, 3)."""
    del key
    video = generator(params["generator"], batch["ids"], method="decode")
    return jnp.clip(video, 0.0, 1.0)

  return {"reconstruct": reconstruct, "encode": encode, "decode": decode}


def restore_generator(workdir: str, mesh: Mesh):
  """(network, weights) of the tokenizer trained in a workdir."""
  generator = define_tokenizer(checkpoint.read_config(workdir))
  abstract = jax.eval_shape(generator.init, jax.random.key(0))
  part = {"ema": {"generator": abstract}}
  restored = checkpoint.restore_part(workdir, part, mesh)
  return generator, restored["ema"]["generator"]


def _warm_start(config, mesh):
  """Inflation of an image tokenizer, where the config asks for it."""
  if not config.inflate_from:
    return None
  source = checkpoint.read_config(config.inflate_from)
  inflation.check_compatible(source, config)
  checkpoint.latest_step(config.inflate_from)

  def warm_start(state: TrainState) -> TrainState:
    _, image = restore_generator(config.inflate_from, mesh)
    video = inflation.inflate(image, state.params["generator"])
    return state.replace(
      params={**state.params, "generator": video},
      ema={"generator": state_lib.copy(video)},
    )

  return warm_start
