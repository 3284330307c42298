"""Algorithm: the tokenizer, trained as a GAN (arXiv 2310.05737, section 3).

Generator and discriminator are updated together from one forward pass, as in
Google's code: one vector-Jacobian product with cotangent (1, 0) gives the
generator's gradient, one with (0, 1) the discriminator's.
"""

from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh
import ml_collections
import optax

from magvit import algorithm as algorithm_lib
from magvit import optimizer
from magvit.algorithm import TrainState
from magvit.tokenizer import describe
from magvit.tokenizer import health
from magvit.tokenizer import inflation
from magvit.tokenizer import losses
from models import network
from models.features import perceptual
from models.tokenizer import discriminators
from models.tokenizer import tokenizer as tokenizer_network


def build(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  distance_and_params: tuple[perceptual.Distance, Any] | None = None,
) -> algorithm_lib.Algorithm:
  """Checks the config, describes the networks; allocates nothing large.

  With the perceptual distance given no file of weights is read, and its
  parameters may be shapes alone.

  Raises:
    ValueError: a clip the strides reject, missing perceptual weights, or an
      image tokenizer that cannot be inflated into this one.
  """
  c = config
  check_losses(c)
  generator = describe.define_tokenizer(c)
  video_shape = describe.clip_shape(c)
  latent_shape = describe.sizes(c).latent(video_shape)
  codes = tokenizer_network.describe_quantizer(**c.quantizer)
  joint = c.dataset.joint_images > 0
  shapes = {"discriminator": video_shape}
  if joint:
    image_shape = (1, *video_shape[1:])
    describe.sizes(c).latent(image_shape)
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
      ema={"generator": algorithm_lib.copy(params["generator"])},
      extras={
        "lecam": {
          name: algorithm_lib.copy(anchors) for name in discriminators_of
        },
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
    in_parts = lambda function: algorithm_lib.in_parts(function, c.microbatches)
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
    streams = {
      "discriminator": ("", 1.0, tokenizer_network.to_float(batch["video"]))
    }
    if joint:
      image = tokenizer_network.to_float(batch["image"])
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
    ema = algorithm_lib.update_ema(
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

  return algorithm_lib.Algorithm(
    init=init,
    step=step,
    predict=describe.predict_functions(generator),
    predict_networks=("generator",),
    sharding_rules=c.mesh.rules,
    frozen=frozen,
    warm_start=inflation.warm_start(c, mesh),
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
