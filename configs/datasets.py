"""How the papers cut each real data set; dataset.path is left to the user.

What is not published is marked as ours. Windows and crops are explained in
input_pipeline/windows.py and crops.py, layouts of folders in
input_pipeline/sources/folders.py, and docs/data.md has the commands.
"""

import ml_collections


def _real(c: ml_collections.ConfigDict, name: str) -> None:
  c.dataset.name = name
  c.dataset.format = "auto"
  c.dataset.shuffle = True


def imagenet2012(c: ml_collections.ConfigDict) -> None:
  """1,281,167 training and 50,000 held-out images of 1000 classes."""
  _real(c, "imagenet2012")
  c.dataset.train_crop = "random_resized"  # 80-100 % of the side (spec)
  c.dataset.flip = True  # spec


def ucf101(c: ml_collections.ConfigDict) -> None:
  """9,537 training and 3,783 held-out videos of 101 classes, in split 1.

  Clips are v1's: short side 128, a random crop of 128 x 128, consecutive
  frames. No flip is published.
  """
  _real(c, "ucf101")


def kinetics600(c: ml_collections.ConfigDict) -> None:
  """About 384,000 training and 29,000 held-out videos of 600 classes.

  An evaluation takes 6 clips of a video, 2 windows by 3 crops (spec), here the
  first and the last window, and the ends and the middle of the long side.
  Training crops are not published, and are v1's of UCF-101 here. Videos that
  are shorter than a clip repeat their last frame (ours).
  """
  _real(c, "kinetics600")
  c.dataset.eval_window = "ends"
  c.dataset.eval_crop = "three"
  c.dataset.filter = "bilinear"  # filter of the evaluation (spec)
  c.dataset.short_videos = "hold"


def kinetics400(c: ml_collections.ConfigDict) -> None:
  """About 240,000 training and 20,000 held-out videos of 400 classes.

  An evaluation takes three crops of the central window of a video (ours).
  """
  _real(c, "kinetics400")
  c.dataset.eval_crop = "three"
  c.dataset.short_videos = "hold"


def bair(c: ml_collections.ConfigDict) -> None:
  """43,264 training and 256 held-out videos of 30 frames of 64 x 64 pixels.

  Nothing is cut off. An evaluation takes the first window (spec);
  dataset.eval_window=all takes all 15 windows of 16 frames (the "debiased"
  scores).
  """
  _real(c, "bair")
  c.dataset.train_crop = "centre"
  c.dataset.eval_window = "first"


def ssv2(c: ml_collections.ConfigDict) -> None:
  """About 169,000 training and 24,000 held-out videos of 174 classes.

  There is no flip: some classes are mirror images of others. An evaluation
  takes 2 clips of a video (spec). Videos that are shorter than a clip repeat
  their last frame (ours).
  """
  _real(c, "ssv2")
  c.dataset.eval_window = "ends"
  c.dataset.short_videos = "hold"


def folder(c: ml_collections.ConfigDict, size: int) -> None:
  """Images or videos of one's own, in one folder or in one for each class.

  Everything is ours. What depends on the number of files is left to `automatic`
  (configs/base.py).
  """
  _real(c, "folder")
  c.dataset.size = size
  c.dataset.short_videos = "hold"  # no run ends at a video that is short
  c.num_steps, c.batch_size, c.dataset.eval_examples = 0, 0, 0
  c.automatic.eval_examples = 256


def film(c: ml_collections.ConfigDict, size: int) -> None:
  """Pieces of the shots of a film, of 17 to 33 frames each.

  Everything is ours. All held-out pieces are evaluated, up to 256.
  """
  _real(c, "film")
  c.dataset.size = size
  c.dataset.flip = True  # nothing in the film reads from left to right
  c.dataset.eval_examples = 0
  c.automatic.eval_examples = 256
