"""Algorithm: the tokenizer, trained as a GAN (arXiv 2310.05737, section 3).

Generator and discriminator are updated together from one forward pass, as in
Google's code: one vector-Jacobian product with cotangent (1, 0) gives the
generator's gradient, one with (0, 1) the discriminator's.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import numpy as np
import optax

from input_pipeline import pipeline
from magvit import checkpoint
from magvit import health
from magvit import inflation
from magvit import losses
from magvit import optimizer
from magvit import state as state_lib
from magvit.state import TrainState
from models import clip_sizes
from models import discriminators
from models import network
from models import perceptual
from models import quantizers
from models import tokenizer

_LATENTS_PER_CODE = 4  # to choose a codebook's rows from


def build(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  distance_and_params: tuple[perceptual.Distance, Any] | None = None,
) -> state_lib.Algorithm:
  """Checks the config, describes the networks; allocates nothing large.

  With the perceptual distance given no file of weights is read, and its
  parameters may be shapes alone.

  Raises:
    ValueError: a clip the strides reject, missing perceptual weights, or an
      image tokenizer that cannot be inflated into this one.
  """
  c = config
  check_losses(c)
  generator = define_tokenizer(c)
  video_shape = clip_shape(c)
  latent_shape = sizes(c).latent(video_shape)
  codes = tokenizer.describe_quantizer(**c.quantizer)
  joint = c.dataset.joint_images > 0
  shapes = {"discriminator": video_shape}
  if joint:
    image_shape = (1, *video_shape[1:])
    sizes(c).latent(image_shape)
    # Its head depends on the clip's size, so images have their own.
    shapes["image_discriminator"] = image_shape
  discriminators_of = {
    name: define_discriminator(c, shape) for name, shape in shapes.items()
  }
  frozen, distance = {}, None
  if c.loss.perceptual_network != "off":
    distance, frozen["perceptual"] = distance_and_params or perceptual.load(
      c.loss.perceptual_network, c.loss.perceptual_weights
    )
  adam = optimizer.make_optimizer(c.optimizer, c.num_steps)

  def init(key: jax.Array) -> TrainState:
    names = ("generator", *discriminators_of)
    nets = (generator, *discriminators_of.values())
    keys = jax.random.split(key, len(names))
    params = {
      name: net.init(k) for name, net, k in zip(names, nets, keys, strict=True)
    }
    anchors = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state={k: adam.init(p) for k, p in params.items()},
      ema={"generator": state_lib.copy(params["generator"])},
      extras={
        "lecam": {name: state_lib.copy(anchors) for name in discriminators_of},
        "health": health.init(
          video_shape, latent_shape, codes.latent_channels, codes.vocabulary
        ),
      },
      frozen={},
    )

  def losses_of(g_params, d_params, discriminator, video, anchors, state):
    """(generator's loss, discriminator's, anchors, metrics, latents, ids)."""
    # Networks see microbatches; the entropy, LeCAM's anchors and all means are
    # of the whole batch.
    in_parts = lambda function: state_lib.in_parts(function, c.microbatches)
    method = lambda name: lambda x: generator(g_params, x, method=name)
    latents = in_parts(method("encode_latents"))(video)
    quantized = method("quantize")(latents)
    output = in_parts(method("decode_latents"))(quantized.z)
    discriminate = lambda x: discriminator(d_params, x)

    def logits_and_r1(video):
      logits, r1 = losses.logits_and_lazy_r1(
        discriminate, video, state.step, c.loss.r1_interval
      )
      return logits, jnp.broadcast_to(r1, logits.shape)

    real_logits, r1 = in_parts(logits_and_r1)(video)
    r1 = r1.mean()
    fake_logits = in_parts(discriminate)(output)
    # The anchors are updated before they are used (praxis).
    average = lambda old, logits: (
      c.loss.lecam_decay * old
      + (1.0 - c.loss.lecam_decay) * lax.stop_gradient(logits.mean())
    )
    anchors = {
      "real": average(anchors["real"], real_logits),
      "fake": average(anchors["fake"], fake_logits),
    }
    entropy_weight = losses.entropy_weight(
      state.step,
      c.loss.entropy,
      c.loss.entropy_start_factor,
      c.loss.entropy_annealing_steps,
    )
    terms = {
      "reconstruction": losses.reconstruction(video, output),
      "adversarial": losses.GENERATOR_ADVERSARIAL[c.loss.gan](fake_logits),
      "commitment": quantized.commitment,
      "codebook": quantized.codebook,
      "entropy": quantized.sample_entropy - quantized.batch_entropy,
    }
    weights = {
      "reconstruction": c.loss.reconstruction,
      "adversarial": c.loss.adversarial,
      "commitment": c.loss.commitment,
      "codebook": c.loss.codebook,
      "entropy": entropy_weight,
    }
    if distance is not None:
      of_frames = lambda x, y: distance(state.frozen["perceptual"], x, y)
      of_clips = lambda x, y: jnp.broadcast_to(
        losses.perceptual(of_frames, x, y), len(x)
      )
      terms["perceptual"] = in_parts(of_clips)(video, output).mean()
      weights["perceptual"] = c.loss.perceptual
    g_loss = sum(weights[k] * terms[k] for k in terms)
    d_adversarial = losses.DISCRIMINATOR_ADVERSARIAL[c.loss.gan](
      real_logits, fake_logits
    )
    lecam = losses.lecam(
      real_logits, fake_logits, anchors["real"], anchors["fake"]
    )
    d_loss = d_adversarial + c.loss.r1 * r1 + c.loss.lecam * lecam
    right = (real_logits > 0).mean() + (fake_logits < 0).mean()
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
      "discriminator/lecam_real": anchors["real"],
      "discriminator/lecam_fake": anchors["fake"],
      "discriminator/accuracy": 0.5 * right,
      "discriminator/real_logit": real_logits.mean(),
      "discriminator/fake_logit": fake_logits.mean(),
    }
    return g_loss, d_loss, anchors, metrics, latents, quantized.ids

  def step(state: TrainState, batch, key: jax.Array):
    del key  # nothing in this step is random
    streams = {"discriminator": ("", 1.0, tokenizer.to_float(batch["video"]))}
    if joint:
      image = tokenizer.to_float(batch["image"])
      streams["image_discriminator"] = ("image/", c.loss.joint_images, image)

    def both_losses(g_params, d_params):
      g_total, d_total, lecam, metrics, encoded = 0.0, 0.0, {}, {}, None
      for name, (prefix, weight, video) in streams.items():
        g_loss, d_loss, lecam[name], own, *found = losses_of(
          g_params,
          d_params[name],
          discriminators_of[name],
          video,
          state.extras["lecam"][name],
          state,
        )
        g_total += weight * g_loss
        d_total += d_loss
        metrics.update({f"{prefix}{k}": v for k, v in own.items()})
        encoded = encoded or found  # that of the clips
      return (g_total, d_total), (lecam, metrics, encoded)

    g_params = state.params["generator"]
    d_params = {name: state.params[name] for name in discriminators_of}
    _, pullback, (lecam, metrics, (latents, ids)) = jax.vjp(
      both_losses, g_params, d_params, has_aux=True
    )
    gradients = {
      "generator": pullback((1.0, 0.0))[0],
      **pullback((0.0, 1.0))[1],
    }
    running, own = health.update(
      state.extras["health"],
      state.step,
      c.health_every,
      streams["discriminator"][2],
      latents,
      ids,
      lambda x: generator(g_params, x, method="encode_latents"),
    )
    metrics.update({f"health/{k}": v for k, v in own.items()})
    params, opt_state = {}, {}
    for name, gradient in gradients.items():
      metrics[f"{name}/gradient_norm"] = optax.tree.norm(gradient)
      updates, opt_state[name] = adam.update(
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
      extras={"lecam": lecam, "health": running},
    )
    return state, metrics

  return state_lib.Algorithm(
    init=init,
    step=step,
    predict=predict_functions(generator),
    predict_networks=("generator",),
    sharding_rules=c.mesh.rules,
    frozen=frozen,
    warm_start=_warm_start(c, mesh),
  )


def check_losses(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for loss settings that cannot work."""
  c = config.loss
  if c.gan not in losses.GENERATOR_ADVERSARIAL:
    raise ValueError(
      f"loss.gan={c.gan!r} must be one of"
      f" {sorted(losses.GENERATOR_ADVERSARIAL)}"
    )
  if c.r1_interval < 1:
    raise ValueError(f"loss.r1_interval={c.r1_interval} must be at least 1")
  if config.health_every < 1:
    raise ValueError(f"health_every={config.health_every} must be at least 1")


