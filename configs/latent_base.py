"""Every field that generators of latents share, as configs/base.py does it.

An algorithm's function starts from `latent_generator` and adds its own fields.
"""

import ml_collections

from configs import base
from configs import rules


def latent_generator() -> ml_collections.ConfigDict:
  """Fields of all generators of latents, whatever their network."""
  c = base.common()
  c.mesh.rules = rules.TRANSFORMER_RULES
  c.dataset.size = 128
  c.tokenizer_workdir = base.REQUIRED  # workdir of a tokenizer, which is copied

  c.latents = ml_collections.ConfigDict()
  # Latents that are modelled: "bits", the signs of the codes of "lfq" or "bsq".
  c.latents.kind = "bits"

  c.denoiser = ml_collections.ConfigDict()
  c.denoiser.num_layers = 24  # layers
  c.denoiser.width = 1024  # channels of a token
  c.denoiser.mlp_width = 4096  # hidden units of each layer's MLP
  c.denoiser.num_heads = 16  # attention heads of each layer
  # Classes of the data, 0 for as many as there are; "no class" is one more.
  c.denoiser.num_classes = 101
  c.denoiser.remat = "auto"  # recomputation: or "off", "all", "dots"
  c.denoiser.attention = "auto"  # or "plain", "blocks", "kernel"
  # Type of activations, "float32" or "bfloat16"; parameters, statistics,
  # softmax and losses stay in float32.
  c.denoiser.dtype = "float32"

  # Relative frequency of each task in training; 0: the model does not learn it.
  c.tasks = base.tasks()
  c.condition_frames = 5  # frames given to frame prediction: K600's
  c.label_drop = 0.1  # share of class labels replaced by "no class"

  c.sampling = ml_collections.ConfigDict()
  c.sampling.steps = 50  # forward passes that make a clip
  # Strength of guidance: output + guidance * (output - unconditional); 0: none.
  c.sampling.guidance = 0.0
  # Guidance over the steps: "constant", or "power_cosine", from 0 upwards.
  c.sampling.guidance_schedule = "constant"
  c.sampling.guidance_power = 4.0  # exponent of "power_cosine"
  c.sampling.samples_per_class = 10  # generated clips scored in an evaluation

  # Adam with decoupled decay; W.A.L.T gives the peak alone.
  c.optimizer = base.optimizer(b1=0.9, b2=0.99, warmup_steps=5000)
  c.optimizer.peak_learning_rate = 5e-4  # peak, then one cosine down to 0
  c.optimizer.weight_decay = 0.01  # decoupled decay of kernels
  c.optimizer.clip_norm = 1.0  # largest norm of the gradient
  # Decay of the moving average of the network's weights, from step 0.
  c.ema_decay = 0.9999
  return c
