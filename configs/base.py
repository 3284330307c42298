"""Every field of every experiment, once: its meaning, unit and source.

A mark in a comment says where the value comes from: `spec` is a MAGVIT-v2 paper
(arXiv 2310.05737; 2212.05199 for v1) or Google's public code, `v1` the first
MAGVIT, `OM2` Open-MAGVIT2. A variant starts from one of the functions at the
end and overrides. Fields cannot be added later: a misspelt override on the
command line is an error.
"""

import ml_collections

from configs import clips
from configs import job
from configs import rules

REQUIRED = clips.REQUIRED  # a path the user has to give on the command line


def common() -> ml_collections.ConfigDict:
  """Fields the training loop reads, whatever the algorithm."""
  c = ml_collections.ConfigDict()
  c.name = ""  # one line that says what this is; shown in the report
  c.algorithm = ""  # a key of ALGORITHMS in magvit/trained.py
  c.seed = 0  # seed of parameters, dropout, masks and samples, not of the data
  c.num_steps = 0  # training steps in all; 0: by `automatic`
  c.init_from = "none"  # workdir or export whose weights a new run starts with
  c.batch_size = 0  # clips per step over all devices; 0: by `automatic`
  # Parts of a batch, computed in turn to save memory; the gradient is the same.
  c.microbatches = 1

  c.dataset = clips.clips()  # Which clips there are, and how they are cut.

  # Numbers that a field of 0 gets by the data as training starts; they are
  # logged and kept in config.json.
  c.automatic = ml_collections.ConfigDict()
  c.automatic.epochs = 0  # passes over the training clips in num_steps
  c.automatic.least_steps = 1  # num_steps at the least
  c.automatic.most_steps = 1_000_000  # num_steps at the most
  c.automatic.batch_size = 0  # batch_size at the most; a small set has less
  c.automatic.eval_examples = 0  # dataset.eval_examples at the most

  c.mesh = job.mesh()  # devices that share the work

  c.log_every = 10  # steps between two lines of metrics
  c.checkpoint_every = 100  # steps between two checkpoints
  c.checkpoints_to_keep = 2  # newest checkpoints that are not deleted
  c.eval_every = 0  # steps between two evaluations; 0: only at the end
  # First and last step traced into WORKDIR/profile; (0, 0): none.
  c.profile_steps = (0, 0)
  # Whether compiled programs are kept in WORKDIR/programs, for restarts on
  # other machines; whoever can write there can run code in them.
  c.keep_programs = False

  c.watch = job.watch()  # signs of life, hangs, steps that are left out
  c.evaluation = job.evaluation()  # scores besides the usual ones
  return c


def optimizer(
  b1: float, b2: float, warmup_steps: int
) -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.name = "adam"  # "adam" (spec), or "muon", for short trainings
  c.peak_learning_rate = 1e-4  # peak (spec), then one cosine down to 0
  c.warmup_steps = warmup_steps  # steps of linear rise from 0 to the peak
  c.b1 = b1  # decay of Adam's average of the gradient
  c.b2 = b2  # decay of Adam's average of the squared gradient
  c.weight_decay = 0.0  # decoupled decay of kernels; other weights have none
  c.clip_norm = 0.0  # largest global norm of the gradient; 0: no clipping
  return c


def tasks() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.class_conditional = 1.0  # the class is given
  c.frame_prediction = 0.0  # the first condition_frames are given
  # The class and the first condition_frames are given.
  c.class_conditional_frame_prediction = 0.0
  c.interpolation = 0.0  # the first and the last frame are given
  c.central_outpainting = 0.0  # a box in the middle is given
  c.vertical_outpainting = 0.0  # a strip of full height is given
  c.horizontal_outpainting = 0.0  # a strip of full width is given
  # A strip of full height that moves to the right is given.
  c.dynamic_outpainting = 0.0
  c.central_inpainting = 0.0  # all but a box in the middle is given
  # All but a box that moves to the right is given.
  c.dynamic_inpainting = 0.0
  return c