def define_discriminator(
  config: ml_collections.ConfigDict, video_shape: tuple[int, int, int]
) -> network.Network:
  return network.define(
    lambda rngs: discriminators.Discriminator(
      video_shape, **config.discriminator, rngs=rngs
    )
  )


def define_tokenizer(config: ml_collections.ConfigDict) -> network.Network:
  return network.define(
    lambda rngs: tokenizer.Tokenizer(
      **config.tokenizer, quantizer=config.quantizer, rngs=rngs
    )
  )


def vocabulary(config: ml_collections.ConfigDict) -> int:
  """Number of codes of the config's tokenizer."""
  return tokenizer.describe_quantizer(**config.quantizer).vocabulary


def clip_shape(config: ml_collections.ConfigDict) -> tuple[int, int, int]:
  """(T, H, W) of the config's clips."""
  return (config.dataset.frames, config.dataset.size, config.dataset.size)


def sizes(config: ml_collections.ConfigDict) -> clip_sizes.Sizes:
  """Strides of the config's tokenizer, and the clip lengths it takes."""
  halvings = config.tokenizer.temporal_downsample
  causal = config.tokenizer.causal
  return clip_sizes.Sizes(2 ** sum(halvings), 2 ** len(halvings), causal)


def predict_functions(generator: network.Network) -> dict[str, Callable]:
  """`params["generator"]` holds the weights; videos come out in [0, 1]."""

  def reconstruct(params, batch, key):
    """{"video"} -> {"video": float32 (B, T, H, W, 3), "ids", entropies}."""
    del key
    video = tokenizer.to_float(batch["video"])
    output, quantized, _ = generator(params["generator"], video)
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
  """Inflation of an image tokenizer, or a codebook from data, if asked for."""
  if not config.inflate_from:
    raise ValueError(
      "inflate_from is empty: give the workdir of the image tokenizer to start"
      " from (--config.inflate_from=DIR), or 'none' to start from scratch"
    )
  if config.codebook_from_data and config.quantizer.name != "vq":
    raise ValueError(
      "codebook_from_data=True needs quantizer.name='vq', and it is"
      f" {config.quantizer.name!r}: the others have no codebook"
    )
  inflates = config.inflate_from != "none"
  if inflates:
    source = checkpoint.read_config(config.inflate_from)
    inflation.check_compatible(source, config)
    checkpoint.latest_step(config.inflate_from)

  def warm_start(state: TrainState) -> TrainState:
    params = state.params["generator"]
    if inflates:
      _, image = restore_generator(config.inflate_from, mesh)
      params = inflation.inflate(image, params, config.tokenizer.causal)
    if config.codebook_from_data:
      params = _with_codebook_from_data(config, params)
    return state.replace(
      params={**state.params, "generator": params},
      ema={"generator": state_lib.copy(params)},
    )

  return warm_start if inflates or config.codebook_from_data else None


def _with_codebook_from_data(config, params):
  """The codebook's rows become latents of training clips."""
  generator = define_tokenizer(config)
  encode = jax.jit(
    lambda video: generator(
      params, tokenizer.to_float(video), method="encode_latents"
    )
  )
  rows, channels = params["quantizer"]["codebook"].shape
  tokens = math.prod(sizes(config).latent(clip_shape(config)))
  clips = -(-_LATENTS_PER_CODE * rows // tokens)
  batches = pipeline.eval_batches(
    config.dataset, "train", clips, config.batch_size
  )
  latents = [np.asarray(encode(b["video"]))[:real] for b, real in batches]
  codebook = quantizers.initialize_codebook(
    np.concatenate(latents).reshape(-1, channels),
    jax.random.key(config.seed),
    rows,
  )
  return {**params, "quantizer": {"codebook": codebook}}
