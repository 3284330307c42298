"""The flags of `python -m input_pipeline.prepare`."""

import argparse
import os

from input_pipeline.sources import own_folders
from storage import paths

SPLITS = ("train", "held_out")
CUT = ("film", "shots")  # formats whose videos are cut at their shots
_SETS = ("ucf101", "kinetics400", "kinetics600", "ssv2", "bair")


def parser() -> argparse.ArgumentParser:
  """The flags, with their meaning for `--help`."""
  made = argparse.ArgumentParser(
    description="Makes shards that training reads from raw images and videos."
  )
  add = made.add_argument
  layouts = ["classes", *_SETS, *CUT]
  add("--format", choices=layouts, help="layout of --input; film needs none")
  folder = paths.argument
  media = "folder of the raw media; of film: the film, if it is at hand"
  add("--input", type=folder, default="", help=media)
  lists = "folder of the lists; default: --input"
  add("--lists", type=folder, default="", help=lists)
  output = "folder of the shards; each split is a folder in it"
  add("--output", type=folder, help=output)
  which = "split to make, by default train; film and shots make both"
  add("--split", choices=SPLITS, help=which)
  which = "folder of the split held_out; default: the only one there is"
  add("--held_out", choices=own_folders.HELD_OUT, default="", help=which)
  share = "share held out, by names, of a folder without that folder"
  default = own_folders.HELD_OUT_SHARE
  add("--held_out_share", type=float, default=default, help=share)
  add("--fold", type=int, default=1, help="split of UCF-101's lists: 1, 2 or 3")
  cores = os.cpu_count()
  add("--workers", type=int, default=cores, help="number of processes")
  per_shard = "number of listed examples for each shard"
  add("--examples_per_shard", type=int, default=256, help=per_shard)
  broken = "share of the examples that may be broken; they are left out"
  add("--max_broken", type=float, default=0.01, help=broken)
  again = "folder of shards to read again; nothing is made"
  add("--check", type=folder, help=again)
  copies = "store smaller copies, by the flags that follow"
  add("--reencode", action="store_true", help=copies)
  pixels = "pixels of the copies' short side at most; 0: no limit; film: 64"
  add("--short_side", "--size", type=int, help=pixels)
  add("--fps", type=float, default=0, help="frames per second; 0: every frame")
  rate = (
    "rate factor of H.264; 0 is lossless; default: 18, of film and shots 10"
  )
  add("--crf", type=int, help=rate)
  keyframes = "number of frames from a keyframe to the next"
  add("--keyframes", type=int, default=12, help=keyframes)
  add("--quality", type=int, default=95, help="quality of JPEG, 1 to 95")
  shortest = "frames of the shortest piece of a shot (film, shots)"
  add("--frames", type=int, default=17, help=shortest)
  start = "seconds at the start of each video that are left out (shots)"
  add("--first_seconds", type=float, default=0, help=start)
  end = "seconds at its end, like those of credits (shots)"
  add("--last_seconds", type=float, default=0, help=end)
  whose = "whose the videos are, for those who see pictures (shots)"
  add("--attribution", default="", help=whose)
  return made
