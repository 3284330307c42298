"""Algorithm: the tokenizer, trained as a GAN (arXiv 2310.05737, section 3).

The tokenizer is the GAN's generator. It and the discriminator are updated
together from one forward pass, as in Google's code, and from one backward pass:
each loss reads logits whose gradient reaches its own network alone
(models/tokenizer/shared_backward.py).
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any
from typing import ClassVar
from typing import Self

from flax import struct
import jax
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
from magvit.tokenizer import kept
from magvit.tokenizer import losses
from models import network
from models.features import perceptual
from models.quantizers import common
from models.tokenizer import shared_backward
from models.tokenizer import tokenizer as tokenizer_network


@dataclasses.dataclass(frozen=True)
class Stream:
  """Clips, or the images beside them, that train the tokenizer in a step."""

  prefix: str  # start of the names of metrics
  weight: float  # factor of the generator's losses
  video_BTHWC: jax.Array


class StreamLosses(struct.PyTreeNode):
  """The losses of one stream, and arrays of its forward pass."""

  generator: jax.Array
  discriminator: jax.Array
  anchors: dict[str, jax.Array]  # LeCAM's averages after this step
  metrics: algorithm_lib.Metrics
  latents_BthwK: jax.Array  # latents before quantization
  ids_Bthw: jax.Array | None  # None without a vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class TokenizerGan(algorithm_lib.Algorithm):
  """The tokenizer and a discriminator of clips; another of joint images."""

  facts: ClassVar = algorithm_lib.Facts(
    kind=algorithm_lib.TOKENIZER,
    network="tokenizer",
    section="tokenizer",
    leading_metrics=(
      "generator/reconstruction",
      "generator/codebook_entropy",
      "discriminator/loss",
      "discriminator/accuracy",
      "health/dead_bits",
      "health/dead_channels",
    ),
    evaluators=("reconstruction",),
    defining=describe.DEFINING,
    weight_sources={"inflate_from": "none", "codebook_from_data": False},
    training_only={"loss.perceptual_network": "off"},
  )

  mesh: Mesh
  tokenizer: network.Network
  # Keys are the names in params. A discriminator's head depends on the clip's
  # size, so images have a discriminator of their own.
  discriminators: dict[str, network.Network]
  distance: perceptual.Distance | None
  perceptual_params: Any
  descent: optax.GradientTransformation

  @classmethod
  def build(
    cls, config: ml_collections.ConfigDict, mesh: Mesh, abstract: bool = False
  ) -> Self:
    """Builds as `Algorithm.build` says.

    Raises:
      ValueError: a clip the strides reject, missing perceptual weights, or an
        image tokenizer that cannot be inflated into this one.
    """
    c = config
    losses.check_settings(c)
    video_shape = describe.clip_shape(c)
    shapes = {"discriminator": video_shape}
    if c.dataset.joint_images:
      shapes["image_discriminator"] = (1, *video_shape[1:])
    for shape in shapes.values():
      describe.sizes(c).latent(shape)  # raises for clips the strides reject
    distance = params = None
    name = c.loss.perceptual_network
    if name != "off" and abstract:
      distance, params = perceptual.describe(name)
    elif name != "off":
      distance, params = perceptual.load(name, c.loss.perceptual_weights)
    if not abstract:
      inflation.check_sources(c)
    return cls(
      config=c,
      mesh=mesh,
      tokenizer=describe.define_tokenizer(c),
      discriminators={
        name: describe.define_discriminator(c, shape)
        for name, shape in shapes.items()
      },
      distance=distance,
      perceptual_params=params,
      descent=optimizer.make_optimizer(c.optimizer, c.num_steps),
    )

  @property
  def predict(self) -> dict[str, Callable[[Any, Any, Any], Any]]:
    return describe.predict_functions(self.tokenizer)

  @property
  def frozen(self) -> dict[str, Any]:
    if self.distance is None:
      return {}
    return {"perceptual": self.perceptual_params}

  def warm_start(self, state: TrainState) -> TrainState:
    return inflation.warm_start(self.config, self.mesh, state)

  def init(self, key: jax.Array) -> TrainState:
    networks = {"tokenizer": self.tokenizer, **self.discriminators}
    keys = jax.random.split(key, len(networks))
    params = {
      name: net.init(k)
      for (name, net), k in zip(networks.items(), keys, strict=True)
    }
    anchors = {"real": jnp.zeros(()), "fake": jnp.zeros(())}
    codes = tokenizer_network.describe_quantizer(**self.config.quantizer)
    video_shape = describe.clip_shape(self.config)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      opt_state={k: self.descent.init(p) for k, p in params.items()},
      ema={"tokenizer": algorithm_lib.copy(params["tokenizer"])},
      extras={
        "lecam": {
          name: algorithm_lib.copy(anchors) for name in self.discriminators
        },
        "health": health.init(
          video_shape,
          describe.sizes(self.config).latent(video_shape),
          codes.latent_channels,
          codes.vocabulary,
        ),
      },
      frozen={},
    )

  def step(
    self, state: TrainState, batch: Any, key: jax.Array
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    del key  # nothing in this step is random
    streams = self.streams(batch)
    d_params = {name: state.params[name] for name in self.discriminators}
    (g_gradient, d_gradients), losses_of_streams = jax.grad(
      self.loss, argnums=(0, 1), has_aux=True
    )(state.params["tokenizer"], d_params, streams, state)
    gradients = {"tokenizer": g_gradient, **d_gradients}
    running, health_metrics = self._health(
      state,
      streams["discriminator"].video_BTHWC,
      losses_of_streams["discriminator"],
    )
    metrics = {
      f"{streams[name].prefix}{k}": value
      for name, stream in losses_of_streams.items()
      for k, value in stream.metrics.items()
    }
    metrics.update({f"health/{k}": v for k, v in health_metrics.items()})
    lecam = {name: s.anchors for name, s in losses_of_streams.items()}
    state, norms = self._descend(state, gradients)
    state = state.replace(extras={"lecam": lecam, "health": running})
    return state, {**metrics, **norms}

  def _health(
    self, state: TrainState, video_BTHWC: jax.Array, clips: StreamLosses
  ) -> tuple[Any, algorithm_lib.Metrics]:
    """(running statistics, metrics) of a step on these clips."""
    if clips.ids_Bthw is None:
      return {}, health.latents(video_BTHWC, clips.latents_BthwK)
    return health.update(
      state.extras["health"],
      state.step,
      self.config.health_every,
      video_BTHWC,
      clips.latents_BthwK,
      clips.ids_Bthw,
      lambda x: self.tokenizer(
        state.params["tokenizer"], x, method="encode_latents"
      ),
    )

  @functools.cached_property
  def trained_tokenizer(self) -> network.Network:
    """The tokenizer, whose backward pass keeps what fits the devices."""
    remat = kept.find(self.config, self.mesh, self.measure_memory)
    return kept.define_keeping(self.config, remat)

  def measure_memory(self) -> kept.Memory:
    """Estimates the memory of a step, from shapes alone."""
    state = jax.eval_shape(self.init, jax.random.key(0))
    state = state.replace(frozen=self.frozen)
    passes = [
      functools.partial(passes, self._with_shares("discriminator"))
      for passes in (
        shared_backward.logits_and_r1,
        shared_backward.logits_for_both,
      )
    ]
    size = kept.state_bytes(state, self.mesh, self.sharding_rules)
    return kept.measure(
      self.config, self.mesh, state, size, passes, self.distance
    )

  def streams(self, batch: Any) -> dict[str, Stream]:
    """Streams of a batch, by the name of the discriminator."""
    video = tokenizer_network.to_float(batch["video"])
    streams = {"discriminator": Stream("", 1.0, video)}
    if self.config.dataset.joint_images:
      image = tokenizer_network.to_float(batch["image"])
      weight = self.config.loss.joint_images
      streams["image_discriminator"] = Stream("image/", weight, image)
    return streams

  def _descend(
    self, state: TrainState, gradients: dict[str, Any]
  ) -> tuple[TrainState, algorithm_lib.Metrics]:
    """The state after a step of every network, and the gradients' norms."""
    params, opt_state, norms = {}, {}, {}
    for name, gradient in gradients.items():
      role = "generator" if name == "tokenizer" else name
      norms[f"{role}/gradient_norm"] = optax.tree.norm(gradient)
      updates, opt_state[name] = self.descent.update(
        gradient, state.opt_state[name], state.params[name]
      )
      params[name] = optax.apply_updates(state.params[name], updates)
    ema = algorithm_lib.update_ema(
      state.ema["tokenizer"], params["tokenizer"], self.config.ema_decay
    )
    return state.replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      ema={"tokenizer": ema},
    ), norms

  def loss(
    self,
    g_params: Any,
    d_params: dict[str, Any],
    streams: dict[str, Stream],
    state: TrainState,
  ) -> tuple[jax.Array, dict[str, StreamLosses]]:
    """(all losses added, losses of each stream).

    The generator's losses have no gradient for a discriminator, and a
    discriminator's none for the generator.
    """
    total, losses_of_streams = jnp.zeros(()), {}
    for name, stream in streams.items():
      computed = self.stream_losses(
        g_params, d_params[name], name, stream.video_BTHWC, state
      )
      total += stream.weight * computed.generator + computed.discriminator
      losses_of_streams[name] = computed
    return total, losses_of_streams

  def stream_losses(
    self,
    g_params: Any,
    d_params: Any,
    name: str,
    video_BTHWC: jax.Array,
    state: TrainState,
  ) -> StreamLosses:
    """Computes the losses of clips or of images, given in float32 in [0, 1].

    Networks see microbatches; the entropy, LeCAM's anchors and all means are
    those of the whole batch. `name` is the discriminator's, `state` that before
    the step.
    """
    c = self.config
    in_parts = lambda function: algorithm_lib.in_parts(function, c.microbatches)
    tokenizer = self.trained_tokenizer
    method = lambda name: lambda x: tokenizer(g_params, x, method=name)
    latents = in_parts(method("encode_latents"))(video_BTHWC)
    quantized = method("quantize")(latents)
    output = in_parts(method("decode_latents"))(quantized.z)
    real_logits, r1 = self._logits_and_r1(
      name, d_params, video_BTHWC, state.step
    )
    for_generator, fake_logits = in_parts(
      lambda x: shared_backward.logits_for_both(
        self._with_shares(name), d_params, x
      )
    )(output)
    anchors = losses.move_anchors(
      state.extras["lecam"][name], real_logits, fake_logits, c.loss.lecam_decay
    )
    terms = {
      "reconstruction": losses.reconstruction(video_BTHWC, output),
      "adversarial": losses.GENERATOR_ADVERSARIAL[c.loss.gan](for_generator),
      "commitment": quantized.commitment,
      "codebook": quantized.codebook,
      "entropy": quantized.sample_entropy - quantized.batch_entropy,
    }
    if self.distance is not None:
      terms["perceptual"] = self._perceptual(
        self.distance, state, video_BTHWC, output
      )
    weights = losses.weights(c, state.step)
    g_loss = sum((weights[k] * terms[k] for k in terms), jnp.zeros(()))
    d_loss, d_metrics = losses.discriminator(
      c.loss, real_logits, fake_logits, r1, anchors
    )
    metrics = {
      "generator/loss": g_loss,
      **{f"generator/{k}": v for k, v in terms.items()},
      **_entropies(quantized, jnp.asarray(weights["entropy"])),
      **{f"discriminator/{k}": v for k, v in d_metrics.items()},
    }
    return StreamLosses(
      g_loss, d_loss, anchors, metrics, latents, quantized.ids
    )

  def _with_shares(self, name: str) -> Callable:
    return functools.partial(self.discriminators[name], method="with_shares")

  def _logits_and_r1(
    self, name: str, d_params: Any, video_BTHWC: jax.Array, step: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Logits of real clips, and the mean of their lazy R1 penalty."""

    def compute(video):
      logits, r1 = losses.lazy_r1(
        lambda x: shared_backward.logits_and_r1(
          self._with_shares(name), d_params, x
        ),
        lambda x: self.discriminators[name](d_params, x),
        video,
        step,
        self.config.loss.r1_interval,
      )
      return logits, jnp.broadcast_to(r1, logits.shape)

    in_parts = algorithm_lib.in_parts(compute, self.config.microbatches)
    logits, r1 = in_parts(video_BTHWC)
    return logits, r1.mean()

  def _perceptual(
    self,
    distance: perceptual.Distance,
    state: TrainState,
    video_BTHWC: jax.Array,
    output_BTHWC: jax.Array,
  ) -> jax.Array:
    """The perceptual term: mean distance over all frames."""
    compare_frames = lambda x, y: distance(state.frozen["perceptual"], x, y)
    compare_clips = lambda x, y: jnp.broadcast_to(
      losses.perceptual(compare_frames, x, y), len(x)
    )
    in_parts = algorithm_lib.in_parts(compare_clips, self.config.microbatches)
    return in_parts(video_BTHWC, output_BTHWC).mean()


def _entropies(
  quantized: common.Quantized, weight: jax.Array
) -> algorithm_lib.Metrics:
  """Metrics of the codes; none without codes."""
  if quantized.ids is None:
    return {}
  return {
    "generator/entropy_weight": weight,
    "generator/sample_entropy": quantized.sample_entropy,
    "generator/codebook_entropy": quantized.codebook_entropy,
  }
