"""Tests of evaluation/show/report.py."""

import base64
import html
import html.parser
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from evaluation import records
from evaluation.show import curves
from evaluation.show import markup
from evaluation.show import report
from tests.evaluation.show import workdirs


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
  images = [
    a for tag, a in _Elements(workdirs.page(finished)).elements if tag == "img"
  ]
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
  page = workdirs.page(finished)
  assert page.count("<img") == 2
  assert "samples/gone.png is missing" in page


def test_the_page_refers_to_nothing_outside_itself(finished):
  page = workdirs.page(finished)
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
  page = workdirs.page(finished, copy)
  elements = _Elements(page).elements
  ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
  assert len(ids) == len(set(ids))
  targets = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
  assert targets and targets <= set(ids)


def test_equal_workdirs_give_equal_pages(finished):
  assert workdirs.page(finished) == workdirs.page(finished)


def test_markup_in_config_and_captions_is_escaped(finished):
  evil = "<script>alert('&')</script>"
  config = {"name": evil, "algorithm": evil, "command": evil, "a": {evil: evil}}
  (finished / "config.json").write_text(json.dumps(config))
  (finished / "samples" / "captions.json").write_text(
    json.dumps({"z.gif": {"title": f'"{evil}', "caption": evil}})
  )
  workdirs.write_result(
    finished, "a", evil, 1, {evil: evil, "psnr": 1.0}, evil=evil
  )
  workdirs.write_lines(finished, {"step": 1, evil: 1.0})
  page = workdirs.page(finished)
  assert "<script" not in page
  assert "&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in page
  _Elements(page)


def test_steps_repeated_after_a_restart_count_once_the_later_holds(fresh):
  workdirs.write_lines(
    fresh,
    {"step": 1, "loss": 4.0},
    {"step": 2, "loss": 3.0},
    {"step": 2, "loss": 2.0},
  )
  metrics, _ = records.read_metrics(fresh / "metrics.jsonl")
  assert metrics == {"loss": {1: 4.0, 2: 2.0}}


def test_values_that_are_not_finite_are_counted_not_drawn(fresh):
  workdirs.write_lines(
    fresh, {"step": 1, "loss": 2.0}, '{"step": 2, "loss": NaN, "all": NaN}\n'
  )
  page = workdirs.page(fresh)
  assert "loss (1 not finite) <b>2</b>" in page
  assert "all (1 not finite) <b>no finite value</b>" in page
  assert "nan" not in page.lower()


def test_what_is_wrong_stands_above_the_cards_and_above_the_curves(fresh):
  shares = [0.0] * 6 + [0.5] * 4
  workdirs.write_lines(
    fresh,
    *({"step": s, "health/positive_share": shares} for s in range(1, 200)),
  )
  page = workdirs.page(fresh)
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
  assert workdirs.page(finished).count(f'<p class="health">{line}') == 2
  (fresh / "metrics.jsonl").unlink()
  assert 'class="health' not in workdirs.page(fresh)


def test_evaluations_share_the_panel_of_the_metric_they_repeat(finished):
  assert _panels(workdirs.page(finished)) == ["reconstruction", "psnr"]


def test_a_metric_of_channels_is_one_panel_with_a_line_each(fresh):
  workdirs.write_lines(
    fresh,
    {"step": 1, "health/flip_rate": [0.5, 0.25, 0.125]},
    {"step": 2, "health/flip_rate": [0.5, 0.75, 0.25]},
  )
  page = workdirs.page(fresh)
  assert "health/flip_rate, by channel <b>0.25 to 0.75</b>" in page
  plot = page[page.rindex("health/flip_rate of each") :]
  line = r'style="fill: none; stroke: var\(--curve\)'
  assert len(re.findall(line, plot)) == 3


def test_cards_take_the_latest_step_and_show_the_count_beside(finished):
  workdirs.write_result(finished, "old", "second", 9, {"psnr": 11.0})
  cards = re.findall(r'<div class="card">(.*?)</div>', workdirs.page(finished))
  assert cards == [
    "<span>PSNR</span><strong>25.12 dB</strong>"
    "<small>256 examples<br>reconstruction, step 40</small>",
    "<span>Codebook use</span><strong>50.0%</strong>"
    "<small>65,536 tokens<br>codebook, step 40</small>",
  ]


