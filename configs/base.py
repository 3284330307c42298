"""Every field of every experiment, once, with its unit or its source.

`spec` marks a value of the MAGVIT-v2 papers (arXiv 2310.05737; 2212.05199 for
v1) or of Google's public code. A variant starts from one of the functions at
the end and overrides. Fields cannot be added later: a misspelt override on the
command line is an error.
"""

import ml_collections

REQUIRED = ""  # a path the user has to give on the command line


def common() -> ml_collections.ConfigDict:
  """Fields the training loop reads, whatever the algorithm."""
  c = ml_collections.ConfigDict()
  c.name = ""  # one line that says what this is; shown in the report
  c.algorithm = ""  # a key of magvit/trained.py: "tokenizer", "masked", ...
  c.seed = 0  # of parameters, dropout, masks; the data has its own
  c.num_steps = 0
  c.init_from = "none"  # workdir or export whose weights a new run starts with
  c.batch_size = 0  # clips per step over all devices
  c.microbatches = 1  # of a step, one after the other; the batch's gradient

  c.dataset = ml_collections.ConfigDict()
  c.dataset.name = "digits"  # embedded: input_pipeline/sources/digits.py
  c.dataset.frames = 17  # clip length, 1 + a multiple of the temporal stride
  c.dataset.size = 32  # height and width, pixels
  c.dataset.motion = "bounce"  # of digits; "cross": all the way in each clip
  c.dataset.seed = 0  # of the random clips, and of shuffling
  c.dataset.tokens = ""  # folder of --mode=tokenize; "": train from pixels
  c.dataset.shuffle = False  # anew each epoch of a finite set or of tokens;
  # False: source order, in which both train the same
  c.dataset.eval_examples = 256  # held-out clips of an evaluation
  c.dataset.joint_images = 0  # images per step that train beside the clips
  c.dataset.joint_name = "digits"  # the set they are from
  c.dataset.joint_format = "embedded"  # as format, path, ... of the clips
  c.dataset.joint_path = ""
  c.dataset.joint_crop = "random_resized"
  c.dataset.joint_flip = True
  # Sets on disk: input_pipeline/stores.py, folders.py, windows.py, crops.py.
  c.dataset.format = "embedded"  # "folder", "tfds", "shards"; "auto": path's
  c.dataset.path = REQUIRED  # folder of the data, of all formats but embedded
  c.dataset.lists = ""  # of "folder": folder of the official lists; "": path
  c.dataset.fold = 1  # of "folder": which of UCF-101's three splits
  c.dataset.mixture = ()  # train on several: "WEIGHT:FOLDER of shards" each,
  # weights of clips; evaluations read path
  c.dataset.stride = 1  # frames of the video from one of the clip to the next
  c.dataset.train_window = "random"  # which part of a video; windows.py
  c.dataset.eval_window = "centre"
  c.dataset.short_videos = "error"  # "hold": repeat their last frame
  c.dataset.train_crop = "random"  # which part of the frame; crops.py
  c.dataset.eval_crop = "centre"
  c.dataset.short_side = 0  # pixels before cropping `size`; 0: `size`
  c.dataset.scale = (0.8, 1.0)  # of "random_resized": share of the side (spec)
  c.dataset.flip = False  # half of the training clips, left for right
  c.dataset.filter = "bicubic"  # of resizing; Pillow's, antialiased
  c.dataset.workers = 0  # processes that decode; 0: two threads

  c.mesh = ml_collections.ConfigDict()
  c.mesh.data = -1  # devices along the batch; -1: all that are left
  c.mesh.fsdp = 1  # devices that share the parameters and the batch
  c.mesh.tensor = 1  # devices that share each layer's work, by `rules`
  # (regex, mesh axis of each of the last dimensions) of parameters, by path;
  # the first match counts. What is large is split over fsdp as well.
  c.mesh.rules = ()

  c.log_every = 10  # steps between metrics lines
  c.checkpoint_every = 100  # steps
  c.checkpoints_to_keep = 2
  c.eval_every = 0  # steps; 0: only at the end
  c.profile_steps = (0, 0)  # first and last to trace into WORKDIR/profile

  c.evaluation = ml_collections.ConfigDict()  # besides the usual scores
  c.evaluation.protocols = ()  # names of evaluation/protocols/table.py
  c.evaluation.num = 256  # clips of each; the name in results/ says so
  c.evaluation.inception_weights = ""  # files of models.weights.convert, of the
  c.evaluation.i3d_weights = ""  # networks that those protocols read
  c.evaluation.c3d_weights = ""
  c.evaluation.lpips_weights = ""  # also adds LPIPS to reconstructions
  return c


