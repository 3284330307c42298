"""Writes old_work.tar.xz: what the program left on disk before its rewrite.

The commit is 1132df6, the last one whose tokenizers call their network
`generator`. To make the archive again, in a checkout of that commit with this
folder copied into it:

  python -m tests.old_work.make

The archive holds, of the experiments in `experiments.py`:

  tokenizer/ masked/ autoregressive/  workdirs, interrupted after step 2 of 4
  export/ export_tokenizer/           of the masked generator; of the tokenizer,
                                      with its programs
  tokens/                             token shards that `masked` trains from
  tokens_unfinished/                  tokens, killed in the second shard
  samples/                            samples, stopped after the first part
  media/                              media shards, stopped after the first
  expected.json                       what the old commit went on to compute

  coded.mvt                           a video coded by the tokenizer

and, in tokenizer/features, a measurement that was stopped after its first part.
"""

# First, because it tells JAX with which devices and optimisations tests run.
import tests.conftest  # noqa: F401, I001

import contextlib
import json
import lzma
import os
import pathlib
import shutil
import tarfile
import tempfile
from unittest import mock

import jax
import numpy as np
import tensorstore as ts

import magvit
from evaluation import files
from input_pipeline import folders
from input_pipeline import prepare
from input_pipeline import token_shards
from magvit import compress
from magvit import rows
from magvit import sample
from magvit import tokenize
from tests import raw_data
from tests.old_work import experiments
from tests.old_work import program

_SHOWN = ("report.html", "samples", "results")  # not read by later runs


def main() -> None:
  with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    expected = {"tokenizer": _train("tokenizer")}
    expected["ids"] = _ids("tokenizer")
    _tokenize()
    for name in ("masked", "autoregressive"):
      expected[name] = _train(name)
      expected[name]["sample"] = _sample(name)
    program.run("--workdir=masked", "--mode=export", "--output=export")
    to = ("--output=export_tokenizer", "--stablehlo")
    program.run("--workdir=tokenizer", "--mode=export", *to)
    expected["measured"] = _measure()
    expected["samples"] = _sample_in_parts()
    _prepare()
    _code()
    files.write_atomically("expected.json", json.dumps(expected))
    for state in pathlib.Path().glob("**/checkpoints/*/state"):
      _remove_superseded(state)
    _pack(program.ARCHIVE)


def _train(name: str) -> dict:
  """Trains to the end, notes what came out, and goes back to the middle."""
  workdir = f"--workdir={name}"
  program.run(program.config(name), workdir)
  noted = {
    "steps": program.history(name),
    "scores_at_the_end": program.scores(name),
  }
  if name == "tokenizer":
    noted["ids_at_the_end"] = _ids(name)
  _rewind(pathlib.Path(name))
  program.run(workdir, "--mode=evaluate")
  noted["scores"] = program.scores(name)
  _rewind(pathlib.Path(name))
  return noted


def _rewind(workdir: pathlib.Path) -> None:
  """The workdir as if it had been killed after `program.STEP`."""
  for step in (workdir / "checkpoints").iterdir():
    if int(step.name) > program.STEP:
      shutil.rmtree(step)
  lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
  (workdir / "metrics.jsonl").write_text("".join(lines[: program.STEP]))
  for name in _SHOWN:
    path = workdir / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
  for path in workdir.glob("**/events.out.*"):
    path.unlink()


def _ids(workdir: str) -> list:
  return magvit.load_tokenizer(workdir).encode(program.clip()).tolist()


def _sample(workdir: str) -> list:
  """uint8 pixels of one sample."""
  video = magvit.load_generator(workdir).sample(
    jax.random.key(0), 1, task=experiments.COMPLETED, condition=program.clip()
  )
  return np.rint(np.asarray(video) * 255).astype(np.uint8).tolist()


def _tokenize() -> None:
  arguments = (program.config("masked"), "--workdir=tokenizer", "--num=16")
  program.run(*arguments, "--mode=tokenize", "--output=tokens")
  with _killed(token_shards, "pack", 10):
    tokenize.tokenize(
      "tokenizer",
      "tokens_unfinished",
      experiments.masked(),
      num=16,
      examples_per_shard=8,
    )