def tokenizer() -> ml_collections.ConfigDict:
  """The final video tokenizer, 17 x 128 x 128 to 5 x 16 x 16 tokens (spec)."""
  c = common()
  c.algorithm = "tokenizer"
  c.mesh.rules = rules.CONV_RULES
  c.dataset.size = 128
  # Whether the codebook of "vq" starts as latents of training clips; False
  # draws it at random (spec, v1).
  c.codebook_from_data = False
  c.inflate_from = "none"  # workdir of an image tokenizer to start from

  c.tokenizer = ml_collections.ConfigDict()
  # Kind of network: "cnn" (spec), or one of the baselines "vivit" and "hybrid".
  c.tokenizer.architecture = "cnn"
  c.tokenizer.base_channels = 128  # width of level 0 (spec)
  # Width of each level, as a multiple of base_channels (spec).
  c.tokenizer.channel_multipliers = (1, 2, 2, 4)
  # Whether time is halved, too, between each level and the next (spec).
  c.tokenizer.temporal_downsample = (False, True, True)
  # Residual blocks at each level, and between encoder and decoder (spec).
  c.tokenizer.num_res_blocks = 4
  # Halving: "conv4" (spec) and "conv3" are strided convolutions, "average" is
  # v1's pooling.
  c.tokenizer.downsample = "conv4"
  # Doubling: "depth_to_space" (spec), or v1's "nearest".
  c.tokenizer.upsample = "depth_to_space"
  # Scale and bias of the decoder's adaptive norms: "position" takes them from
  # the latent at each position (spec), "global" from statistics of all latents
  # (OM2); "off": there are no adaptive norms.
  c.tokenizer.adaptive_norm = "position"
  # Frame that is kept of those that latent 0, which stands for one frame, is
  # doubled to: "last" (spec) or "first" (OM2).
  c.tokenizer.kept_frame = "last"
  c.tokenizer.temporal = True  # kernels of 3 frames; False: image tokenizer
  # Whether latents depend on no later frame (spec); with False (v1) the frames
  # of a clip are a multiple of the temporal stride.
  c.tokenizer.causal = True
  # Padding of convolutions: "edge" repeats the border (spec), "zero" (v1, OM2).
  c.tokenizer.padding = "edge"
  c.tokenizer.norm_groups = 32  # groups of each group norm (spec)
  # Extent of a norm's mean and variance: a "frame" (spec), or the whole "clip"
  # (v1, OM2), which is not causal.
  c.tokenizer.norm_statistics = "frame"
  # Whether the networks see pixels in [-1, 1] (OM2); False: in [0, 1] (spec).
  c.tokenizer.centred_pixels = False
  # Type of activations, "float32" or "bfloat16"; parameters, statistics,
  # quantizer and losses stay in float32.
  c.tokenizer.dtype = "float32"
  # What the backward pass recomputes: "off": nothing, "dots": all but products
  # with weights, "all"; or one of these for each level, fine to coarse, with
  # commas; "auto": the least that fits the device, on CPUs nothing.
  c.tokenizer.remat = "auto"
  # Transformers of the baselines "vivit" and "hybrid".
  c.tokenizer.transformer = ml_collections.ConfigDict()
  c.tokenizer.transformer.width = 512  # channels of a token
  c.tokenizer.transformer.mlp_width = 2048  # hidden units of each layer's MLP
  c.tokenizer.transformer.num_heads = 8  # attention heads of each layer
  # Layers within a frame, in encoder and decoder each, of "vivit".
  c.tokenizer.transformer.spatial_layers = 7
  # Layers over frames, in encoder and decoder each.
  c.tokenizer.transformer.temporal_layers = 7
  # Height and width of the grid of latents, the only size "vivit" accepts.
  c.tokenizer.transformer.latent_size = (16, 16)
  c.tokenizer.transformer.max_latent_frames = 5  # most latent frames of a clip

  c.quantizer = ml_collections.ConfigDict()
  # Quantizer: "lfq" (spec), "vq" (v1), "fsq" or "bsq"; "none" leaves latents as
  # they are, for generators of continuous latents (W.A.L.T).
  c.quantizer.name = "lfq"
  c.quantizer.bits = 18  # bits of an id of "lfq" or "bsq": 2^18 codes (spec)
  # Temperature of the probabilities of codes in the entropy loss (spec); "fsq"
  # has none.
  c.quantizer.entropy_temperature = 0.01
  # Groups of bits of "lfq" and "bsq" with an entropy each; 0: one up to 18
  # bits, which is exact, and groups of at most 8 bits above.
  c.quantizer.entropy_groups = 0
  c.quantizer.codebook_size = 1024  # codes of "vq" (spec, v1)
  # Channels of a code of "vq" (spec, v1), or of a latent of "none".
  c.quantizer.embedding_dim = 256
  c.quantizer.normalize = False  # whether "vq" compares vectors of unit length
  c.quantizer.levels = (8, 8, 8, 5, 5, 5)  # levels of "fsq": 64,000 codes

  c.discriminator = ml_collections.ConfigDict()
  c.discriminator.base_channels = 128  # width before the first halving (spec)
  # Width after each halving, as a multiple of base_channels (spec).
  c.discriminator.channel_multipliers = (2, 4, 4, 4, 4)
  c.discriminator.pool = "blur"  # halving: "blur" (spec) or "average" (v1)

  # Weights of the terms of the loss, and their settings; pixels are in [0, 1].
  c.loss = ml_collections.ConfigDict()
  c.loss.reconstruction = 5.0  # weight of the mean squared error (spec)
  # Weight of the perceptual distance, frames' mean (spec, Google's ResNet-50).
  c.loss.perceptual = 0.1
  # Perceptual distance: "resnet50", squared error of its logits (spec);
  # "lpips_vgg", LPIPS v0.1, which others weight with 1; "efficientnet_lite0" or
  # "squeezenet", whose weights packages bring; "off": no such term.
  c.loss.perceptual_network = "resnet50"
  # File of that network's weights, written by models.weights.convert or fetch.
  c.loss.perceptual_weights = REQUIRED
  c.loss.adversarial = 0.1  # weight of the generator's GAN loss (spec)
  c.loss.adversarial_start = 0  # steps before the generator has that loss
  # Share of the steps, the last ones, without the perceptual and the GAN loss,
  # which brings PSNR, and costs detail.
  c.loss.pixel_share = 0.0
  c.loss.gan = "non_saturating"  # form of the GAN loss (spec); or "hinge"
  # Weight of the gradient penalty R1: without the factor 1/2, summed over the
  # clip (spec).
  c.loss.r1 = 10.0
  # Steps between two computations of R1 (spec), whose weight it multiplies.
  c.loss.r1_interval = 1
  c.loss.lecam = 0.001  # weight of LeCAM's regularization (spec)
  c.loss.lecam_decay = 0.999  # decay of LeCAM's averages of the logits (spec)
  c.loss.commitment = 0.25  # weight that draws latents to their codes (spec)
  c.loss.codebook = 1.0  # weight that draws codes of "vq" to latents (spec, v1)
  c.loss.joint_images = 1.0  # factor of all losses of dataset.joint_images
  c.loss.entropy = 0.1  # weight of the entropy loss after annealing (spec)
  # Factor of loss.entropy at step 0 (spec); it falls linearly to 1.
  c.loss.entropy_start_factor = 3.0
  c.loss.entropy_annealing_steps = 2000  # steps until that factor is 1 (spec)

  # Steps between two checks of which bits flip, and the window in which a code
  # counts as used (magvit/tokenizer/health.py).
  c.health_every = 100
  # Adam of the tokenizer and of the discriminator (spec); v2's warm-up is not
  # published, v1's is one epoch.
  c.optimizer = optimizer(b1=0.0, b2=0.99, warmup_steps=1000)
  # Decay of the moving average of the tokenizer's weights, from step 0 (spec).
  c.ema_decay = 0.999
  return c


