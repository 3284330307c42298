"""Tests of evaluation/show/report.py on workdirs with damaged files."""

import html
import json
import os
import re

import numpy as np
import pytest

from evaluation.show import pictures
from evaluation.show import report
from tests.evaluation.show import workdirs


def test_names_that_are_no_utf8_do_not_stop_the_page(finished):
  result = {"evaluator": "media_x", "protocol": {"input": "a\udcff.png"}}
  (finished / "results" / "media_x.json").write_text(json.dumps(result))
  report.add_caption(str(finished), "gone\udcfe.png", "\udcff", "\udcff")
  page = report.write_report([finished], finished / "report.html")
  assert "a\\udcff.png" in page.read_text()


def test_a_torn_last_line_is_ignored_and_the_lines_before_it_count(fresh):
  workdirs.write_lines(fresh, {"step": 10, "loss": 0.25}, '{"step": 20, "lo')
  page = workdirs.page(fresh)
  assert "step 10 of 40" in page
  assert "loss <b>0.25</b>" in page
  assert "damaged" not in page


def test_a_torn_line_left_by_a_killed_run_is_skipped_and_mentioned(fresh):
  workdirs.write_lines(
    fresh,
    {"step": 10, "loss": 0.25},
    '{"step": 20, "lo{"step": 20, "loss": 0.5}\n',
    {"step": 30, "loss": 0.75},
  )
  page = workdirs.page(fresh)
  assert "loss <b>0.75</b>" in page
  assert "Damaged lines of metrics.jsonl skipped: 1." in page


def test_what_is_no_workdir_is_an_error_that_names_it(fresh, tmp_path):
  with pytest.raises(ValueError, match="workdir .*nowhere' .*directory"):
    workdirs.page(fresh, tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match="workdir .*empty' .*config.json"):
    workdirs.page(fresh, tmp_path / "empty")
  (fresh / "config.json").write_text("{")
  with pytest.raises(ValueError, match="fresh/config.json is not JSON"):
    workdirs.page(fresh)
  with pytest.raises(ValueError, match=r"workdirs=\[\]"):
    report.write_report([], tmp_path / "report.html")
  assert not (fresh / "page").exists()


@pytest.mark.parametrize("name", ["../../private.png", "/{}/private.png"])
def test_captions_name_no_picture_outside_of_the_folder(finished, name):
  pictures.write_png(
    str(finished.parent / "private.png"), np.zeros((4, 4, 3), np.uint8)
  )
  name = name.format(finished.parent)
  (finished / "samples" / "captions.json").write_text(json.dumps({name: {}}))
  with pytest.raises(
    ValueError, match="private.png must be .* inside of .*sam"
  ):
    workdirs.page(finished)


def test_pictures_are_not_read_through_links(finished):
  private = finished.parent / "private.png"
  pictures.write_png(str(private), np.zeros((4, 4, 3), np.uint8))
  os.symlink(private, finished / "samples" / "b.png")
  with pytest.raises(ValueError, match="samples/b.png is a symbolic link"):
    workdirs.page(finished)


_NO_STEPS = (
  *("[]", "null", "3", '"step"', "{}", '{"step": null}', '{"step": "1"}'),
  *('{"step": -1}', '{"step": 1e999}', '{"step": [1]}', '{"step": true}'),
  *("[" * 10**5, '{"step": ' + "1" * 5000 + "}", '{"step": 1, "step": 2}'),
)


def test_lines_that_are_json_but_no_step_are_counted(fresh):
  lines = ({"step": 1, "loss": 2.0}, {"step": 3, "loss": 1.0})
  workdirs.write_lines(
    fresh, lines[0], *(f"{x}\n" for x in _NO_STEPS), lines[1]
  )
  page = workdirs.page(fresh)
  assert f"metrics.jsonl skipped: {len(_NO_STEPS)}." in page
  assert "step 3 of 40" in page


def test_values_of_other_kinds_than_before_are_counted(fresh):
  values = ([1.0, 2.0], [1.0], 3.0, "text", [], {}, [1.0, "x"], [2.0, 3.0])
  workdirs.write_lines(
    fresh, *({"step": i, "x": v} for i, v in enumerate(values))
  )
  page = workdirs.page(fresh)
  assert "metrics.jsonl skipped: 2." in page
  assert "<b>2 to 3</b>" in page


@pytest.mark.parametrize(
  "file, text, message",
  [
    ("config.json", "[]", "it is a list of 0, expected an object"),
    ("config.json", "[" * 10**5, "nests lists and objects more than 32 deep"),
    ("samples/captions.json", '{"a.png": 1}', "'a.png' is 1, expected an obj"),
    (
      "samples/captions.json",
      '{"a.png": {"title": 3}}',
      "'a.png'.title is 3, expected a text or null",
    ),
  ],
)
def test_files_of_another_kind_are_named(finished, file, text, message):
  (finished / file).write_text(text)
  with pytest.raises(ValueError, match=f"{file}.*{re.escape(message)}"):
    workdirs.page(finished)


@pytest.mark.parametrize(
  "text, message",
  [
    ("{", "it is not JSON"),
    ('{"step": "x"}', "step is 'x', expected a whole number"),
    ('{"metrics": 1}', "metrics is 1, expected an object"),
    ('{"evaluator": []}', "evaluator is a list of 0, expecte"),
  ],
)
def test_a_damaged_result_is_a_line_and_the_rest_is_shown(
  finished, caplog, text, message
):
  (finished / "results" / "a.json").write_text(text)
  page = html.unescape(workdirs.page(finished))
  message = message.removeprefix("it ")
  (line,) = re.findall(r'<p class="missing">Left out: (.*?)</p>', page)
  assert "results/a.json" in line and message in line
  assert "results/a.json" in caplog.text and message in caplog.text
  assert "Codebook use</span><strong>50.0%" in page
