"""Tiny raw data sets, laid out as their authors do; for tests."""

import csv
import json
import pathlib

import av
import numpy as np
from PIL import Image
from scipy import ndimage


def frames(count: int, seed: int, height: int = 48, width: int = 64):
  """uint8 (T, H, W, 3): a window that moves over smooth noise."""
  rng = np.random.default_rng(seed)
  shape = (height + count, width + count, 3)
  noise = ndimage.gaussian_filter(rng.normal(size=shape), (2, 2, 0))
  scene = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
  return np.stack([scene[i : i + height, i : i + width] for i in range(count)])


def video(
  path: pathlib.Path, clip, codec="libx264", keyframes=6, **options
) -> None:
  """Encodes a clip, with B-frames where the codec has them."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25, options=options)
    stream.height, stream.width = clip.shape[1:3]
    stream.pix_fmt, stream.gop_size = "yuv420p", keyframes
    stream.codec_context.thread_count = 1
    if codec != "libvpx-vp9":
      stream.max_b_frames = 2
    for frame_HWC in clip:
      frame_HWC = np.ascontiguousarray(frame_HWC)
      container.mux(
        stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24"))
      )
    container.mux(stream.encode())


def image(path: pathlib.Path, seed: int, **size) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(frames(1, seed, **size)[0]).save(path)


def images_by_class(root: pathlib.Path, count: int = 3) -> None:
  for split in ("train", "val"):
    for number, name in enumerate(("n01", "n02")):
      for i in range(count):
        image(root / split / name / f"{name}_{i}.jpg", 10 * number + i)


def ucf101(root: pathlib.Path, lists: pathlib.Path, lengths=(12, 9, 7, 8)):
  """Writes two classes: training videos of two groups, held-out of another."""
  lists.mkdir(parents=True, exist_ok=True)
  names = ("ApplyEyeMakeup", "HandstandPushups")
  train, test = [], []
  for number, name in enumerate(names):
    for group in (1, 8, 9):
      # In the archive one class is spelt in two ways; the lists use one.
      file = f"{name}/v_{name}_g{group:02}_c01.avi"
      length = lengths[(number + group) % len(lengths)]
      clip = frames(length, 10 * group + number)
      video(root / file, clip, "mpeg4")
      file = file.replace("v_Handstand", "v_HandStand")
      test.append(file) if group == 1 else train.append(f"{file} {number + 1}")
  classes = [f"{i + 1} {name}" for i, name in enumerate(names)]
  for file, lines in (
    ("classInd.txt", classes),
    ("trainlist01.txt", train),
    ("testlist01.txt", test),
  ):
    (lists / file).write_text("\r\n".join(lines) + "\r\n")


def kinetics600(root: pathlib.Path) -> None:
  for split, count in (("train", 3), ("validation", 2)):
    rows = []
    for i in range(count):
      label = ("abseiling", "zumba")[i % 2]
      start = 10 * i
      name = f"{split[0]}-_{i}"
      file = f"{split}/{label}/{name}_{start:06}_{start + 10:06}.mp4"
      video(root / file, frames(10, i))
      rows.append([label, name, start, start + 10, split])
    with open(root / f"{split}.csv", "w", newline="") as f:
      columns = ["label", "youtube_id", "time_start", "time_end", "split"]
      csv.writer(f).writerows([columns, *rows])


def ssv2(root: pathlib.Path) -> None:
  labels = {"Pushing something left": "1", "Holding something": "0"}
  root.mkdir(parents=True, exist_ok=True)
  (root / "labels.json").write_text(json.dumps(labels))
  for split, ids in (("train", (7, 10)), ("validation", (3,))):
    rows = []
    for i in ids:
      video(root / f"videos/{i}.webm", frames(8, i), "libvpx-vp9")
      template = "Pushing [something] left" if i > 3 else "Holding [something]"
      rows.append({"id": str(i), "label": "x", "template": template})
    (root / f"{split}.json").write_text(json.dumps(rows))


def bair(root: pathlib.Path) -> None:
  for split, count in (("train", 2), ("test", 1)):
    for i in range(count):
      for number, frame_HWC in enumerate(frames(11, i, 16, 16)):
        path = root / split / f"traj_0_to_255/{i}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame_HWC).save(path)