def masked() -> ml_collections.ConfigDict:
  """MAGVIT-L on 5 x 16 x 16 tokens with factorised vocabulary (spec)."""
  c = common()
  c.algorithm = "masked"
  c.mesh.rules = rules.TRANSFORMER_RULES
  c.dataset.size = 128
  c.tokenizer_workdir = REQUIRED  # workdir of a tokenizer, which is copied

  c.transformer = ml_collections.ConfigDict()
  c.transformer.num_layers = 24  # layers of MAGVIT-L (spec)
  c.transformer.width = 1024  # channels of a token
  c.transformer.mlp_width = 4096  # hidden units of each layer's MLP
  c.transformer.num_heads = 16  # attention heads of each layer
  # Bits of each of the sub-tokens that an id is split into (spec); their sum is
  # the tokenizer's bits.
  c.transformer.factor_bits = (9, 9)
  # Whether a mask token shows the condition clip's token, too, of what the task
  # fills hidden pixels with (spec: no).
  c.transformer.condition_hints = False
  c.transformer.dropout = 0.1  # share of units and attention dropped (spec)
  # Classes of the data, 0 for as many as there are; "no class" is one more.
  c.transformer.num_classes = 101
  c.transformer.remat = "auto"  # recomputation: or "off", "all", "dots"
  c.transformer.attention = "auto"  # or "plain", "blocks", "kernel"
  c.transformer.dropout_bits = "hash"  # or "threefry", of earlier versions
  # Type of activations, "float32" or "bfloat16"; parameters, statistics,
  # softmax and losses stay in float32.
  c.transformer.dtype = "float32"

  # Relative frequency of each task in training; 0: the model does not learn it.
  c.tasks = tasks()
  c.condition_frames = 5  # frames given to frame prediction: K600's (spec)
  c.label_drop = 0.1  # share of class labels replaced by "no class" (spec)
  c.label_smoothing = 1e-4  # share of targets spread over all values (spec, v1)
  # Whether each clip has its own mask ratio; False: one for the batch (v1).
  c.mask_ratio_per_clip = False
  c.masks_per_clip = 1  # independent masks of one encoded clip in a step

  c.sampling = ml_collections.ConfigDict()
  c.sampling.steps = 12  # forward passes that make a clip (spec)
  # Share of the tokens left masked after each step: "cosine" (spec), or another
  # of SCHEDULES in magvit/generators/sampling.py.
  c.sampling.schedule = "cosine"
  # Noise in the choice of which tokens to keep, falling to 0 at the last step
  # (spec: K600's, with "cosine").
  c.sampling.choice_temperature = 32.0
  # Strength of guidance: logits + guidance * (logits - unconditional); 0: none.
  # It is the other convention's scale - 1: the papers' "scale 25" is 24 (spec).
  c.sampling.guidance = 0.0
  # Guidance over the steps: "constant", or "power_cosine", from 0 upwards.
  c.sampling.guidance_schedule = "constant"
  # Exponent of "power_cosine": MDT's, as v2's is not published.
  c.sampling.guidance_power = 4.0
  # Temperature of drawing tokens (v1); 0 takes the likeliest.
  c.sampling.temperature = 1.0
  # Completion of given pixels: "sample", or "likeliest", without guidance or
  # noise: one clip for each condition, closest to the hidden one on average.
  c.sampling.completion = "sample"
  # Whether the given pixels are pasted over the completion (spec, v1).
  c.sampling.replace_condition_pixels = False
  # Whether clips with whole given frames get back the detail that tokens lose:
  # as those frames lose it, and the completion without a model.
  c.sampling.carry_detail = False
  c.sampling.samples_per_class = 10  # generated clips scored in an evaluation

  c.optimizer = optimizer(b1=0.9, b2=0.96, warmup_steps=5000)  # Adam (spec, v1)
  c.optimizer.weight_decay = 0.045  # decoupled decay of kernels (spec, v1)
  c.optimizer.clip_norm = 1.0  # largest norm of the gradient (spec, v1)
  return c


