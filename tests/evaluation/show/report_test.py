"""Tests of evaluation/show/report.py."""

import base64
import html
import html.parser
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from evaluation import records
from evaluation.show import curves
from evaluation.show import markup
from evaluation.show import pictures
from evaluation.show import report


def _write_lines(workdir, *lines):
  text = "".join(
    line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines
  )
  (workdir / "metrics.jsonl").write_text(text)


def _write_result(workdir, name, evaluator, step, metrics, **protocol):
  (workdir / "results").mkdir(exist_ok=True)
  result = {
    "evaluator": evaluator,
    "step": step,
    "metrics": metrics,
    "protocol": protocol,
  }
  (workdir / "results" / f"{name}.json").write_text(json.dumps(result))


@pytest.fixture
def fresh(tmp_path):
  """The workdir of an experiment that has only just started."""
  workdir = tmp_path / "fresh"
  workdir.mkdir()
  (workdir / "config.json").write_text(
    json.dumps({"name": "digits", "algorithm": "tokenizer", "num_steps": 40})
  )
  return workdir


@pytest.fixture
def finished(fresh):
  """A workdir with everything in it."""
  _write_lines(
    fresh,
    *({"step": s, "time": 1.5, "reconstruction": 1 / s} for s in range(1, 41)),
    {"step": 40, "eval/psnr": 25.125, "eval/reconstruction": 0.5},
  )
  _write_result(
    fresh, "a", "reconstruction", 40, {"psnr": 25.125}, examples=256
  )
  _write_result(
    fresh, "b", "codebook", 40, {"usage": 0.5, "tokens": 65536}, split="test"
  )
  samples = fresh / "samples"
  clip_THWC = np.zeros((2, 4, 4, 3), np.uint8)
  clip_THWC[1] = 255
  pictures.write_gif(samples / "z.gif", clip_THWC, scale=1)
  pictures.write_png(samples / "a.png", clip_THWC[0], scale=1)
  (samples / "captions.json").write_text(
    json.dumps(
      {
        "z.gif": {"title": "Moving", "caption": "shown first"},
        "a.png": {"title": "Still", "caption": "shown second"},
      }
    )
  )
  return fresh


def _page(*workdirs, path=None):
  return report.write_report(
    workdirs, path or workdirs[0] / "page" / "report.html"
  ).read_text()


class _Elements(html.parser.HTMLParser):
  """Collects (tag, attributes) and checks that elements nest."""

  def __init__(self, page):
    super().__init__()
    self.elements, self._open = [], []
    self.feed(page)
    assert not self._open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in ("meta", "img", "br"):
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag


def _panels(page):
  """Names of the curves below the heading of training, in order."""
  training = page[page.index("<h3>Training</h3>") :]
  return re.findall(r'<figure class="plot"><figcaption>([^ ,]+)', training)


def test_every_picture_is_embedded_in_the_order_of_the_captions(finished):
  images = [a for tag, a in _Elements(_page(finished)).elements if tag == "img"]
  assert [image["alt"] for image in images] == [
    "Moving shown first",
    "Still shown second",
  ]
  for image, name in zip(images, ["z.gif", "a.png"], strict=True):
    head, data = image["src"].split(",")
    assert head == f"data:image/{name[-3:]};base64"
    assert base64.b64decode(data) == (finished / "samples" / name).read_bytes()


def test_a_picture_without_a_caption_is_shown_and_one_gone_is_reported(
  finished,
):
  (finished / "samples" / "captions.json").write_text(
    json.dumps({"gone.png": {"title": "Gone", "caption": ""}})
  )
  page = _page(finished)
  assert page.count("<img") == 2
  assert "samples/gone.png is missing" in page


def test_the_page_refers_to_nothing_outside_itself(finished):
  page = _page(finished)
  assert "http" not in page
  assert "url(" not in page.replace("url(#", "")
  elements = _Elements(page).elements
  for _, attributes in elements:
    for name in ("src", "href", "xlink:href"):
      assert attributes.get(name, "#").startswith(("#", "data:"))
  assert not {"script", "link", "iframe"} & {tag for tag, _ in elements}


