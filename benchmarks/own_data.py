"""From folders of one's own to samples: four commands, their time and scores.

  python -m benchmarks.own_data --output=DIR [--layouts=flat,classes]

Makes OUTPUT/pictures/LAYOUT, 160 crops of the two photographs that
scikit-learn bundles, and OUTPUT/videos, 12 pans over them of odd sizes and
lengths; then runs the commands of docs/your_data.md and prints the minutes, the
CPU minutes and the scores of each, which OUTPUT/own_data.json keeps. A command
whose training is finished is not run again.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import av
import numpy as np
from PIL import Image
from sklearn import datasets

from benchmarks import seeds

PICTURES, VIDEOS = 160, 12
_CLASSES = ("lake", "flower")  # classes of the photographs, in their order


def write_pictures(
  folder: pathlib.Path, by_class: bool, count: int = PICTURES
) -> None:
  """Writes crops of both photographs in turn, 90 to 300 pixels wide."""
  for number in range(count):
    rng = np.random.default_rng(number)
    name, photo_HWC = _photograph(number)
    height, width = rng.integers(90, 300, 2)
    top, left = _place(photo_HWC, height, width, rng)
    path = folder / (name if by_class else "") / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    crop_HWC = photo_HWC[top : top + height, left : left + width]
    Image.fromarray(crop_HWC).save(path, quality=92)


def write_videos(folder: pathlib.Path, count: int = VIDEOS) -> None:
  """Writes pans over both photographs in turn, 11 to 60 frames long."""
  for number in range(count):
    rng = np.random.default_rng(1000 + number)
    _, photo_HWC = _photograph(number)
    height, width = rng.integers(75, 220, 2)
    length = 11 if number == 0 else int(rng.integers(20, 60))
    start, end = (_place(photo_HWC, height, width, rng) for _ in range(2))
    path = np.linspace(start, end, 60)[:length].round().astype(int)
    frames = [
      photo_HWC[top : top + height, left : left + width] for top, left in path
    ]
    folder.mkdir(parents=True, exist_ok=True)
    _encode(folder / f"pan{number}.mp4", frames)


def _photograph(number: int) -> tuple[str, np.ndarray]:
  place = number % len(_CLASSES)
  return _CLASSES[place], datasets.load_sample_images().images[place]


def _place(photo_HWC: np.ndarray, height: int, width: int, rng) -> np.ndarray:
  """(top, left) of a window in a photograph."""
  return rng.integers(0, np.array(photo_HWC.shape[:2]) - (height, width))


def _encode(path: pathlib.Path, frames: list[np.ndarray]) -> None:
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = "yuv444p"  # which has odd sizes, too
    for frame_HWC in frames:
      frame = np.ascontiguousarray(frame_HWC)
      container.mux(
        stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
      )
    container.mux(stream.encode())


def commands(
  folder: pathlib.Path, pictures: pathlib.Path, videos: pathlib.Path
) -> dict[str, list[str]]:
  """The arguments of main.py, by the name of the workdir in `folder`."""
  names = ("image", "video", "generator")
  image, video, generator = (str(folder / name) for name in names)
  row = "folder64"
  return {
    "image": [
      f"--config=configs/tokenizer_image.py:{row}",
      f"--workdir={image}",
      f"--config.dataset.path={pictures}",
    ],
    "video": [
      f"--config=configs/tokenizer_video.py:{row}",
      f"--workdir={video}",
      f"--config.dataset.path={videos}",
      f"--config.inflate_from={image}",
    ],
    "generator": [
      f"--config=configs/masked.py:{row}",
      f"--workdir={generator}",
      f"--config.dataset.path={videos}",
      f"--config.tokenizer_workdir={video}",
    ],
    "samples": ["--mode=sample", f"--workdir={generator}"],
  }


def _measure(arguments: list[str]) -> dict[str, float]:
  """Runs main.py; returns its minutes and CPU minutes."""
  start, before = time.monotonic(), os.times()
  subprocess.run([sys.executable, "main.py", *arguments], check=True)
  after = os.times()
  cpu = after.children_user - before.children_user
  cpu += after.children_system - before.children_system
  wall = (time.monotonic() - start) / 60
  return {"minutes": wall, "cpu_minutes": cpu / 60}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument(
    "--layouts", default="flat", help="of flat,classes, separated by commas"
  )
  arguments = parser.parse_args()
  output, report = arguments.output, {}
  write_videos(output / "videos")
  for layout in arguments.layouts.split(","):
    pictures = output / "pictures" / layout
    write_pictures(pictures, by_class=layout == "classes")
    folder, report[layout] = output / layout, {}
    made = commands(folder, pictures, output / "videos")
    for name, given in made.items():
      if seeds.is_finished(folder / name):
        continue
      report[layout][name] = _measure(given)
      if (folder / name).exists():
        report[layout][name] |= seeds.scores(folder / name)
      for key, value in report[layout][name].items():
        print(f"{layout} {name:<10} {key:<40} {value:.4g}", flush=True)
    total = sum(stage["minutes"] for stage in report[layout].values())
    print(f"{layout}: {total:.1f} minutes in all")
  path = output / "own_data.json"
  path.write_text(json.dumps(report, indent=2) + "\n")
  print(f"wrote {path}")


if __name__ == "__main__":
  main()
