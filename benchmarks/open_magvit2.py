"""Our network against Open-MAGVIT2's, with the same random weights.

  python -m benchmarks.open_magvit2 --peer=SEED-VOKEN_FOLDER [--kind=video]
    [--width=128] [--size=128] [--frames=17] [--repeats=3] [--output=FILE]

Builds the encoder and decoder of a checkout of TencentARC/SEED-Voken, draws all
their weights (norms and biases, too), imports their state dict as
`--mode=import` would, and compares latents, ids and pixels. Then both encode
and decode the same clip in turn, on the same number of threads. It needs torch
and einops beside requirements.txt. Read ratios, not times.
"""

import argparse
import json
import os
import pathlib
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import open_magvit2_network
from benchmarks import timing
from configs import tokenizer_image
from configs import tokenizer_video
from magvit.modes import import_weights as import_mode

_CONFIGS = {"video": tokenizer_video, "image": tokenizer_image}


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument(
    "--peer", type=pathlib.Path, required=True, help="folder of SEED-Voken"
  )
  parser.add_argument(
    "--kind", choices=sorted(_CONFIGS), default="video", help="tokenizer"
  )
  parser.add_argument("--width", type=int, default=128, help="a multiple of 32")
  parser.add_argument(
    "--multipliers",
    type=int,
    nargs="+",
    default=[1, 2, 2, 4],
    help="width of each level, over --width",
  )
  parser.add_argument(
    "--blocks", type=int, default=4, help="residual blocks a level"
  )
  parser.add_argument("--bits", type=int, default=18, help="bits of an id")
  parser.add_argument("--size", type=int, default=128, help="side, pixels")
  parser.add_argument(
    "--frames", type=int, default=17, help="frames of a video"
  )
  parser.add_argument("--repeats", type=int, default=3, help="timed runs")
  parser.add_argument("--threads", type=int, default=2, help="torch's threads")
  parser.add_argument("--checkpoint", help="file for the peer's state dict")
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  try:
    open_magvit2_network.source(args.peer, args.kind)
  except ValueError as error:
    parser.error(str(error))
  torch.set_num_threads(args.threads)
  encoder, decoder = peer(args)
  state = {
    f"{part}.{name}": tensor
    for part, module in (("encoder", encoder), ("decoder", decoder))
    for name, tensor in module.state_dict().items()
  }
  if args.checkpoint:
    torch.save({"state_dict": state}, args.checkpoint)
  frames = args.frames if args.kind == "video" else 1
  video = np.random.default_rng(0).uniform(
    size=(1, frames, args.size, args.size, 3)
  )
  video = video.astype(np.float32)

  config = _CONFIGS[args.kind].get_config("open_magvit2")
  tensors = {k: v.numpy() for k, v in state.items()}
  ours, params, _ = import_mode.convert(
    "open_magvit2", tensors, config, "the peer"
  )
  encode = jax.jit(lambda p, v: ours(p, v, method="encode_latents"))
  decode = jax.jit(lambda p, z: ours(p, z, method="decode_latents"))

  def run_ours():
    z = encode(params, video)
    return z, decode(params, jnp.where(z >= 0, 1.0, -1.0))

  x = torch.from_numpy(np.moveaxis(2 * video - 1, -1, 1).copy())
  x = x if args.kind == "video" else x[:, :, 0]

  def run_peer():
    with torch.no_grad():
      z = encoder(x)
      return z, decoder(torch.where(z > 0, 1.0, -1.0))

  result = {
    "kind": args.kind,
    "width": args.width,
    "frames": frames,
    "size": args.size,
    "threads": args.threads,
    "cores": os.cpu_count(),
    **errors(run_ours(), run_peer(), lambda z: decode(params, z)),
  }
  runs = {"ours": run_ours, "peer": run_peer}
  times, _ = timing.seconds(runs, args.repeats)
  if args.repeats:
    medians = {k: statistics.median(v) for k, v in times.items()}
    result["seconds"] = times
    result["ratio"] = medians["ours"] / medians["peer"]
  text = json.dumps(result, indent=2)
  print(text)
  if args.output:
    args.output.write_text(text + "\n")


def peer(args):
  """Builds the peer's encoder and decoder with newly drawn weights."""
  pair = open_magvit2_network.build(
    args.peer,
    args.kind,
    width=args.width,
    multipliers=args.multipliers,
    blocks=args.blocks,
    bits=args.bits,
    size=args.size,
  )
  for network in pair:
    network.eval()
    for parameter in network.parameters():
      parameter.data += (
        0.1
        * parameter.std().nan_to_num(1.0).clamp(min=0.1)
        * torch.randn_like(parameter)
      )
      parameter.requires_grad_(False)
  return pair


def errors(outputs, peer_outputs, decode):
  """Largest differences, relative to the largest value, and differing bits.

  Pixels are decoded from the peer's bits: a latent within rounding of zero may
  have either sign, and `differing_latent` is the largest one that differs.
  """
  z = np.asarray(outputs[0])
  z_peer, video_peer = (np.asarray(x) for x in peer_outputs)
  if z_peer.ndim == 4:
    z_peer, video_peer = z_peer[:, :, None], video_peer[:, :, None]
  z_peer = np.moveaxis(z_peer, 1, -1)
  video_peer = 0.5 * (np.moveaxis(video_peer, 1, -1) + 1.0)
  video = np.asarray(decode(np.where(z_peer > 0, 1.0, -1.0)))
  relative = lambda a, b: float(np.abs(a - b).max() / np.abs(b).max())
  differ = (z >= 0) != (z_peer > 0)
  largest = np.abs(z_peer[differ]).max(initial=0.0) / np.abs(z_peer).max()
  return {
    "latent_error": relative(z, z_peer),
    "differing_bits": int(differ.sum()),
    "differing_latent": float(largest),
    "bits": z.size,
    "pixel_error": relative(video, video_peer),
  }


if __name__ == "__main__":
  main()