def test_ids_are_unique_over_runs_and_links_lead_somewhere(finished, tmp_path):
  copy = tmp_path / "copy"
  copy.mkdir()
  for name in ("config.json", "metrics.jsonl"):
    (copy / name).write_text((finished / name).read_text())
  page = _page(finished, copy)
  elements = _Elements(page).elements
  ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
  assert len(ids) == len(set(ids))
  targets = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
  assert targets and targets <= set(ids)


def test_equal_workdirs_give_equal_pages(finished):
  assert _page(finished) == _page(finished)


def test_markup_in_config_and_captions_is_escaped(finished):
  evil = "<script>alert('&')</script>"
  config = {"name": evil, "algorithm": evil, "command": evil, "a": {evil: evil}}
  (finished / "config.json").write_text(json.dumps(config))
  (finished / "samples" / "captions.json").write_text(
    json.dumps({"z.gif": {"title": f'"{evil}', "caption": evil}})
  )
  _write_result(finished, "a", evil, 1, {evil: evil, "psnr": 1.0}, evil=evil)
  _write_lines(finished, {"step": 1, evil: 1.0})
  page = _page(finished)
  assert "<script" not in page
  assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page
  _Elements(page)


def test_names_that_are_no_utf8_do_not_stop_the_page(finished):
  result = {"evaluator": "media_x", "protocol": {"input": "a\udcff.png"}}
  (finished / "results" / "media_x.json").write_text(json.dumps(result))
  report.add_caption(str(finished), "gone\udcfe.png", "\udcff", "\udcff")
  page = report.write_report([finished], finished / "report.html")
  assert "a\\udcff.png" in page.read_text()


def test_a_torn_last_line_is_ignored_and_the_lines_before_it_count(fresh):
  _write_lines(fresh, {"step": 10, "loss": 0.25}, '{"step": 20, "lo')
  page = _page(fresh)
  assert "step 10 of 40" in page
  assert "loss <b>0.25</b>" in page
  assert "damaged" not in page


def test_a_torn_line_left_by_a_killed_run_is_skipped_and_mentioned(fresh):
  _write_lines(
    fresh,
    {"step": 10, "loss": 0.25},
    '{"step": 20, "lo{"step": 20, "loss": 0.5}\n',
    {"step": 30, "loss": 0.75},
  )
  page = _page(fresh)
  assert "loss <b>0.75</b>" in page
  assert "Damaged lines of metrics.jsonl skipped: 1." in page


def test_steps_repeated_after_a_restart_count_once_the_later_holds(fresh):
  _write_lines(
    fresh,
    {"step": 1, "loss": 4.0},
    {"step": 2, "loss": 3.0},
    {"step": 2, "loss": 2.0},
  )
  metrics, _ = records.read_metrics(fresh / "metrics.jsonl")
  assert metrics == {"loss": {1: 4.0, 2: 2.0}}


def test_values_that_are_not_finite_are_counted_not_drawn(fresh):
  _write_lines(
    fresh, {"step": 1, "loss": 2.0}, '{"step": 2, "loss": NaN, "all": NaN}\n'
  )
  page = _page(fresh)
  assert "loss (1 not finite) <b>2</b>" in page
  assert "all (1 not finite) <b>no finite value</b>" in page
  assert "nan" not in page.lower()


def test_what_is_wrong_stands_above_the_cards_and_above_the_curves(fresh):
  shares = [0.0] * 6 + [0.5] * 4
  _write_lines(
    fresh,
    *({"step": s, "health/positive_share": shares} for s in range(1, 200)),
  )
  page = _page(fresh)
  line = (
    '<p class="health wrong">codebook: 6 of 10 bits stuck since step 1 (0, 1,'
    " 2, 3, 4, 5): raise loss.entropy, or quantizer.entropy_temperature</p>"
  )
  assert page.count('class="health') == page.count(line) == 2
  first, second = (m.start() for m in re.finditer(re.escape(line), page))
  assert first < page.index('<div class="first">')
  assert page.index("<h3>Training</h3>") < second < page.index('"plots"')


