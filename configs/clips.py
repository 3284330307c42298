"""The fields of the section `dataset`: which clips, and how they are cut."""

import ml_collections

REQUIRED = ""  # a path the user has to give on the command line


def clips() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  # Data set. "digits" and "photo" are embedded; on disk it says how folders are
  # laid out (docs/data.md).
  c.name = "digits"
  c.frames = 17  # clip length, 1 + a multiple of the temporal stride
  c.size = 32  # height and width of a clip, pixels
  # Path of the moving digits: "bounce" off the borders, or "cross" from one
  # border to the opposite one within each clip, or "drift" from the middle to
  # one side, whose first frame does not tell the direction.
  c.motion = "bounce"
  # Label of a clip: its "class", or the "motion" and class of a digit that
  # goes up, down, left or right ("cross" or "drift"): 40 of them.
  c.labels = "class"
  c.seed = 0  # seed of random clips, windows, crops and shuffling
  c.tokens = ""  # folder of --mode=tokenize to train on; "": pixels
  # Whether a finite set, or stored tokens, is shuffled anew in each epoch.
  # False keeps the source's order, in which pixels and tokens train the same.
  c.shuffle = False
  # Training clips that are used, at random or the first of an endless set; 0:
  # all.
  c.train_examples = 0
  # Held-out clips that an evaluation reads; 0: by `automatic`.
  c.eval_examples = 256
  c.joint_images = 0  # images per step that train beside the clips
  c.joint_name = "digits"  # data set of the joint images, as `name`
  c.joint_format = "embedded"  # store of the joint images, as `format`
  c.joint_path = ""  # folder of the joint images, as `path`
  c.joint_crop = "random_resized"  # crop of the joint images
  c.joint_flip = True  # whether half of the joint images are mirrored
  # Store of the clips: "embedded" sets are made as they are read; "folder",
  # "tfds" and "shards" lie on disk (docs/data.md); "auto" takes whichever of
  # the three `path` holds.
  c.format = "embedded"
  c.path = REQUIRED  # folder of the data; an embedded set needs none
  c.lists = ""  # folder of the lists of a "folder" set; "": `path`
  c.held_out = ""  # held-out folder or TFDS split; "": the only one
  # Share of the files that is held out, by a hash of their names, where a
  # "folder" set has neither lists nor a held-out folder.
  c.held_out_share = 0.1
  c.fold = 1  # official split of UCF-101 in a "folder": 1, 2 or 3
  # Sets to train on instead of `path`, each "WEIGHT:FOLDER" with a folder of
  # shards; clips are drawn in proportion to the weights. Evaluations read
  # `path`.
  c.mixture = ()
  c.stride = 1  # step from one frame of the clip to the next, in frames
  # Frames of a video that a training clip shows: "random", "first", "centre",
  # "ends" or "all" (input_pipeline/windows.py).
  c.train_window = "random"
  c.eval_window = "centre"  # as `train_window`, for held-out clips
  # Treatment of videos shorter than a clip: "error", or "hold", which repeats
  # their last frame.
  c.short_videos = "error"
  # Part of the frame that a training clip keeps: "centre", "random",
  # "random_resized", "three", "squash" or "adm" (input_pipeline/crops.py).
  c.train_crop = "random"
  c.eval_crop = "centre"  # as `train_crop`, for held-out clips
  c.short_side = 0  # short side before cropping, pixels; 0: `size`
  # Smallest and largest share of the side that "random_resized" keeps (spec).
  c.scale = (0.8, 1.0)
  c.flip = False  # whether half of the training clips are mirrored
  # Filter of resizing, Pillow's, antialiased: "box", "bilinear", "hamming",
  # "bicubic" or "lanczos".
  c.filter = "bicubic"
  c.workers = 0  # processes that decode training clips; 0: two threads
  return c
