"""The peer's side of `benchmarks/duel.py`: Open-MAGVIT2's video tokenizer.

Encoder, decoder, LFQ, losses, discriminator, moving average, learning rate and
the step itself are the modules of a checkout of TencentARC/SEED-Voken, run as
they are, with the recipe of its config of UCF-101. Its class of the model comes
from Lightning, which is replaced by the few methods that it calls. What differs
from a run of theirs, and only this:

- Sizes: width, blocks, bits and the number of groups of the norms; the width of
  the discriminator, whose share of the tokenizer's is that of the config.
- SqueezeNet's distance in place of LPIPS, as on our side.
- Weights are drawn, not inflated from an image tokenizer, as on our side.
- The learning rate and the decay of the average may be given; the warm-up and
  the cosine span the duel's steps.
- bfloat16 by autocast on GPUs (the config has float16, another one bfloat16),
  float32 on CPUs.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import importlib
import importlib.util
import pathlib
import subprocess
import sys
import types
from typing import Any

import ml_collections
import numpy as np

from benchmarks import open_magvit2_network

_RECIPE = "configs/Open-MAGVIT2/gpu/ucf101_lfqfan_128_L.yaml"
_PACKAGE = "src.Open_MAGVIT2"
_DISCRIMINATOR_SHARE = 64 / 128  # width over the tokenizer's, as published
_CLOSE = 0.05  # largest difference of the numbers of parameters


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of the peer's network; see `open_magvit2_network.build`."""

  width: int
  multipliers: tuple[int, ...]
  blocks: int
  bits: int
  size: int
  groups: int


def check(folder: pathlib.Path) -> None:
  """Checks that the peer can be run at all.

  Raises:
    ValueError: no checkout, or a package that it needs is missing.
  """
  open_magvit2_network.source(folder, "video")
  if not (folder / _RECIPE).is_file():
    raise ValueError(
      f"--peer={folder} has no file {_RECIPE}: give the folder of a checkout of"
      " github.com/TencentARC/SEED-Voken"
    )
  for package in ("torch", "einops"):
    if importlib.util.find_spec(package) is None:
      raise ValueError(
        f"the peer needs the package {package}, which is not installed: pip"
        " install torch einops (or run our side alone, --only=ours)"
      )


def check_comparable(config: ml_collections.ConfigDict) -> None:
  """Checks that the peer's network can have the shapes of the config's tokens.

  Raises:
    ValueError: another quantizer, other strides, or another perceptual network;
      the field is named.
  """
  t = config.tokenizer
  if config.quantizer.name != "lfq" or config.quantizer.bits > 18:
    raise ValueError(
      f"quantizer.name={config.quantizer.name!r} with"
      f" {config.quantizer.bits} bits has no peer: Open-MAGVIT2 has lfq, whose"
      " entropy takes all codes of at most 18 bits"
    )
  halvings = tuple(m != 1 for m in t.channel_multipliers[:-1])
  if halvings != tuple(t.temporal_downsample):
    raise ValueError(
      f"tokenizer.temporal_downsample={tuple(t.temporal_downsample)} has no"
      " peer: Open-MAGVIT2 halves time below each level whose multiplier is not"
      f" 1, which gives {halvings} for tokenizer.channel_multipliers="
      f"{tuple(t.channel_multipliers)}"
    )
  if config.loss.perceptual_network != "squeezenet":
    raise ValueError(
      f"loss.perceptual_network={config.loss.perceptual_network!r}: both sides"
      " of the duel train on squeezenet's distance; add"
      " --set=loss.perceptual_network=squeezenet"
    )


def match(
  parameters: int, count: Callable[[int], int], step: int
) -> tuple[int, int]:
  """The width whose number of parameters is closest, and that number.

  Args:
    parameters: number to come close to.
    count: number of parameters by width; grows with it.
    step: widths are its multiples.

  Raises:
    ValueError: the closest differs by more than 5 %.
  """
  tried = {}
  width = 0
  while not tried or max(tried.values()) < parameters:
    width += step
    tried[width] = count(width)
  best = min(tried, key=lambda w: abs(tried[w] - parameters))
  if abs(tried[best] - parameters) > _CLOSE * parameters:
    raise ValueError(
      f"no width of the peer, a multiple of {step}, has within {_CLOSE:.0%} of"
      f" our {parameters:,} parameters; the closest, {best}, has"
      f" {tried[best]:,}: give another --width, --peer_blocks or"
      " --set=tokenizer.norm_groups=N"
    )
  return best, tried[best]


