"""Nothing is written through links in a folder that someone else made."""

import fractions
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from evaluation import evaluators
from evaluation.protocols import measurements
from evaluation.protocols import table as protocol_table
from evaluation.show import mp4
from evaluation.show import report
from input_pipeline import prepare
from input_pipeline.sources import entries
from magvit.compression import video_codecs
from magvit.modes import evaluate
from magvit.modes import export
from magvit.modes import table
from magvit.scoring import pictures as scoring_pictures
from magvit.training import checkpoints as checkpoints_lib
from magvit.training import metrics as metrics_lib
from magvit.training import trace as trace_lib
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from models.weights import safetensors_file
from storage import lock
from storage import npz
from storage import parts
from storage import rows
from storage import shards
from tests import tiny

_FRAME_HWC = np.zeros((16, 16, 3), np.uint8)
_MINE = b"the user's own file"


def _write_mp4(root):
  with mp4.Writer(root / "a.mp4", 8) as writer:
    writer.add(_FRAME_HWC)


def _encode(root):
  codec = video_codecs.x265("ultrafast", (30,))
  path, rate = str(root / "a.hevc"), fractions.Fraction(8)
  video_codecs.encode(codec, 30, _FRAME_HWC[None], rate, path)


def _write_metrics(root):
  writer = metrics_lib.Writer(str(root), 0)
  writer.write(1, {"loss": 1.0})
  writer.close()


def _trace(root):
  with trace_lib.Trace(str(root), (1, 1)) as trace:
    trace.before(1, None)


def _save_average(root):
  weights_lib.save_average(str(root), 0, {"w": np.zeros(2)})


def _open_checkpoints(root):
  checkpoints_lib.Checkpoints(str(root), tiny.tokenizer()).close()


def _put_aside(root):
  checkpoints = checkpoints_lib.Checkpoints(str(root), tiny.tokenizer())
  (root / "checkpoints" / "7").mkdir(exist_ok=True)
  checkpoints._put_aside({7: "it is damaged"})
  checkpoints.close()


def _part(numbers):
  return rows.Part(numbers, {"x": np.zeros(len(numbers))})


def _compute_rows(root):
  rows.compute(str(root), {"name": "x"}, 3, 2, _part)


def _keep_features(root):
  protocol = next(iter(protocol_table.PROTOCOLS.values()))
  work = measurements.Work(str(root), protocol, None, None, 2, 0, False)
  work._rows({"name": "x"}, 3, _part)


def _make_parts(root):
  layout = parts.Layout(3, 2)
  whole = parts.Folder(str(root), layout.names)
  whole.claim("record.json", "{}", "squares")
  for number in whole.mine():
    pathlib.Path(whole.part(number)).parent.mkdir(exist_ok=True)
    npz.write(whole.part(number), 1, {"x": [np.zeros(1)]})


def _prepare(root):
  listing = entries.Listing((entries.Entry("a", 0, ()),), ("c",))
  prepare.prepare(listing, "set", "train", str(root))


def _publish(root):
  video = np.zeros((1, 2, 8, 8, 3), np.uint8)
  scoring_pictures._publish(str(root), "task", video, 1, "Task", "Caption")


def _write_config(root):
  workdir_lib.check_workdir(str(root), tiny.tokenizer())
  workdir_lib.write_config(str(root), tiny.tokenizer())


def _write_report(root):
  _write_config(root)
  scoring_pictures.write_report(str(root))


def _result(root):
  evaluators.Result("psnr", {"psnr": 1.0}, {}).write(str(root), 1)


def _weights(root):
  tensors = {"w": np.zeros(2, np.float32)}
  safetensors_file.save(str(root / "a.safetensors"), "x", tensors, {})


# Each writes what it writes, with a folder as the workdir or the output.
_WRITERS = {
  "config": _write_config,
  "metrics and TensorBoard": _write_metrics,
  "trace": _trace,
  "weights of a checkpoint": _save_average,
  "checkpoints": _open_checkpoints,
  "damaged checkpoints": _put_aside,
  "results": _result,
  "pictures": _publish,
  "captions": lambda x: report.add_caption(str(x), "a.png", "A", "B"),
  "report": _write_report,
  "film": _write_mp4,
  "video codecs": _encode,
  "rows": _compute_rows,
  "features": _keep_features,
  "parts": _make_parts,
  "shards": lambda x: shards.write(str(x / "a.arrayrecord"), [b"record"]),
  "arrays": lambda x: npz.write(str(x / "a.npz"), 1, {"x": [np.zeros(1)]}),
  "safetensors": _weights,
}


def _contents(folder):
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def _made(folder, depth=2):
  """Names of what a writer made, but for the deep trees of libraries."""
  paths = sorted(path.relative_to(folder) for path in folder.rglob("*"))
  return [path for path in paths if len(path.parts) <= depth]


