"""Encoder and decoder of a checkout of TencentARC/SEED-Voken, in torch.

torch is imported where it is needed, so that a folder is checked without it.
"""

import importlib.util
import pathlib

KINDS = {"video": "improved_video_model.py", "image": "improved_model.py"}


def source(folder: pathlib.Path, kind: str) -> pathlib.Path:
  """The file that defines the networks of a kind, "video" or "image".

  Raises:
    ValueError: the folder has no such file.
  """
  path = folder / "src/Open_MAGVIT2/modules/diffusionmodules" / KINDS[kind]
  if not path.is_file():
    raise ValueError(
      f"--peer={folder} has no file {path.relative_to(folder)}: give the folder"
      " of a checkout of github.com/TencentARC/SEED-Voken"
    )
  return path


def build(
  folder: pathlib.Path,
  kind: str,
  width: int = 128,
  multipliers: tuple[int, ...] = (1, 2, 2, 4),
  blocks: int = 4,
  bits: int = 18,
  size: int = 128,
  groups: int = 32,
):
  """Builds (encoder, decoder) as torch draws them; defaults are published.

  Args:
    folder: the checkout.
    kind: "video" or "image".
    width: channels of the first level, a multiple of `groups`.
    multipliers: width of each level, over `width`.
    blocks: residual blocks of a level.
    bits: bits of an id.
    size: side of a frame, in pixels.
    groups: groups of each group norm.
  """
  import torch

  path = source(folder, kind)
  spec = importlib.util.spec_from_file_location("peer", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  set_groups(module, groups)
  torch.manual_seed(0)
  settings = dict(
    ch=width,
    out_ch=3,
    in_channels=3,
    num_res_blocks=blocks,
    z_channels=bits,
    ch_mult=tuple(multipliers),
    resolution=size,
  )
  return module.Encoder(**settings), module.Decoder(**settings)


def set_groups(module, groups: int) -> None:
  """Makes the networks of the peer's module with other group norms.

  The file has 32 groups as a literal, and asks its global `nn` for the norm.
  """
  from torch import nn

  class WithGroups:
    def __getattr__(self, name):
      return getattr(nn, name)

    def GroupNorm(self, num_groups, num_channels, **settings):
      del num_groups  # the literal
      return nn.GroupNorm(groups, num_channels, **settings)

  module.nn = WithGroups()