def test_a_healthy_run_says_what_was_looked_at(finished, fresh):
  line = "health: nothing unusual up to step 40 (values)"
  assert _page(finished).count(f'<p class="health">{line}') == 2
  (fresh / "metrics.jsonl").unlink()
  assert 'class="health' not in _page(fresh)


def test_evaluations_share_the_panel_of_the_metric_they_repeat(finished):
  assert _panels(_page(finished)) == ["reconstruction", "psnr"]


def test_a_metric_of_channels_is_one_panel_with_a_line_each(fresh):
  _write_lines(
    fresh,
    {"step": 1, "health/flip_rate": [0.5, 0.25, 0.125]},
    {"step": 2, "health/flip_rate": [0.5, 0.75, 0.25]},
  )
  page = _page(fresh)
  assert "health/flip_rate, by channel <b>0.25 to 0.75</b>" in page
  plot = page[page.rindex("health/flip_rate of each") :]
  line = r'style="fill: none; stroke: var\(--curve\)'
  assert len(re.findall(line, plot)) == 3


def test_cards_take_the_latest_step_and_show_the_count_beside(finished):
  _write_result(finished, "old", "second", 9, {"psnr": 11.0})
  cards = re.findall(r'<div class="card">(.*?)</div>', _page(finished))
  assert cards == [
    "<span>PSNR</span><strong>25.12 dB</strong>"
    "<small>256 examples<br>reconstruction, step 40</small>",
    "<span>Codebook use</span><strong>50.0%</strong>"
    "<small>65,536 tokens<br>codebook, step 40</small>",
  ]


def test_every_task_has_its_card_with_the_trivial_completion_beside(finished):
  for task, psnr in (("frame_prediction", 19.5), ("interpolation", 22.0)):
    metrics = {"hidden_psnr": psnr, "baseline_hidden_psnr": 17.25}
    _write_result(finished, task, task, 40, metrics, baseline="<still>")
  cards = re.findall(r'<div class="card">(.*?)</div>', _page(finished))[-2:]
  assert cards == [
    "<span>Frame prediction PSNR</span><strong>19.50 dB</strong>"
    "<small>&lt;still&gt;: 17.25 dB<br>frame_prediction, step 40</small>",
    "<span>Interpolation PSNR</span><strong>22.00 dB</strong>"
    "<small>&lt;still&gt;: 17.25 dB<br>interpolation, step 40</small>",
  ]


def test_results_are_tabulated_with_their_protocol(finished):
  nested = {"clips": {"folder": "there", "sizes": [3, 4]}, "nothing": None}
  left_out = {"lpips": "needs weights"}
  _write_result(
    *(finished, "c", "reconstruction@8x1", 40, {"psnr": 12.5, "odd": 1.0}),
    **dict(protocol="reconstruction", examples=8, left_out=left_out, **nested),
  )
  page = _page(finished)
  for row in (
    ("Tokens", "65,536", "tokens", "", "counted; no more codes can be hit"),
    ("PSNR", "12.5", "dB", "8", "higher is better"),
    ("odd", "1", "", "8", ""),
    ("LPIPS", "–", "", "", "not measured: needs weights"),
  ):
    cells = "".join(f"<td>{cell}</td>" for cell in row[1:])
    assert f'<tr><th scope="row">{row[0]}</th>{cells}</tr>' in page
  for name, value in (
    ("split", "test"),
    ("clips.folder", "there"),
    ("clips.sizes", "3, 4"),
  ):
    assert f'<th scope="row">{name}</th><td>{value}</td>' in page
  assert "{&#34;" not in page and ">nothing<" not in page