def optimizer(
  b1: float, b2: float, warmup_steps: int
) -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.peak_learning_rate = 1e-4  # spec; then one cosine down to 0
  c.warmup_steps = warmup_steps  # linear from 0
  c.b1 = b1
  c.b2 = b2
  c.weight_decay = 0.0  # of kernels only
  c.clip_norm = 0.0  # global norm of the gradient; 0: no clipping
  return c


# Of a block: the middle channels of two convolutions that follow each other.
_CONV_RULES = (
  (r"/conv1/kernel$", ("tensor",)),
  (r"/conv2/kernel$", ("tensor", None)),
)
# Of a block: heads, and hidden units. Of large tables: rows.
_TRANSFORMER_RULES = (
  (r"/qkv/(kernel|bias)$", ("tensor", None)),
  (r"/out/kernel$", ("tensor", None, None)),
  (r"/mlp_in/(kernel|bias)$", ("tensor",)),
  (r"/mlp_out/kernel$", ("tensor", None)),
)
_TABLE_RULE = (r"/(factors|outputs)/\d+/embedding$", ("tensor", None))


def tokenizer() -> ml_collections.ConfigDict:
  """The final video tokenizer, 17 x 128 x 128 to 5 x 16 x 16 tokens (spec)."""
  c = common()
  c.algorithm = "tokenizer"
  c.mesh.rules = _CONV_RULES
  c.dataset.size = 128
  c.codebook_from_data = False  # of vq: rows from latents, not drawn (spec, v1)
  c.inflate_from = "none"  # workdir of an image tokenizer to start from

  c.tokenizer = ml_collections.ConfigDict()
  c.tokenizer.architecture = "cnn"  # spec; "vivit" or "hybrid": baselines
  c.tokenizer.base_channels = 128  # width of level 0 (spec)
  c.tokenizer.channel_multipliers = (1, 2, 2, 4)  # per level (spec)
  c.tokenizer.temporal_downsample = (False, True, True)  # per transition (spec)
  c.tokenizer.num_res_blocks = 4  # per level and at the bottom (spec)
  c.tokenizer.downsample = "conv4"  # spec; "conv3", or v1's "average"
  c.tokenizer.upsample = "depth_to_space"  # spec; or v1's "nearest"
  c.tokenizer.adaptive_norm = "position"  # spec; "global" (OM2), or "off"
  c.tokenizer.kept_frame = "last"  # of latent 0's (spec); "first" (OM2)
  c.tokenizer.temporal = True  # kernels of 3 frames; False: image tokenizer
  c.tokenizer.causal = True  # spec; False (v1): T a multiple of the stride
  c.tokenizer.padding = "edge"  # spec; "zero" (v1, OM2)
  c.tokenizer.norm_groups = 32  # spec
  c.tokenizer.norm_statistics = "frame"  # spec; "clip" (v1, OM2): not causal
  c.tokenizer.centred_pixels = False  # spec; True: networks see [-1, 1] (OM2)
  c.tokenizer.dtype = "float32"  # or "bfloat16"; parameters, statistics,
  # quantizer and losses stay in float32. (OM2: Open-MAGVIT2.)
  # Of each residual block or layer, what is computed again backwards: "off",
  # "all", or "dots" (models/remat.py).
  c.tokenizer.remat = "off"
  c.tokenizer.transformer = ml_collections.ConfigDict()  # of the baselines
  c.tokenizer.transformer.width = 512
  c.tokenizer.transformer.mlp_width = 2048
  c.tokenizer.transformer.num_heads = 8
  c.tokenizer.transformer.spatial_layers = 7  # of vivit, on each side
  c.tokenizer.transformer.temporal_layers = 7  # on each side
  c.tokenizer.transformer.latent_size = (16, 16)  # of vivit: its positions
  c.tokenizer.transformer.max_latent_frames = 5  # positions in time

  c.quantizer = ml_collections.ConfigDict()
  c.quantizer.name = "lfq"  # spec; "vq" (v1), "fsq" or "bsq"
  c.quantizer.bits = 18  # of lfq and bsq: vocabulary 2^18 (spec)
  c.quantizer.entropy_temperature = 0.01  # all but fsq (spec)
  c.quantizer.entropy_groups = 0  # of lfq, bsq; 0: exact up to 18 bits
  c.quantizer.codebook_size = 1024  # of vq (spec, v1)
  c.quantizer.embedding_dim = 256  # of vq (spec, v1)
  c.quantizer.normalize = False  # of vq: to unit length before comparing
  c.quantizer.levels = (8, 8, 8, 5, 5, 5)  # of fsq: 64,000 codes

  c.discriminator = ml_collections.ConfigDict()
  c.discriminator.base_channels = 128  # spec
  c.discriminator.channel_multipliers = (2, 4, 4, 4, 4)  # per halving (spec)
  c.discriminator.pool = "blur"  # spec; "average" (v1)

  c.loss = ml_collections.ConfigDict()  # weights; pixels are in [0, 1]
  c.loss.reconstruction = 5.0  # mean squared error (spec)
  c.loss.perceptual = 0.1  # of every frame (spec, for Google's own ResNet-50)

  # "resnet50": mean squared error of the logits (spec); "lpips_vgg": LPIPS
  # v0.1, which others weight with 1; "off": the term is left out.
  c.loss.perceptual_network = "resnet50"
  c.loss.perceptual_weights = REQUIRED  # written by models/weights/convert.py
  c.loss.adversarial = 0.1  # spec
  c.loss.gan = "non_saturating"  # spec; or "hinge"
  c.loss.r1 = 10.0  # no 1/2, sum over the clip (spec)
  c.loss.r1_interval = 1  # steps (spec); the penalty is scaled by it
  c.loss.lecam = 0.001  # spec
  c.loss.lecam_decay = 0.999  # spec
  c.loss.commitment = 0.25  # spec
  c.loss.codebook = 1.0  # of vq (spec, v1)
  c.loss.joint_images = 1.0  # of all the losses of dataset.joint_images
  c.loss.entropy = 0.1  # spec, after annealing
  c.loss.entropy_start_factor = 3.0  # spec: 3x at step 0, linear down to 1x
  c.loss.entropy_annealing_steps = 2000  # spec

  c.health_every = 100  # steps; see magvit/tokenizer/health.py
  c.optimizer = optimizer(b1=0.0, b2=0.99, warmup_steps=1000)  # spec; warm-up
  # of v2 is not published, v1's is one epoch
  c.ema_decay = 0.999  # of the generator, from step 0 (spec)
  return c