def find_sizes(
  folder: pathlib.Path,
  config: ml_collections.ConfigDict,
  parameters: int,
  blocks: int = 0,
) -> tuple[Sizes, int]:
  """Sizes of the peer for a config, and the number of its parameters.

  Args:
    folder: the checkout.
    config: of our side.
    parameters: number of parameters of our tokenizer.
    blocks: residual blocks of a level; 0: as many as ours.

  Raises:
    ValueError: no width has about as many parameters.
  """
  import torch

  t = config.tokenizer
  sizes = lambda width: Sizes(
    width=width,
    multipliers=tuple(t.channel_multipliers),
    blocks=blocks or t.num_res_blocks,
    bits=config.quantizer.bits,
    size=config.dataset.size,
    groups=t.norm_groups,
  )

  def count(width: int) -> int:
    with torch.device("meta"):
      pair = open_magvit2_network.build(
        folder, "video", **dataclasses.asdict(sizes(width))
      )
    return sum(p.numel() for network in pair for p in network.parameters())

  width, peer_parameters = match(parameters, count, t.norm_groups)
  return sizes(width), peer_parameters


def recipe(folder: pathlib.Path) -> dict[str, Any]:
  """The peer's own recipe: its settings of the model, and its epochs."""
  import yaml

  read = yaml.safe_load((folder / _RECIPE).read_text())
  model = read["model"]["init_args"]
  return {
    "file": _RECIPE,
    "epochs": read["trainer"]["max_epochs"],
    **{name: value for name, value in model.items() if name != "ddconfig"},
    # YAML takes a number like 1e-4, without a point, for text.
    "learning_rate": float(model["learning_rate"]),
  }


def commit(folder: pathlib.Path) -> str:
  """The checkout's commit; "" if it is no repository of git."""
  answer = subprocess.run(
    ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True
  )
  return answer.stdout.strip() if answer.returncode == 0 else ""


