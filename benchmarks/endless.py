"""Whether a next-frame flow keeps its class in videos longer than its clips.

  python -m benchmarks.endless --workdir=FLOW --output=DIR [--frames=65]
    [--samples_per_class=10] [--seed=0]

FLOW is a workdir of `configs/next_frame_flow.py:digits`. Videos of all classes
are rolled out (`NextFrameFlow.endless`), and the judge of the digits, fitted on
real clips, classifies windows as long as a clip: DIR/endless.json has the share
of the videos that show their class in each, and of those that do so there and
in the first window. DIR/endless.png shows a video of each class.
"""

import argparse
import itertools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evaluation.metrics import digit_judge
from evaluation.show import pictures
from magvit import trained as trained_lib
from magvit.generators import next_frame_flow
from magvit.scoring import held_out
from storage import files

_SHOWN_EVERY = 4  # frames from one of the picture to the next


def roll_out(
  model: trained_lib.Trained, label_B: np.ndarray, frames: int, seed: int
) -> np.ndarray:
  """Videos uint8 (B, `frames`, H, W, 3) of the classes.

  Raises:
    ValueError: a model that is no next-frame flow of the digits' clips, or a
      number of frames below a clip's, or one that the tokenizer does not take.
  """
  flow, dataset = model.algorithm, model.config.dataset
  if not isinstance(flow, next_frame_flow.NextFrameFlow):
    raise ValueError(
      f"{model.workdir} is a model of {model.config.algorithm!r}, and only a"
      " next_frame_flow goes on without end"
    )
  clip = dataset.frames
  if not held_out.knows_classes(dataset) or clip < 2:
    raise ValueError(
      f"{model.workdir} is trained on {clip} frames of {dataset.name!r}, and"
      " the judge knows clips of 'digits'"
    )
  if frames < clip:
    raise ValueError(f"--frames={frames} must be at least a clip's {clip}")
  shape = (frames, dataset.size, dataset.size)
  wanted = flow.latents.tokens.sizes.latent(shape)[0]
  latents = flow.endless(
    model.params, jnp.asarray(label_B), jax.random.key(seed)
  )
  z_BthwC = jnp.concatenate(list(itertools.islice(latents, wanted)), axis=1)
  video = jax.jit(flow.latents.decode)(model.params, z_BthwC)["video"]
  return pictures.to_uint8(np.asarray(video))


def class_kept(
  judge: digit_judge.DigitJudge,
  video_BTHWC: np.ndarray,
  label_B: np.ndarray,
  window: int,
) -> list[dict[str, Any]]:
  """Scores of windows of so many frames, side by side: a dict for each.

  `class_accuracy` is the share of the videos that show their class in it, and
  `kept` the share of those that show it there and in the first window.
  """
  rows, first = [], None
  for start in range(0, video_BTHWC.shape[1] - window + 1, window - 1):
    hits = judge.classify(video_BTHWC[:, start : start + window]) == label_B
    first = hits if first is None else first
    rows.append(
      {
        "frames": [start, start + window - 1],
        "class_accuracy": float(hits.mean()),
        "kept": float((hits & first).mean()),
      }
    )
  return rows


def main() -> None:
  parser = argparse.ArgumentParser()
  add = parser.add_argument
  add("--workdir", required=True, help="folder of the next-frame flow")
  add("--output", required=True, help="folder of the JSON and the picture")
  add("--frames", type=int, default=65, help="frames of each video")
  add("--samples_per_class", type=int, default=10, help="videos of each class")
  add("--seed", type=int, default=0, help="seed of the noise")
  args = parser.parse_args()
  if args.samples_per_class < 1:
    parser.error(
      f"--samples_per_class={args.samples_per_class} must be above 0"
    )
  try:
    model = trained_lib.open_trained(args.workdir)
    label_B = np.tile(np.arange(model.num_classes), args.samples_per_class)
    video_BTHWC = roll_out(model, label_B, args.frames, args.seed)
  except ValueError as e:
    parser.error(str(e))
  dataset = model.config.dataset
  judge = held_out.fitted_judge(dataset.to_json())
  rows = class_kept(judge, video_BTHWC, label_B, dataset.frames)
  for row in rows:
    first, last = row["frames"]
    print(
      f"frames {first} to {last}: {row['class_accuracy']:.0%} show their class,"
      f" {row['kept']:.0%} there and at first"
    )
  strip_HWC = pictures.filmstrip(video_BTHWC[: model.num_classes], _SHOWN_EVERY)
  pictures.write_png(os.path.join(args.output, "endless.png"), strip_HWC)
  path = os.path.join(args.output, "endless.json")
  facts = {"step": model.step, "videos": len(label_B), "seed": args.seed}
  files.write_json(path, {**facts, "windows": rows})
  print(f"wrote {path}")


if __name__ == "__main__":
  main()
