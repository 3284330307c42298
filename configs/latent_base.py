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
  # Latents that are modelled: "bits", the signs of the codes of "lfq" or "bsq",
  # or "continuous", those of a tokenizer without a quantizer, normalised.
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
  # Guidance over the steps: "constant"; or "linear" (xAR; MAR by the share of
  # decided tokens) or "power_cosine", from 0 upwards.
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


def masked_diffusion() -> ml_collections.ConfigDict:
  """The masked model of tokens with MAR's diffusion head, of size B."""
  c = latent_generator()
  c.algorithm = "masked_diffusion"
  # Trunk: "masked", that of the masked model of tokens, or "autoencoder", MAR's
  # own, which is for one task and has half of its layers in the encoder.
  c.denoiser.trunk = "masked"
  c.denoiser.num_layers = 24  # layers of MAR-B, encoder and decoder
  c.denoiser.width = 768  # channels of a token
  c.denoiser.mlp_width = 3072  # hidden units of each layer's MLP
  c.denoiser.num_heads = 12  # attention heads of each layer
  c.denoiser.dropout = 0.1  # share of units and attention of the trunk dropped
  c.denoiser.dropout_bits = "hash"  # or "threefry"
  c.denoiser.head_blocks = 6  # residual blocks of the head
  c.denoiser.head_width = 1024  # channels of the head

  # Share of the tokens that training masks: "cosine" of U(0, 1), as the masked
  # model of tokens; "normal", MAR's around 1, at least 0.7.
  c.mask_ratio = "cosine"
  # Whether each clip has its own mask ratio; False: one for the batch (MAR).
  c.mask_ratio_per_clip = False
  c.masks_per_clip = 1  # independent masks of one encoded clip in a step
  c.draws_per_token = 4  # noises that a token's features are trained on (MAR)

  c.sampling.steps = 64  # passes of the trunk; MAR's scores take 256
  # Share of the tokens left masked after each step: one of SCHEDULES in
  # magvit/generators/sampling.py.
  c.sampling.schedule = "cosine"
  c.sampling.diffusion_steps = 100  # passes of the head for each token (MAR)
  c.sampling.temperature = 1.0  # factor of the noise that these add (MAR)
  c.sampling.guidance_schedule = "linear"  # with the share of decided tokens
  # Completion of given pixels: "sample", or "likeliest", without guidance or
  # added noise.
  c.sampling.completion = "sample"
  # Whether the given pixels are pasted over the completion.
  c.sampling.replace_condition_pixels = False
  # Whether clips with whole given frames get back the detail that latents lose:
  # as those frames lose it, and the completion without a model.
  c.sampling.carry_detail = False

  c.optimizer = base.optimizer(b1=0.9, b2=0.95, warmup_steps=5000)  # MAR's Adam
  c.optimizer.weight_decay = 0.02  # decoupled decay of kernels (MAR)
  c.optimizer.clip_norm = 3.0  # largest norm of the gradient (MAR)
  return c


def next_frame_flow() -> ml_collections.ConfigDict:
  """Next-frame flow: xAR-B with a latent frame for a cell."""
  c = latent_generator()
  c.algorithm = "next_frame_flow"
  c.denoiser.num_layers = 16  # layers of xAR-B
  c.denoiser.width = 768  # channels of a token
  c.denoiser.mlp_width = 2048  # hidden units of SwiGLU, 8 / 3 of the width
  c.denoiser.num_heads = 12  # attention heads of each layer
  # Share of the steps without given frames whose clips begin with their second
  # latent frame, as what is seen of a long video does.
  c.later_start = 0.25

  c.sampling.steps = 50  # Euler's steps for each latent frame (xAR)
  c.sampling.guidance_schedule = "linear"  # from none at the first step (xAR)

  c.optimizer = base.optimizer(b1=0.9, b2=0.96, warmup_steps=5000)  # xAR's Adam
  c.optimizer.weight_decay = 0.02  # decoupled decay of kernels (xAR)
  c.optimizer.clip_norm = 1.0  # largest norm of the gradient (xAR)
  return c


def diffusion() -> ml_collections.ConfigDict:
  """W.A.L.T L (arXiv 2312.06662) on 5 x 16 x 16 latents."""
  c = latent_generator()
  c.algorithm = "diffusion"
  c.denoiser.patch = 1  # side of the square of latents that is one token
  # Rows and columns of tokens that attend to each other in a latent frame.
  c.denoiser.spatial_window = (16, 16)
  # Latent frames, rows and columns that do so in every second layer.
  c.denoiser.space_time_window = (5, 8, 8)
  # Rank of what a layer adds to the modulation that all layers share; 0: each
  # layer has one of its own.
  c.denoiser.lora_rank = 2
  # Channels of the text embeddings that the batch has; 0: there is no text.
  c.denoiser.text_width = 0
  c.denoiser.text_layers = "all"  # layers that see text; or "spatial"
  # Whether clips are made of the same clips of half the height and width.
  c.denoiser.upscales = False

  c.noise = ml_collections.ConfigDict()
  c.noise.process = "diffusion"  # or "flow" (magvit/generators/noise.py)
  # Share of the steps in which the network is told its first estimate; 0: it
  # never is, in samples neither.
  c.noise.self_conditioning = 0.9
  # Most noise of the coarse latents in training, as a share of the process; the
  # paper gives none.
  c.noise.low_most = 0.3

  # Share of the noise that each step renews: 0 is DDIM, 1 ancestral sampling.
  c.sampling.eta = 0.0
  c.sampling.low_noise = 0.0  # noise of the coarse latents, as noise.low_most
  return c
