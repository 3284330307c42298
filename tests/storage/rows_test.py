"""Tests of storage/rows.py: nothing is made twice, nothing is dropped."""

import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from evaluation.metrics import frechet
from storage import rows as rows_lib


def _maker(calls, broken=()):
  def make(index):
    calls.append(index.tolist())
    kept = np.array([i for i in index if i not in broken], np.int64)
    failures = {f"clip {i}": "torn" for i in index if i in broken}
    return rows_lib.Part(kept, {"square": (kept**2)[:, None]}, failures)

  return make


def test_rows_come_in_order_and_are_made_once(tmp_path):
  calls = []
  folder, of = str(tmp_path / "f"), {"name": "squares"}
  for _ in range(2):
    made = rows_lib.compute(folder, of, 10, 4, _maker(calls))
    np.testing.assert_array_equal(made.rows["square"][:, 0], np.arange(10) ** 2)
    np.testing.assert_array_equal(made.index, np.arange(10))
  assert calls == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def _interrupted(calls, folder, of):
  """Makes two parts of three; returns the function that can make the rest."""
  good = _maker(calls)

  def dies(index):
    if index[0] == 8:
      raise KeyboardInterrupt
    return good(index)

  with pytest.raises(KeyboardInterrupt):
    rows_lib.compute(folder, of, 12, 4, dies)
  return good


def test_an_interrupted_run_goes_on(tmp_path):
  calls, folder, of = [], str(tmp_path / "f"), {"name": "squares"}
  good = _interrupted(calls, folder, of)
  made = rows_lib.compute(folder, of, 12, 4, good)
  assert calls == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
  assert len(made.index) == 12


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_part_that_a_power_loss_cut_is_made_again(tmp_path, size, caplog):
  calls, folder, of = [], str(tmp_path / "f"), {"name": "squares"}
  good = _interrupted(calls, folder, of)
  part = tmp_path / "f" / "parts" / "000001.npz"
  part.write_bytes(part.read_bytes()[:size])
  made = rows_lib.compute(folder, of, 12, 4, good)
  np.testing.assert_array_equal(made.rows["square"][:, 0], np.arange(12) ** 2)
  assert [call[0] for call in calls] == [0, 4, 4, 8]
  assert "000001.npz is damaged: it is made again" in caplog.text


def test_few_broken_clips_are_reported_and_many_are_an_error(tmp_path):
  folder, of = str(tmp_path / "f"), {"name": "squares"}
  made = rows_lib.compute(folder, of, 200, 50, _maker([], {7, 60}))
  assert made.failures == {"clip 7": "torn", "clip 60": "torn"}
  assert 7 not in made.index and len(made.index) == 198
  assert made.rows["square"][7, 0] == 8**2
  with pytest.raises(ValueError, match="3 of 200 .* 1%: clip 7: torn"):
    rows_lib.compute(str(tmp_path / "g"), of, 200, 50, _maker([], {7, 8, 9}))


def test_one_broken_clip_among_few_ends_no_work(tmp_path):
  of = {"name": "squares"}
  made = rows_lib.compute(str(tmp_path / "f"), of, 3, 2, _maker([], {2}))
  assert made.index.tolist() == [0, 1] and list(made.failures) == ["clip 2"]
  with pytest.raises(ValueError, match="2 of 3 .* more than one"):
    rows_lib.compute(str(tmp_path / "g"), of, 3, 2, _maker([], {0, 2}))
  with pytest.raises(ValueError, match="1 of 1"):
    rows_lib.compute(str(tmp_path / "h"), of, 1, 2, _maker([], {0}))


def test_progress_counts_clips_and_not_the_places_of_parts(tmp_path, caplog):
  caplog.set_level("INFO", "storage")
  rows_lib.compute(str(tmp_path / "f"), {"name": "s"}, 5, 4, _maker([]))
  assert "s 5/5 (100%)" in caplog.text and "/8" not in caplog.text


def test_damaged_rows_are_named(tmp_path):
  folder, of = tmp_path / "f", {"name": "squares"}
  rows_lib.compute(str(folder), of, 4, 4, _maker([]))
  (folder / "square.npy").write_bytes(b"\x93NUMPY\x01\x00")
  with pytest.raises(ValueError, match="/f holds damaged rows .*remove"):
    rows_lib.compute(str(folder), of, 4, 4, _maker([]))


@pytest.mark.parametrize(
  "text", ["[]", "{}", '{"of": 7, "failures": {}}', '{"of": {}, "failures": 7}']
)
def test_a_record_of_another_form_is_named(text, tmp_path):
  folder = tmp_path / "f"
  rows_lib.compute(str(folder), {"name": "squares"}, 4, 4, _maker([]))
  (folder / "of.json").write_text(text)
  with pytest.raises(ValueError, match="f/of.json: .*remove that folder"):
    rows_lib.compute(str(folder), {"name": "squares"}, 4, 4, _maker([]))


@pytest.mark.parametrize("name", ["index", "square"])
@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((), np.int64)])
def test_rows_of_other_clips_than_their_record_says_are_named(
  name, array, tmp_path
):
  folder, of = tmp_path / "f", {"name": "squares"}
  rows_lib.compute(str(folder), of, 4, 4, _maker([]))
  np.save(folder / f"{name}.npy", array)
  with pytest.raises(ValueError, match="/f holds damaged rows .*4 clips"):
    rows_lib.compute(str(folder), of, 4, 4, _maker([]))


def test_rows_of_something_else_are_refused(tmp_path):
  folder = str(tmp_path / "f")
  rows_lib.compute(folder, {"name": "squares"}, 4, 4, _maker([]))
  with pytest.raises(ValueError, match="name is 'squares' there and 'cubes'"):
    rows_lib.compute(folder, {"name": "cubes"}, 4, 4, _maker([]))


@pytest.mark.slow
def test_two_processes_have_the_statistics_of_one(tmp_path):
  """Far from zero, where raw moments in float32 would keep no digit."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    address = f"localhost:{s.getsockname()[1]}"
  script = pathlib.Path(__file__).with_name("rows_process.py")
  workers = [
    subprocess.Popen(
      [sys.executable, script, address, str(i), tmp_path],
      cwd=script.parents[2],
    )
    for i in range(2)
  ]
  assert [w.wait(timeout=120) for w in workers] == [0, 0]
  x = 1000 + 0.3 * np.random.default_rng(0).normal(size=(101, 6))
  whole = frechet.statistics(x)
  for i in range(2):
    with np.load(tmp_path / f"{i}.npz") as shared:
      assert shared["parts"] == (6, 5)[i]  # the 11 parts were shared out
      np.testing.assert_array_equal(shared["features"], x)
      np.testing.assert_allclose(shared["mean"], whole.mean, rtol=1e-10)
      np.testing.assert_allclose(shared["scatter"], whole.scatter, rtol=1e-10)
      # Each computed half of the 5 clips, with the second half filled up.
      assert shared["sizes"].tolist() == [3, 5]
      np.testing.assert_array_equal(shared["shared"], shared["alone"])
