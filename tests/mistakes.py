"""Mistakes of users, each with the words of the line that refuses it.

`mistakes_test.py` runs them in its own process, `benchmarks/mistakes.py` each
as a command, with its time. In arguments {tmp} is a folder that `prepare` has
filled, {run} a workdir that must stay as it is, {tokenizer} and {generator} are
trained ones.
"""

import pathlib

from PIL import Image

_TINY = "--config=tests/tiny.py:tokenizer"
_IMAGE = "--config=tests/tiny.py:image"
_MASKED = "--config=tests/tiny.py:masked"
_RUN = "--workdir={run}"
_FILES = "--config.dataset.name=mine --config.dataset.format=auto"
_PATH = "--config.dataset.path={tmp}"

# Name -> (arguments, words of the line: what is wrong, and the remedy).
MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
  "path that is not read": (
    f"{_TINY} {_RUN} {_PATH}/data",
    ("dataset.path=", "is not read", "--config.dataset.format=auto"),
  ),
  "window of an embedded set": (
    f"{_TINY} {_RUN} --config.dataset.stride=2",
    ("dataset.stride=2 is not read", "format=auto"),
  ),
  "joint path without images": (
    f"{_TINY} {_RUN} --config.dataset.joint_path={{tmp}}/data",
    ("joint_path", "is not read", "--config.dataset.joint_images=N"),
  ),
  "empty folder": (
    f"{_IMAGE} {_RUN} {_FILES} {_PATH}/empty",
    ("dataset.path=", "empty"),
  ),
  "folder that is not there": (
    f"{_IMAGE} {_RUN} {_FILES} {_PATH}/none",
    ("is no folder", "--config.dataset.path=DIR"),
  ),
  "eval_examples too many": (
    f"{_IMAGE} {_RUN} {_FILES} {_PATH}/data --config.dataset.eval_examples=9",
    ("eval_examples=9 is more than the 2", "eval_examples=2"),
  ),
  "pictures for clips": (
    f"{_TINY} {_RUN} {_FILES} {_PATH}/data --config.dataset.eval_examples=2",
    ("is a picture", "take a row for images"),
  ),
  "broken first file": (
    f"{_IMAGE} {_RUN} {_FILES} {_PATH}/broken --config.dataset.eval_examples=1",
    ("0.png",),
  ),
  "size that digits do not have": (
    f"{_TINY} {_RUN} --config.dataset.size=17",
    ("dataset.size=17 must be a multiple of 8",),
  ),
  "16 frames": (
    f"{_TINY} {_RUN} --config.dataset.frames=16",
    ("clip length 16", "the nearest are 15 and 17"),
  ),
  "rate of NaN": (
    f"{_TINY} {_RUN} --config.optimizer.peak_learning_rate=nan",
    ("peak_learning_rate=nan must be at least 0 and finite",),
  ),
  "infinite weight": (
    f"{_TINY} {_RUN} --config.loss.entropy=inf",
    ("loss.entropy=inf must be at least 0 and finite",),
  ),
  "negative seed": (
    f"{_TINY} {_RUN} --config.seed=-1",
    ("seed=-1 must be at least 0",),
  ),
  "warm-up as long as the run": (
    f"{_TINY} {_RUN} --config.optimizer.warmup_steps=6",
    ("warmup_steps=6 must be below num_steps=6", "lower it"),
  ),
  "batch that devices do not divide": (
    f"{_TINY} {_RUN} --config.microbatches=3",
    ("batch_size=8 must be a positive multiple", "the nearest:"),
  ),
  "trace after the end": (
    f"{_TINY} {_RUN} --config.profile_steps=(3,9)",
    ("profile_steps=(3, 9) must be among the steps 1 to num_steps=6",),
  ),
  "misspelt field": (f"{_TINY} {_RUN} --config.num_step=3", ("num_step",)),
  "misspelt row": (
    f"--config=configs/masked.py:digitz {_RUN}",
    ("unknown variant 'digitz'", "'digits'"),
  ),
  "list for a number": (
    f"{_TINY} {_RUN} --config.num_steps=[1,2]",
    ("num_steps",),
  ),
  "text for a list of paths": (
    f"{_TINY} {_RUN} --config.dataset.mixture=a",
    ("mixture",),
  ),
  "own config without a field": (
    f"--config={{tmp}}/lacks.py {_RUN}",
    ("the field seed is missing", "configs/base.py"),
  ),
  "own config that is no Python": (
    f"--config={{tmp}}/syntax.py {_RUN}",
    ("syntax.py, line 1", "mend the file"),
  ),
  "own config without get_config": (
    f"--config={{tmp}}/nothing.py {_RUN}",
    ("has no get_config", "ConfigDict"),
  ),
  "config.json of something else": (
    f"--config={{tmp}}/config.json {_RUN}",
    ("is no config of this program", "name the directory of a run"),
  ),
  "config that is a folder": (
    f"--config={{tokenizer}} {_RUN}",
    ("is a folder", "config.json"),
  ),
  "config that is not there": (
    f"--config=configs/nothing.py {_RUN}",
    ("there is no file configs/nothing.py", "WORKDIR/config.json"),
  ),
  "no config": (_RUN, ("--mode=train needs --config=FILE:ARG",)),
  "workdir of another experiment": (
    f"{_TINY} --workdir={{tokenizer}} --config.seed=5",
    ("seed is 0 there and 5 in --config", "choose another workdir"),
  ),
  "workdir with other files": (
    f"{_TINY} --workdir={{tmp}}/data",
    ("not a workdir of this program", "choose a new or an empty"),
  ),
  "workdir that is a file": (
    f"{_TINY} --workdir={{tmp}}/nothing.py",
    ("cannot write to workdir=", "choose a directory"),
  ),
  "bucket": (
    f"{_TINY} --workdir=nowhere://bucket/run",
    ("in no such kind of store", "name one of gs://"),
  ),
  "home of nobody": (
    f"{_TINY} --workdir=~nobody_here/run",
    ("~nobody_here is the home of no user", "write the folder out"),
  ),
  "no workdir": (_TINY, ("--mode=train needs --workdir=DIR",)),
  "generator as tokenizer": (
    f"{_MASKED} {_RUN} --config.tokenizer_workdir={{generator}}",
    ("not a tokenizer",),
  ),
  "tokenizer of other codes": (
    f"{_MASKED} {_RUN} --config.tokenizer_workdir={{tokenizer}}"
    " --config.transformer.factor_bits=(4,4)",
    ("factor_bits=(4, 4) must add up to", "6"),
  ),
  "no tokenizer": (
    f"{_MASKED} {_RUN}",
    ("tokenizer_workdir is empty", "--config.tokenizer_workdir=DIR"),
  ),
  "too few classes": (
    f"{_MASKED} {_RUN} --config.transformer.num_classes=4",
    ("num_classes=4 must be at least the 10 classes",),
  ),
  "samples of a tokenizer": (
    "--mode=sample --task=x --workdir={tokenizer}",
    ("--mode=sample needs", "a generator"),
  ),
  "unknown task": (
    "--mode=sample --task=dream --workdir={generator}",
    ("--task=dream must be one of", "class_conditional"),
  ),
  "unknown label": (
    "--mode=sample --task=class_conditional --label=cat --workdir={generator}"
    " --output={run}",
    ("--label=cat must be in 0..9",),
  ),
  "no samples": (
    "--mode=sample --task=x --num=0 --workdir={generator}",
    ("--num=0 must be at least 1",),
  ),
  "input that is not there": (
    "--mode=reconstruct --input={tmp}/none.png --workdir={tokenizer}",
    ("none.png is neither a file nor a folder", "give the path"),
  ),
  "unknown protocol": (
    "--mode=evaluate --protocol=fid --workdir={tokenizer}",
    ("'fid' must be one of", "rfid_imagenet_val"),
  ),
  "protocol without weights": (
    "--mode=evaluate --protocol=rfid_imagenet_val --workdir={tokenizer}",
    ("models.weights.convert", "inception"),
  ),
  "protocol in training that the model cannot serve": (
    f"{_TINY} {_RUN} --config.evaluation.protocols=('bair_fvd',)",
    ("measures samples", "generates none: remove it"),
  ),
  "weights of nothing": (
    f"{_TINY} {_RUN} --config.evaluation.lpips_weights={{tmp}}/nothing.py",
    ("evaluation.lpips_weights", "is not a .safetensors file"),
  ),
  "evaluation where nothing was trained": (
    "--mode=evaluate --workdir={tmp}/empty",
    ("holds no config.json", "train into it first"),
  ),
  "tokens without a number": (
    "--mode=tokenize --output={run} --workdir={tokenizer}",
    ("is endless", "--num=N"),
  ),
}


def prepare(folder: pathlib.Path) -> None:
  """Fills {tmp} with what the arguments name."""
  (folder / "empty").mkdir()
  for data in ("data", "broken"):
    for split in ("train", "held_out"):
      (folder / data / split / "cats").mkdir(parents=True)
      for i in range(2):
        image = Image.new("RGB", (20, 18), (i, 0, 0))
        image.save(folder / data / split / "cats" / f"{i}.png")
  (folder / "broken/train/cats/0.png").write_bytes(b"no picture")
  (folder / "config.json").write_text('{"a": 1}')
  (folder / "nothing.py").write_text("")
  (folder / "syntax.py").write_text("x = (")
  (folder / "lacks.py").write_text(
    "from configs import base\n"
    "def get_config():\n"
    "  c = base.tokenizer()\n"
    "  del c.seed\n"
    "  return c\n"
  )


def arguments(name: str, **folders: str) -> list[str]:
  """The command line of a mistake."""
  return [part.format(**folders) for part in MISTAKES[name][0].split(" ")]