def test_protocols_stand_in_their_table_and_take_no_headline(finished):
  """The step is the same, and the name sorts before the usual ones."""
  _write_result(
    *(finished, "c", "codebook@8x1", 40, {"usage": 0.125, "psnr": 11.0}),
    protocol="codebook",
  )
  page = _page(finished)
  cards = re.findall(r'<div class="card">(.*?)</div>', page)
  assert [re.findall("<strong>(.*?)<", card) for card in cards] == [
    ["25.12 dB"],
    ["50.0%"],
  ]
  protocols = page.index("<h3>Protocols")
  assert page.index("<caption>codebook@8x1") > protocols
  assert page.index("<caption>reconstruction ") < protocols


def test_the_first_screen_says_what_it_is_and_shows_the_best(finished):
  config = json.loads((finished / "config.json").read_text())
  config["dataset"] = {"name": "birds", "frames": 17, "size": 64}
  (finished / "config.json").write_text(json.dumps(config))
  _write_result(finished, "c", "more", 40, {"ssim": 0.5, "class_accuracy": 1.0})
  page = _page(finished)
  order = [
    *("<h2>digits", "tokenizer · birds, 17 frames of 64 x 64 pixels · step 40"),
    *("PSNR</span>", "SSIM</span>", "Codebook use</span>", "<img"),
    *('class="plot"><figcaption>reconstruction', "Class accuracy</span>"),
    *("<h3>Pictures", "<h3>Evaluation", "<h3>Training", "<footer>"),
  ]
  places = [page.index(text) for text in order]
  assert places == sorted(places)
  headings = re.findall(r"<h[1-6]>(.*?)</h[1-6]>", page)
  assert headings and all(headings)
  assert page.count("<table") == page.count("<tbody") + 1  # configuration


def test_reconstruction_and_codebook_come_first_discriminator_last(fresh):
  names = (
    *("discriminator/accuracy", "image/discriminator/loss", "gradient_norm"),
    *("learning_rate", "health/codes_used", "generator/codebook_entropy"),
    *("eval/held_out_reconstruction/psnr", "generator/reconstruction"),
  )
  _write_lines(fresh, {"step": 1, **dict.fromkeys(names, 1.0)})
  assert _panels(_page(fresh)) == [
    *("generator/reconstruction", "held_out_reconstruction/psnr"),
    *("health/codes_used", "generator/codebook_entropy", "gradient_norm"),
    *("learning_rate", "discriminator/accuracy", "image/discriminator/loss"),
  ]


def test_results_without_a_headline_are_not_called_missing(fresh):
  _write_result(fresh, "a", "speed", 1, {"frames_per_second": 3.5})
  page = _page(fresh)
  assert "No evaluation yet" not in page
  assert 'class="card"' not in page


def test_missing_pieces_are_described(fresh):
  page = _page(fresh)
  assert page.count("No evaluation yet: run this experiment with") == 1
  assert "No pictures yet" in page
  assert "No training metrics yet" in page
  assert "<h3>Command</h3>" not in page
  _Elements(page)


def test_what_is_no_workdir_is_an_error_that_names_it(fresh, tmp_path):
  with pytest.raises(ValueError, match="workdir .*nowhere' .*directory"):
    _page(fresh, tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match="workdir .*empty' .*config.json"):
    _page(fresh, tmp_path / "empty")
  (fresh / "config.json").write_text("{")
  with pytest.raises(ValueError, match="fresh/config.json is not JSON"):
    _page(fresh)
  with pytest.raises(ValueError, match=r"workdirs=\[\]"):
    report.write_report([], tmp_path / "report.html")
  assert not (fresh / "page").exists()


@pytest.mark.parametrize(
  "value, text",
  [
    (1234567, "1,234,567"),
    (0.123456, "0.1235"),
    (25.0, "25"),
    (65536.4, "65,536"),
    (0.0000123456, "1.235e-05"),
    (float("inf"), "inf"),
    (True, "true"),
    (None, "null"),
    ("a<b", "a&lt;b"),
  ],
)
def test_numbers_have_four_digits_and_counts_have_separators(value, text):
  assert markup.number(value) == text