def masked() -> ml_collections.ConfigDict:
  """MAGVIT-L on 5 x 16 x 16 tokens with factorised vocabulary (spec)."""
  c = common()
  c.algorithm = "masked"
  c.mesh.rules = _TRANSFORMER_RULES
  c.dataset.size = 128
  c.tokenizer_workdir = REQUIRED  # of a trained tokenizer; it is copied

  c.transformer = ml_collections.ConfigDict()
  c.transformer.num_layers = 24  # L (spec)
  c.transformer.width = 1024
  c.transformer.mlp_width = 4096
  c.transformer.num_heads = 16
  c.transformer.factor_bits = (9, 9)  # bits of each sub-token (spec)
  c.transformer.dropout = 0.1  # of hidden units and of attention (spec)
  c.transformer.num_classes = 101
  c.transformer.remat = "off"  # or "all", "dots": models/remat.py
  c.transformer.dtype = "float32"  # or "bfloat16"; parameters, statistics,
  # softmax and losses stay in float32

  c.tasks = ml_collections.ConfigDict()  # relative frequency in training;
  c.tasks.class_conditional = 1.0  # what is given: magvit/generators/tasks.py
  c.tasks.frame_prediction = 0.0
  c.tasks.class_conditional_frame_prediction = 0.0
  c.tasks.interpolation = 0.0  # between the first and the last frame
  c.tasks.central_outpainting = 0.0
  c.tasks.vertical_outpainting = 0.0  # of a strip of full height
  c.tasks.horizontal_outpainting = 0.0  # of a strip of full width
  c.tasks.dynamic_outpainting = 0.0  # of a strip that moves to the right
  c.tasks.central_inpainting = 0.0
  c.tasks.dynamic_inpainting = 0.0  # of a box that moves to the right
  c.condition_frames = 5  # of frame prediction: K600 (spec)
  c.label_drop = 0.1  # share of class labels replaced by "no class" (spec)
  c.label_smoothing = 1e-4  # per sub-token head (spec, v1)
  c.mask_ratio_per_clip = False  # else one ratio for the whole batch (v1)
  c.masks_per_clip = 1  # independent masks of one encoded clip in a step

  c.sampling = ml_collections.ConfigDict()
  c.sampling.steps = 12  # forward passes (spec)
  c.sampling.schedule = "cosine"  # of the share left masked (spec)
  c.sampling.choice_temperature = 32.0  # spec: K600, cosine
  # guidance: logits + guidance * (logits - unconditional), 0 is unguided. It is
  # the other convention's scale - 1: the papers' "scale 25" is 24 (spec).
  c.sampling.guidance = 0.0
  c.sampling.guidance_schedule = "constant"  # "power_cosine": 0, then rising
  c.sampling.guidance_power = 4.0  # of power_cosine; MDT's, v2's is unpublished
  c.sampling.temperature = 1.0  # of drawing tokens (v1); 0: the likeliest
  # Of tasks given pixels: "sample", or "likeliest", without guidance or noise:
  # one clip for each condition, closest to the hidden one on average.
  c.sampling.completion = "sample"
  c.sampling.replace_condition_pixels = False  # paste what is given (spec, v1)
  c.sampling.samples_per_class = 10  # generated clips scored in an evaluation

  c.optimizer = optimizer(b1=0.9, b2=0.96, warmup_steps=5000)  # spec, v1
  c.optimizer.weight_decay = 0.045  # spec, v1
  c.optimizer.clip_norm = 1.0  # spec, v1
  return c