def test_every_task_has_its_card_with_the_trivial_completion_beside(finished):
  for task, psnr in (("frame_prediction", 19.5), ("interpolation", 22.0)):
    metrics = {"hidden_psnr": psnr, "baseline_hidden_psnr": 17.25}
    workdirs.write_result(finished, task, task, 40, metrics, baseline="<still>")
  cards = re.findall(r'<div class="card">(.*?)</div>', workdirs.page(finished))[
    -2:
  ]
  assert cards == [
    "<span>Frame prediction PSNR</span><strong>19.50 dB</strong>"
    "<small>&lt;still&gt;: 17.25 dB<br>frame_prediction, step 40</small>",
    "<span>Interpolation PSNR</span><strong>22.00 dB</strong>"
    "<small>&lt;still&gt;: 17.25 dB<br>interpolation, step 40</small>",
  ]


def test_tasks_that_were_trained_most_often_come_first(finished):
  config = json.loads((finished / "config.json").read_text())
  tasks = {"central_inpainting": 0.5, "interpolation": 3.0, "other": 3.0}
  (finished / "config.json").write_text(json.dumps({**config, "tasks": tasks}))
  for task in tasks:
    metrics = {"hidden_psnr": 20.0}
    workdirs.write_result(finished, task, task, 40, metrics)
  titles = re.findall(r"<span>(\w+) ?\w* PSNR</span>", workdirs.page(finished))
  assert titles == ["Interpolation", "Other", "Central"]


def test_scores_of_codecs_say_of_which_clips_and_by_which_codec(finished):
  metrics = {"held_out_x264_51_psnr": 21.5, "train_x264_fitting": 1.0}
  metrics["live_action_tokens_bits_per_pixel"] = 0.25
  workdirs.write_result(finished, "c", "film_codecs", 40, metrics)
  page = workdirs.page(finished)
  for row in (
    "PSNR</th><td>21.5</td><td>dB</td><td></td><td>held-out clips by x264 at"
    " its lowest rate: higher is better<",
    "Fitting</th><td>1</td><td></td><td></td><td>clips of training by x264 in"
    " the tokens&#39; bits: share of clips that it codes in these bits<",
    "Size</th><td>0.25</td><td>bits/pixel</td><td></td><td>live action through"
    " the tokens: lower is better<",
  ):
    assert row in page


def test_results_are_tabulated_with_their_protocol(finished):
  nested = {"clips": {"folder": "there", "sizes": [3, 4]}, "nothing": None}
  left_out = {"lpips": "needs weights"}
  workdirs.write_result(
    *(finished, "c", "reconstruction@8x1", 40, {"psnr": 12.5, "odd": 1.0}),
    **dict(protocol="reconstruction", examples=8, left_out=left_out, **nested),
  )
  page = workdirs.page(finished)
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
  workdirs.write_result(
    *(finished, "c", "codebook@8x1", 40, {"usage": 0.125, "psnr": 11.0}),
    protocol="codebook",
  )
  page = workdirs.page(finished)
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
  workdirs.write_result(
    finished, "c", "more", 40, {"ssim": 0.5, "class_accuracy": 1.0}
  )
  page = workdirs.page(finished)
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
  workdirs.write_lines(fresh, {"step": 1, **dict.fromkeys(names, 1.0)})
  assert _panels(workdirs.page(fresh)) == [
    *("generator/reconstruction", "held_out_reconstruction/psnr"),
    *("health/codes_used", "generator/codebook_entropy", "gradient_norm"),
    *("learning_rate", "discriminator/accuracy", "image/discriminator/loss"),
  ]


def test_results_without_a_headline_are_not_called_missing(fresh):
  workdirs.write_result(fresh, "a", "speed", 1, {"frames_per_second": 3.5})
  page = workdirs.page(fresh)
  assert "No evaluation yet" not in page
  assert 'class="card"' not in page


def test_missing_pieces_are_described(fresh):
  page = workdirs.page(fresh)
  assert page.count("No evaluation yet: run this experiment with") == 1
  assert "No pictures yet" in page
  assert "No training metrics yet" in page
  assert "<h3>Command</h3>" not in page
  _Elements(page)


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
  assert output.read_text() == workdirs.page(finished)


@pytest.mark.parametrize("name", ["codebook", "held_out_codebook"])
def test_held_out_scores_are_shown_by_both_of_their_names(fresh, name):
  """Their files were named like those of protocols once."""
  workdirs.write_result(fresh, "b", name, 40, {"usage": 0.25, "tokens": 64})
  workdirs.write_result(
    fresh, "a", name.replace("codebook", "reconstruction"), 40, {"psnr": 20.5}
  )
  path = report.write_report([fresh], fresh / "report.html")
  text = path.read_text()
  assert "<span>Codebook use</span><strong>25.0%</strong>" in text
  assert "<span>PSNR</span><strong>20.50 dB</strong>" in text
