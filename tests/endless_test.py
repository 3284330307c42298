"""Tests of benchmarks/endless.py: windows, lengths and models that it takes."""

import sys

import numpy as np
import pytest

from benchmarks import endless
from magvit import trained
from storage import files
from tests import tiny
from tests import untrained


class _Judge:
  """Reads the class off a clip's first pixel."""

  def classify(self, video_BTHWC):
    return video_BTHWC[:, 0, 0, 0, 0]


def test_windows_share_a_frame_and_the_first_one_is_remembered():
  video = np.zeros((3, 9, 1, 1, 3), np.uint8)
  video[:, 0], video[:, 4] = (
    [[[[1]]], [[[5]]], [[[3]]]],
    [[[[1]]], [[[2]]], [[[0]]]],
  )
  rows = endless.class_kept(_Judge(), video, np.array([1, 2, 3]), 5)
  assert [row["frames"] for row in rows] == [[0, 4], [4, 8]]
  assert [row["class_accuracy"] for row in rows] == [2 / 3, 2 / 3]
  assert [row["kept"] for row in rows] == [2 / 3, 1 / 3]


@pytest.fixture(scope="module")
def flow_workdir(tiny_tokenizer_workdir, tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("flow"))
  untrained.write(folder, tiny.next_frame_flow(tiny_tokenizer_workdir))
  return folder


def _run(monkeypatch, folder, *flags):
  command = ["endless", f"--workdir={folder}", *flags]
  monkeypatch.setattr(sys, "argv", command)
  endless.main()


def test_videos_of_all_classes_are_as_long_as_asked(
  flow_workdir, monkeypatch, tmp_path, capsys
):
  classes = []
  judge = _Judge()
  judge.classify = lambda video: classes.append(video.shape) or np.arange(10)
  monkeypatch.setattr(endless.held_out, "fitted_judge", lambda _: judge)
  flags = ("--frames=9", "--samples_per_class=1", f"--output={tmp_path}")
  _run(monkeypatch, flow_workdir, *flags)
  assert classes == [(10, 5, 16, 16, 3)] * 2
  result = files.read_json(str(tmp_path / "endless.json"))
  assert result["videos"] == 10
  assert [row["kept"] for row in result["windows"]] == [1.0, 1.0]
  assert "frames 4 to 8: 100% show their class" in capsys.readouterr().out
  assert (tmp_path / "endless.png").exists()


def test_lengths_and_models_that_cannot_go_on_are_refused(
  flow_workdir, tiny_generator_workdir, monkeypatch, tmp_path, capsys
):
  for folder, frames, message in (
    (
      flow_workdir,
      8,
      "clip length 8 must be 1 + a multiple of the temporal stride 2",
    ),
    (flow_workdir, 3, "--frames=3 must be at least a clip's 5"),
    (tiny_generator_workdir, 9, "a model of 'masked'"),
  ):
    with pytest.raises(SystemExit):
      _run(monkeypatch, folder, f"--frames={frames}", f"--output={tmp_path}")
    assert message in capsys.readouterr().err
  with pytest.raises(SystemExit):
    _run(monkeypatch, "", "--samples_per_class=0", f"--output={tmp_path}")
  assert "must be above 0" in capsys.readouterr().err


def test_clips_that_no_judge_knows_are_refused(flow_workdir):
  model = trained.open_trained(flow_workdir)
  model.config.dataset.name = "film"
  with pytest.raises(ValueError, match="5 frames of 'film'"):
    endless.roll_out(model, np.arange(2), 9, 0)