@pytest.mark.parametrize(
  "values, log",
  [([1, 31], True), ([1, 29], False), ([0, 31], False), ([-31, -1], False)],
)
def test_only_positive_values_far_apart_get_a_log_scale(values, log):
  assert curves._spans_decades(np.array(values, float)) == log


def test_a_spike_survives_the_thinning_of_a_long_curve():
  values = np.zeros(10_000)
  values[5_003] = 1.0
  drawn = curves._extremes(values)
  assert len(drawn) <= 602
  assert {0, 5_003, 9_999} <= set(drawn.tolist())


def test_smoothing_keeps_constants_and_length():
  for length in (0, 1, 59, 60, 1000):
    ones = np.ones(length)
    # Means of ones divided by counts: only rounding of one division.
    np.testing.assert_allclose(curves._smooth(ones), ones, rtol=1e-12)


def test_the_command_line_writes_the_page_without_jax(finished, tmp_path):
  root = pathlib.Path(report.__file__).parents[2]
  code = (
    "import runpy, sys; sys.modules['jax'] = None;"
    "runpy.run_module('evaluation.show.report', run_name='__main__')"
  )
  output = tmp_path / "demo" / "report.html"
  run = subprocess.run(
    [sys.executable, "-c", code, f"--output={output}", finished],
    cwd=root,
    capture_output=True,
    text=True,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.strip() == str(output)
  assert output.read_text() == _page(finished)


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
    _page(finished)


def test_pictures_are_not_read_through_links(finished):
  private = finished.parent / "private.png"
  pictures.write_png(str(private), np.zeros((4, 4, 3), np.uint8))
  os.symlink(private, finished / "samples" / "b.png")
  with pytest.raises(ValueError, match="samples/b.png is a symbolic link"):
    _page(finished)


_NO_STEPS = (
  *("[]", "null", "3", '"step"', "{}", '{"step": null}', '{"step": "1"}'),
  *('{"step": -1}', '{"step": 1e999}', '{"step": [1]}', '{"step": true}'),
  *("[" * 10**5, '{"step": ' + "1" * 5000 + "}", '{"step": 1, "step": 2}'),
)


def test_lines_that_are_json_but_no_step_are_counted(fresh):
  lines = ({"step": 1, "loss": 2.0}, {"step": 3, "loss": 1.0})
  _write_lines(fresh, lines[0], *(f"{x}\n" for x in _NO_STEPS), lines[1])
  page = _page(fresh)
  assert f"metrics.jsonl skipped: {len(_NO_STEPS)}." in page
  assert "step 3 of 40" in page


def test_values_of_other_kinds_than_before_are_counted(fresh):
  values = ([1.0, 2.0], [1.0], 3.0, "text", [], {}, [1.0, "x"], [2.0, 3.0])
  _write_lines(fresh, *({"step": i, "x": v} for i, v in enumerate(values)))
  page = _page(fresh)
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
    _page(finished)


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
  page = html.unescape(_page(finished))
  message = message.removeprefix("it ")
  (line,) = re.findall(r'<p class="missing">Left out: (.*?)</p>', page)
  assert "results/a.json" in line and message in line
  assert "results/a.json" in caplog.text and message in caplog.text
  assert "Codebook use</span><strong>50.0%" in page


@pytest.mark.parametrize("name", ["codebook", "held_out_codebook"])
def test_held_out_scores_are_shown_by_both_of_their_names(fresh, name):
  """Their files were named like those of protocols once."""
  _write_result(fresh, "b", name, 40, {"usage": 0.25, "tokens": 64})
  _write_result(
    fresh, "a", name.replace("codebook", "reconstruction"), 40, {"psnr": 20.5}
  )
  path = report.write_report([fresh], fresh / "report.html")
  text = path.read_text()
  assert "<span>Codebook use</span><strong>25.0%</strong>" in text
  assert "<span>PSNR</span><strong>20.50 dB</strong>" in text