def _hostile(name, made):
  """Names that a hostile folder may have as links, for a writer's sake."""
  guessed = [f".writable-{jax.process_index()}"]
  for path in made:
    for middle in ("", f".{os.getpid()}"):
      guessed.append(path.with_name(f".{path.name}{middle}.tmp"))
  if name == "damaged checkpoints":
    made = [path for path in made if path.parts[0] == "damaged"]
  return [*made, *guessed]


@pytest.mark.parametrize("name", _WRITERS)
def test_no_writer_follows_a_link_out_of_its_folder(name, tmp_path):
  write = _WRITERS[name]
  clean = tmp_path / "clean"
  clean.mkdir()
  write(clean)
  made = _made(clean)
  assert made
  outside = tmp_path / "outside"
  (outside / "folder").mkdir(parents=True)
  (outside / "folder" / "a").write_bytes(_MINE)
  (outside / "file").write_bytes(_MINE)
  before, entries = _contents(outside), _made(outside)
  for number, link in enumerate(_hostile(name, made)):
    kinds = ["folder"] if (clean / link).is_dir() else ["file", "new"]
    for kind in kinds:
      root = tmp_path / f"root{number}-{kind}"
      (root / link).parent.mkdir(parents=True)
      (root / link).symlink_to(outside / kind)
      try:
        write(root)
      except (ValueError, OSError) as error:
        assert root.name in str(error), link
        assert "\n" not in str(error)
      assert _contents(outside) == before, link
      assert _made(outside) == entries, link


@pytest.mark.parametrize("link", ["results", "results/evaluate"])
@pytest.mark.parametrize("protocol", [None, "adm_imagenet"])
def test_evaluation_puts_no_lock_behind_a_link(
  link, protocol, tiny_tokenizer_workdir, tmp_path, monkeypatch
):
  outside = tmp_path / "outside"
  (outside / "below").mkdir(parents=True)
  workdir = tmp_path / "run"
  # Other tests may have evaluated the shared workdir.
  leave_out = shutil.ignore_patterns("results")
  shutil.copytree(tiny_tokenizer_workdir, workdir, ignore=leave_out)
  name = "evaluate" if protocol is None else protocol
  path = workdir / link.replace("evaluate", name)
  path.parent.mkdir(exist_ok=True)
  path.symlink_to(outside / "below")
  created = []
  monkeypatch.setattr(lock, "_create", lambda *args: created.append(args))
  options = table.Evaluate(protocol=protocol)
  with pytest.raises(ValueError, match="is a symbolic link"):
    evaluate.run(options, None, str(workdir))
  assert not created


def test_prepare_takes_no_split_that_is_a_link(tmp_path):
  (tmp_path / "outside").mkdir()
  (tmp_path / "set").mkdir()
  (tmp_path / "set" / "train").symlink_to(tmp_path / "outside")
  with pytest.raises(ValueError, match="set/train is a symbolic link"):
    _prepare(tmp_path / "set")
  assert not list((tmp_path / "outside").iterdir())


def test_an_export_is_written_beside_links_and_through_none(
  tiny_tokenizer_workdir, tmp_path
):
  outside = tmp_path / "outside"
  outside.mkdir()
  (tmp_path / f".export.{os.getpid()}.tmp").symlink_to(outside)
  export.export(tiny_tokenizer_workdir, str(tmp_path / "export"))
  assert (tmp_path / "export" / "model.safetensors").is_file()
  assert not list(outside.iterdir())


def test_a_library_finds_no_link_in_the_folder_that_it_is_given(tmp_path):
  """TensorBoard's and orbax's names can be guessed, so none may be there."""
  victim = tmp_path / "victim"
  victim.write_bytes(_MINE)
  for folder, write in (
    ("tensorboard", _write_metrics),
    ("checkpoints", _save_average),
    ("checkpoints", _open_checkpoints),
    ("profile", _trace),
  ):
    root = tmp_path / f"{folder}-{write.__name__}"
    deep = root / folder / "any"
    deep.mkdir(parents=True)
    (deep / "name").symlink_to(victim)
    with pytest.raises(ValueError, match=f"{folder}/any/name is a symbolic"):
      write(root)
  assert victim.read_bytes() == _MINE


def test_the_workdir_itself_may_be_a_link(tmp_path):
  (tmp_path / "big_disk").mkdir()
  root = tmp_path / "workdir"
  root.symlink_to(tmp_path / "big_disk")
  _write_metrics(root)
  _result(root)
  assert (tmp_path / "big_disk" / "results" / "psnr.json").is_file()
  assert (tmp_path / "big_disk" / "metrics.jsonl").is_file()
