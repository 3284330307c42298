"""Products of a tokenizer's training step, beside those it cannot do without.

  python -m benchmarks.step_flops [--output=FILE]

Counts one clip (or image) with magvit/cost/floor.py; nothing is compiled or
run. It takes two minutes. The overhead is the share of the step that its
networks do not need. The output is the table of docs/plan_a_job.md.
"""

import argparse
import json
import pathlib

from magvit.cost import floor
from magvit.workdir import folder as workdir_lib

# Name -> (config, changes of it).
_ROWS = {
  "video tokenizer": ("configs/tokenizer_video.py:ucf101", {}),
  "R1 every 16 steps": (
    "configs/tokenizer_video.py:ucf101",
    {"loss.r1_interval": 16},
  ),
  "MAGVIT v1's": ("configs/tokenizer_video.py:v1_l", {}),
  "image tokenizer": ("configs/tokenizer_image.py:imagenet128", {}),
}


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  rows = []
  for name, (file, changes) in _ROWS.items():
    config = workdir_lib.read_config_file(file)
    config.update_from_flattened_dict({"batch_size": 1, **changes})
    parts, step = floor.measure(config)
    least = sum(parts.values())
    if not rows:
      print(f"| GFLOP of | {' | '.join(parts)} | floor | step | overhead |")
      print("|---" * (len(parts) + 4) + "|")
    numbers = [f"{x / 1e9:,.0f}" for x in (*parts.values(), least, step)]
    row = " | ".join(numbers)
    print(f"| {name} | {row} | {step / least - 1:.2%} |", flush=True)
    rows.append({"row": name, "parts": parts, "step": step})
  if args.output:
    args.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
  main()