def _measure() -> dict:
  """Measures, and leaves the first of two parts."""
  # Kept measurements are of a checkpoint of this time, the archive's.
  os.utime(f"tokenizer/checkpoints/{program.STEP}", ns=(0, 0))
  arguments = ("--workdir=tokenizer", "--mode=evaluate", "--num=16")
  arguments += ("--protocol=reconstruction",)
  program.run(*arguments)
  scores = program.scores("tokenizer")
  _rewind(pathlib.Path("tokenizer"))
  shutil.rmtree("tokenizer/features")
  with _killed(rows.files, "write_npz", 1):
    program.run(*arguments)
  return scores


def _sample_in_parts() -> list:
  """Samples, and leaves the first of two parts; uint8 pixels of the second."""
  arguments = ("--workdir=masked", "--mode=sample", "--num=9")
  arguments += (f"--task={experiments.COMPLETED}",)
  program.run(*arguments, "--output=whole")
  with np.load("whole/samples.npz") as whole:
    last = whole["arr_0"][8:].tolist()
  shutil.rmtree("whole")
  with _killed(sample, "_write_part", 1):
    program.run(*arguments, "--output=samples")
  return last


def _prepare() -> None:
  with tempfile.TemporaryDirectory() as raw:
    root = pathlib.Path(raw)
    raw_data.ucf101(root, root)
    listing = folders.listing("ucf101", raw, "", "train", 1)
    arguments = (listing, "ucf101", "train", "media")
    in_this_process = mock.patch.object(
      *(prepare.futures, "ProcessPoolExecutor", _Pool)
    )
    with in_this_process, _killed(prepare, "_write_shard", 1):
      prepare.prepare(*arguments, examples_per_shard=2)


class _Pool(prepare.futures.ThreadPoolExecutor):
  """The pool of `prepare` as one thread of this process."""

  def __init__(self, workers, context, initializer, initargs):
    super().__init__(1, initializer=initializer, initargs=initargs)


def _code() -> None:
  with tempfile.TemporaryDirectory() as folder:
    videos, output = pathlib.Path(folder, "videos"), f"{folder}/study"
    raw_data.video(videos / "a.mp4", raw_data.frames(5, 0, 16, 16))
    study = compress.Study(
      workdirs=("tokenizer",), codecs=(), height=16, width=16
    )
    compress.compress(study, str(videos), output)
    (coded,) = pathlib.Path(output).glob("**/*.mvt")
    shutil.copyfile(coded, "coded.mvt")


def _remove_superseded(state: pathlib.Path) -> None:
  """Removes what orbax wrote and wrote again: no array is read from it."""

  def read() -> dict[str, bytes]:
    store = {"driver": "ocdbt", "base": f"file://{state.absolute()}/"}
    database = ts.KvStore.open(store).result()
    keys = database.list().result()
    return {key: database.read(key).result().value for key in keys}

  everything = read()
  for path in state.glob("ocdbt.process_0/d/*"):
    aside = path.rename(f"{path}.aside")
    try:
      superseded = read() == everything
    except ValueError:
      superseded = False
    aside.unlink() if superseded else aside.rename(path)


@contextlib.contextmanager
def _killed(module, name: str, calls: int):
  """Interrupts the work inside after so many calls of a function of its."""
  original, made = getattr(module, name), []

  def function(*args, **kwargs):
    if len(made) == calls:
      raise KeyboardInterrupt
    made.append(name)
    return original(*args, **kwargs)

  with mock.patch.object(module, name, function):
    try:
      yield
    except (KeyboardInterrupt, SystemExit):
      return
  raise AssertionError(f"{name} was not called more than {calls} times")


def _pack(archive: pathlib.Path) -> None:
  """Everything in this folder; two runs make the same bytes of the same."""

  def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid = 0, 0, 0
    member.uname = member.gname = ""
    return member

  with lzma.open(archive, "wb", preset=9 | lzma.PRESET_EXTREME) as compressed:
    with tarfile.open(fileobj=compressed, mode="w") as tar:
      for name in sorted(os.listdir()):
        tar.add(name, filter=plain)
  print(f"wrote {archive}: {archive.stat().st_size:,} bytes")


if __name__ == "__main__":
  main()
