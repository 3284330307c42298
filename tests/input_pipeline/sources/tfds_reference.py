"""Tiny ImageNet and UCF-101, prepared by the builders of TensorFlow Datasets.

  python -m tests.input_pipeline.sources.tfds_reference

writes tfds.zip beside this file: `raw`, the images and videos, and `prepared`,
the data sets that the builders imagenet2012 and ucf101 made of them. It needs
tensorflow-cpu 2.21.0, tensorflow-datasets 4.9.10, importlib_resources and
imageio-ffmpeg in a separate environment; the tests that read the file do not.
The files that the builders would download are handed to them.
"""

import io
import os
import pathlib
import tarfile
import tempfile
import zipfile

from tests import raw_data

FILE = pathlib.Path(__file__).parent / "tfds.zip"


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    _imagenet(root)
    _ucf101(root)
    with zipfile.ZipFile(FILE, "w", zipfile.ZIP_DEFLATED) as archive:
      for path in sorted(root.glob("**/*")):
        name = path.relative_to(root)
        if path.is_file() and name.parts[0] in ("raw", "prepared"):
          # All have one date, so that the same files make the same archive.
          archive.writestr(zipfile.ZipInfo(str(name)), path.read_bytes(), 8)


def _imagenet(root: pathlib.Path) -> None:
  import tensorflow_datasets as tfds

  raw, archives = root / "raw/imagenet", root / "archives"
  archives.mkdir()
  names = ("n01440764_1", "n01440764_2", "n01443537_1")
  for i, name in enumerate(names):
    raw_data.image(raw / f"{name}.JPEG", i)
  for i in (1, 2):
    raw_data.image(raw / f"ILSVRC2012_val_{i:08}.JPEG", 10 + i)

  def add(archive, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))

  with tarfile.open(archives / "ILSVRC2012_img_train.tar", "w") as outer:
    for synset in ("n01440764", "n01443537"):
      buffer = io.BytesIO()
      with tarfile.open(fileobj=buffer, mode="w") as inner:
        for path in sorted(raw.glob(f"{synset}_*")):
          add(inner, path.name, path.read_bytes())
      add(outer, f"{synset}.tar", buffer.getvalue())
  with tarfile.open(archives / "ILSVRC2012_img_val.tar", "w") as archive:
    for path in sorted(raw.glob("ILSVRC2012_val_*")):
      add(archive, path.name, path.read_bytes())
  builder = tfds.builder(
    "imagenet2012", data_dir=root / "prepared", file_format="array_record"
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=archives)
  )


def _ucf101(root: pathlib.Path) -> None:
  import imageio_ffmpeg
  import tensorflow_datasets as tfds

  (root / "bin").mkdir()
  (root / "bin/ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
  os.environ["PATH"] = f"{root / 'bin'}:{os.environ['PATH']}"
  raw_data.ucf101(root / "raw/ucf101", root / "lists/ucfTrainTestlist")
  flat = root / "videos/UCF101"  # the archive that TFDS takes has no folders
  flat.mkdir(parents=True)
  for path in root.glob("raw/ucf101/*/*.avi"):
    (flat / path.name).write_bytes(path.read_bytes())
  given = {"videos": str(root / "videos"), "splits": str(root / "lists")}
  tfds.download.DownloadManager.download_and_extract = lambda self, urls: given
  builder = tfds.builder(
    "ucf101/ucf101_1", data_dir=root / "prepared", file_format="array_record"
  )
  builder.download_and_prepare()


if __name__ == "__main__":
  main()