def autoregressive() -> ml_collections.ConfigDict:
  """MAGVIT-v2's AR-LM of 840M on 5 x 16 x 16 tokens (spec)."""
  c = common()
  c.algorithm = "autoregressive"
  c.mesh.rules = (*rules.TRANSFORMER_RULES, rules.TABLE_RULE)
  c.dataset.size = 128
  c.tokenizer_workdir = REQUIRED  # workdir of a tokenizer, which is copied

  c.transformer = ml_collections.ConfigDict()
  c.transformer.num_layers = 24  # layers that give the published size
  c.transformer.width = 1024  # channels of a token
  c.transformer.mlp_width = 4096  # hidden units of each layer's MLP
  c.transformer.num_heads = 16  # attention heads of each layer
  # Bits of each of the sub-tokens that an id is split into; one, as the
  # published size says. Their sum is the tokenizer's bits.
  c.transformer.factor_bits = (18,)
  # Whether one table of embeddings serves input and output; the published size
  # says that there are two.
  c.transformer.tie_embeddings = False
  # Attention of [bos], [class] and the given tokens among themselves: "causal",
  # or "bidirectional" (VideoPoet's prefix-LM).
  c.transformer.prefix_attention = "causal"
  c.transformer.dropout = 0.1  # share of units and attention dropped (v1)
  # Classes of the data, 0 for as many as there are; "no class" is one more.
  c.transformer.num_classes = 101
  c.transformer.remat = "auto"  # recomputation: or "off", "all", "dots"
  c.transformer.attention = "auto"  # or "plain", "blocks", "kernel"
  c.transformer.dropout_bits = "hash"  # or "threefry", of earlier versions
  # Type of activations, "float32" or "bfloat16"; parameters, statistics,
  # softmax and losses stay in float32.
  c.transformer.dtype = "float32"

  # Relative frequency of each task in training; 0: the model does not learn it.
  c.tasks = ml_collections.ConfigDict()
  c.tasks.class_conditional = 1.0  # the class is given
  c.tasks.frame_prediction = 0.0  # the first condition_frames are given
  # The class and the first condition_frames are given.
  c.tasks.class_conditional_frame_prediction = 0.0
  c.condition_frames = 5  # frames given to frame prediction: K600's (spec)
  c.label_drop = 0.1  # share of class labels replaced by "no class"
  c.label_smoothing = 1e-4  # share of targets spread over all values (v1)
  # Parts of a clip's tokens whose losses are computed in turn; only one part's
  # logits exist at a time.
  c.loss_chunks = 1

  c.sampling = ml_collections.ConfigDict()
  c.sampling.temperature = 1.0  # temperature of drawing tokens
  c.sampling.top_k = 0  # likeliest values that are drawn from; 0: all
  # Share of the probability that the likeliest values drawn from hold; 1: all.
  c.sampling.top_p = 1.0
  # Strength of guidance: logits + guidance * (logits - unconditional); 0: none.
  c.sampling.guidance = 0.0
  c.sampling.samples_per_class = 10  # generated clips scored in an evaluation

  # Adam as of v1's masked model: the AR-LM's is not published.
  c.optimizer = optimizer(b1=0.9, b2=0.96, warmup_steps=5000)
  c.optimizer.weight_decay = 0.045  # decoupled decay of kernels
  c.optimizer.clip_norm = 1.0  # largest norm of the gradient
  return c