class Peer:
  """The peer's tokenizer with its step of training."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    settings: Any,
    frames_BHWC: np.ndarray,
  ):
    """`frames_BHWC` are some to compare the perceptual distances on."""
    import torch

    from benchmarks import duel_perceptual

    self._torch, self._seed = torch, config.seed
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(settings.cores)
    torch.backends.cudnn.benchmark = True
    self._settings = settings.peer
    sizes = dict(settings.peer["sizes"])
    self._sizes = Sizes(**{**sizes, "multipliers": (*sizes["multipliers"],)})
    distance = duel_perceptual.load(settings.weights, frames_BHWC)
    folder = pathlib.Path(settings.peer["folder"])
    self._recipe = recipe(folder)
    self._model_class = _import(folder, lambda: distance, self._sizes.groups)

  def begin(self, num_steps: int) -> None:
    torch = self._torch
    torch.manual_seed(self._seed)
    self._num_steps, self._steps = num_steps, 0
    model = self._model_class(**self._arguments()).to(self._device)
    model.train()
    model.model_ema.decay.fill_(self._settings["ema_decay"])
    # One epoch of all steps: the peer counts its warm-up in epochs.
    loader = range(num_steps)
    model.trainer = types.SimpleNamespace(
      global_step=0,
      max_epochs=1,
      train_dataloader=loader,
      is_global_zero=False,
      world_size=1,
      datamodule=types.SimpleNamespace(_train_dataloader=lambda: loader),
    )
    model.pair = [x["optimizer"] for x in model.configure_optimizers()]
    self._model = model

  def _arguments(self) -> dict[str, Any]:
    """Arguments of the peer's class: the recipe's with the duel's sizes."""
    sizes = self._sizes
    arguments = dict(self._recipe)
    epochs = arguments.pop("epochs")
    del arguments["file"]
    losses = dict(arguments["lossconfig"])
    losses["params"] = {
      **losses["params"],
      "disc_ndf": discriminator_width(sizes.width),
    }
    return {
      **arguments,
      "ddconfig": {
        "double_z": False,
        "z_channels": sizes.bits,
        "resolution": sizes.size,
        "in_channels": 3,
        "out_ch": 3,
        "ch": sizes.width,
        "ch_mult": sizes.multipliers,
        "num_res_blocks": sizes.blocks,
      },
      "lossconfig": losses,
      "n_embed": 2**sizes.bits,
      "embed_dim": sizes.bits,
      "learning_rate": self._settings["learning_rate"],
      "image_pretrain_path": None,
      "wp": arguments["wp"] / epochs,
    }

  def train(self, batch: Mapping[str, np.ndarray]) -> None:
    # Past its end the cosine would rise again.
    step = min(self._steps, self._num_steps - 1)
    self._model.trainer.global_step = step
    with self._autocast():
      self._model.training_step({"video": self._tensor(batch["video"])}, step)
    self._model.on_train_batch_end()
    self._steps += 1
    self._wait()

  def reconstruct(
    self, video_BTHWC: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    model, torch = self._model, self._torch
    model.eval()
    with torch.no_grad(), model.ema_scope(), self._autocast():
      quantized, _, ids, _ = model.encode(self._tensor(video_BTHWC))
      video = model.decode(quantized).float().clamp(-1, 1)
    model.train()
    video = np.moveaxis(video.cpu().numpy(), 1, -1)
    return 0.5 * (video + 1.0), ids.cpu().numpy()

  def facts(self) -> dict[str, Any]:
    torch, model = self._torch, self._model
    count = lambda *modules: sum(
      p.numel() for module in modules for p in module.parameters()
    )
    on_gpu = self._device == "cuda"
    return {
      "parameters": count(model.encoder, model.decoder),
      "discriminator_parameters": count(model.loss.discriminator),
      "device": torch.cuda.get_device_name() if on_gpu else "cpu",
      "torch": torch.__version__,
      "dtype": "bfloat16" if on_gpu else "float32",
      "averaged_over": self._settings["ema_decay"],
      "sizes": dataclasses.asdict(self._sizes),
      "published_recipe": self._recipe,
      "learning_rate": self._settings["learning_rate"],
      "betas": list(model.pair[0].defaults["betas"]),
      "discriminator_width": discriminator_width(self._sizes.width),
    }

  def _tensor(self, video_BTHWC: np.ndarray):
    """Pixels as the peer sees them: (B, 3, T, H, W) in [-1, 1]."""
    x = self._torch.from_numpy(np.ascontiguousarray(video_BTHWC))
    x = x.to(self._device).permute(0, 4, 1, 2, 3).contiguous()
    return x.float() / 127.5 - 1.0

  def _autocast(self):
    enabled = self._device == "cuda"
    kind = self._torch.bfloat16
    return self._torch.autocast(self._device, kind, enabled=enabled)

  def _wait(self) -> None:
    if self._device == "cuda":
      self._torch.cuda.synchronize()


def discriminator_width(width: int) -> int:
  """Channels of the discriminator beside a tokenizer of a width."""
  return max(1, round(_DISCRIMINATOR_SHARE * width))


def _import(folder: pathlib.Path, make_distance: Callable, groups: int):
  """The peer's class of the model, for this process alone.

  Modules that the class needs and that are not at hand are replaced.
  """
  import torch

  class LightningModule(torch.nn.Module):
    """The methods of Lightning's that the peer calls in a step."""

    @property
    def global_step(self) -> int:
      return self.trainer.global_step

    def optimizers(self):
      return self.pair

    def manual_backward(self, loss) -> None:
      loss.backward()

    def log_dict(self, *unused, **also_unused) -> None:
      pass

  def instantiate(config: Mapping[str, Any]):
    module, _, name = config["target"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**config["params"])

  replaced = {
    "lightning": {"LightningModule": LightningModule},
    "pytorch_lightning": {},
    "main": {"instantiate_from_config": instantiate},
    f"{_PACKAGE}.modules.losses.lpips": {"LPIPS": make_distance},
  }
  for name, members in replaced.items():
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
  sys.path.append(str(folder))  # behind ours, for it has a main.py, too
  networks = importlib.import_module(
    f"{_PACKAGE}.modules.diffusionmodules.improved_video_model"
  )
  open_magvit2_network.set_groups(networks, groups)
  return importlib.import_module(f"{_PACKAGE}.models.video_lfqgan").VQModel