def autoregressive() -> ml_collections.ConfigDict:
  """MAGVIT-v2's AR-LM of 840M on 5 x 16 x 16 tokens (spec)."""
  c = common()
  c.algorithm = "autoregressive"
  c.mesh.rules = (*_TRANSFORMER_RULES, _TABLE_RULE)
  c.dataset.size = 128
  c.tokenizer_workdir = REQUIRED  # of a trained tokenizer; it is copied

  c.transformer = ml_collections.ConfigDict()
  c.transformer.num_layers = 24  # L, from the published size
  c.transformer.width = 1024
  c.transformer.mlp_width = 4096
  c.transformer.num_heads = 16
  c.transformer.factor_bits = (18,)  # of each sub-token; from the size, too
  c.transformer.tie_embeddings = False  # one table in and out; from the size
  # Of [bos] [class] and the given tokens among themselves: "causal", or
  # "bidirectional" (VideoPoet's prefix-LM).
  c.transformer.prefix_attention = "causal"
  c.transformer.dropout = 0.1  # of hidden units and of attention (v1)
  c.transformer.num_classes = 101
  c.transformer.remat = "off"  # or "all", "dots": models/remat.py
  c.transformer.dtype = "float32"  # or "bfloat16"; parameters, statistics,
  # softmax and losses stay in float32

  c.tasks = ml_collections.ConfigDict()  # relative frequency in training
  c.tasks.class_conditional = 1.0
  c.tasks.frame_prediction = 0.0
  c.tasks.class_conditional_frame_prediction = 0.0
  c.condition_frames = 5  # of frame prediction: K600 (spec)
  c.label_drop = 0.1  # share of class labels replaced by "no class"
  c.label_smoothing = 1e-4  # per sub-token head (v1)
  c.loss_chunks = 1  # of a clip; the logits of one of them exist at a time

  c.sampling = ml_collections.ConfigDict()
  c.sampling.temperature = 1.0  # logits are divided by it
  c.sampling.top_k = 0  # draw from as many, the most likely; 0: all
  c.sampling.top_p = 1.0  # draw from the fewest that hold this share; 1: all
  c.sampling.guidance = 0.0  # logits + guidance * (logits - unconditional)
  c.sampling.samples_per_class = 10  # generated clips scored in an evaluation

  # Not published for the AR-LM: v1's of the masked model.
  c.optimizer = optimizer(b1=0.9, b2=0.96, warmup_steps=5000)
  c.optimizer.weight_decay = 0.045
  c.optimizer.clip_norm = 1.0
  return c
