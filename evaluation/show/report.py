"""One self-contained HTML page about finished or running experiments.

  python -m evaluation.show.report --output=demo/report.html WORKDIR [...]

Everything is embedded (pictures as data URIs, plots as inline SVG, no script),
so that the file can be mailed, archived and opened without a network.
"""

import argparse
import base64
import dataclasses
import datetime
import fnmatch
import io
import json
import os
import pathlib
import sys

from PIL import Image

from evaluation.show import curves
from evaluation.show.markup import escape
from evaluation.show.markup import missing
from evaluation.show.markup import number
from storage import files

# The cards, in order: evaluator (a pattern of fnmatch), metric, label, format
# and the count that puts the number in proportion, from metrics or protocol. A
# label with the evaluator's name in it makes a card for each of them.
HEADLINES = (
  ("*", "psnr", "PSNR", "{:.2f} dB", "examples"),
  ("*", "ssim", "SSIM", "{:.3f}", "examples"),
  ("*", "lpips", "LPIPS", "{:.3f}", "examples"),
  ("codebook", "usage", "Codebook use", "{:.1%}", "tokens"),
  ("*", "class_accuracy", "Class accuracy", "{:.1%}", "examples"),
  (
    "frechet",
    "frechet_appearance_distance",
    "Fréchet distance",
    "{:.4g}",
    "examples",
  ),
  ("*", "hidden_psnr", "{evaluator} PSNR", "{:.2f} dB", "examples"),
)

_ABOUT = (
  "MAGVIT-v2: a causal 3-D convolutional tokenizer with lookup-free "
  "quantization turns video into discrete tokens; a masked generative "
  "transformer models those tokens."
)
_NO_EVALUATION = "No evaluation yet: run this experiment with --mode=evaluate."
_MEDIA_TYPES = {".gif": "image/gif", ".png": "image/png"}


@dataclasses.dataclass
class _Run:
  """What the page says about one workdir."""

  workdir: pathlib.Path
  config: dict
  captions: dict  # File name in samples/ -> {"title", "caption"}.
  results: list  # The objects of results/*.json.
  metrics: dict  # Name -> {step: value}.
  damaged_lines: int  # Of metrics.jsonl.

  @property
  def name(self):
    return str(self.config.get("name") or self.workdir.resolve().name)


def write_report(workdirs, path, title=None):
  """Writes the page about these workdirs, in this order, and returns its path.

  Args:
    workdirs: folders with a config.json and, as far as the experiment has got,
      metrics.jsonl, results/*.json and samples/ with captions.json.
    path: the HTML file; replaced atomically.
    title: of the page; None for a general one.

  Raises:
    ValueError: a workdir has no config.json, or one of its JSON files (but
      not metrics.jsonl, which is read while it is written) does not parse.
  """
  runs = [_read_run(pathlib.Path(workdir)) for workdir in workdirs]
  if not runs:
    raise ValueError("workdirs=[] must name at least one workdir to report on.")
  title = title or "Open MAGVIT-v2: experiment report"
  cards = "".join(_cards(run, index) for index, run in enumerate(runs))
  sections = "".join(_section(run, index) for index, run in enumerate(runs))
  page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
<header><h1>{escape(title)}</h1><p>{_ABOUT}</p>
<p class="muted">{datetime.date.today():%d %B %Y}</p></header>
<main>{cards}{sections}</main></body></html>
"""
  return files.write_atomically(path, page.encode())


def _read_run(workdir):
  if not workdir.is_dir():
    raise ValueError(f"workdir {str(workdir)!r} is not a directory.")
  if not (workdir / "config.json").is_file():
    raise ValueError(
      f"workdir {str(workdir)!r} has no config.json, expected the workdir of "
      "a started experiment; training writes that file first."
    )
  config = _read_json(workdir / "config.json")
  captions_path = workdir / "samples" / "captions.json"
  captions = _read_json(captions_path) if captions_path.is_file() else {}
  for picture in sorted((workdir / "samples").glob("*")):
    if picture.suffix in _MEDIA_TYPES:
      captions.setdefault(picture.name, {})
  results = [
    _read_json(p) for p in sorted((workdir / "results").glob("*.json"))
  ]
  results.sort(key=lambda r: (r.get("evaluator", ""), r.get("step", 0)))
  metrics, damaged_lines = _read_metrics(workdir / "metrics.jsonl")
  return _Run(workdir, config, captions, results, metrics, damaged_lines)


def _read_json(path):
  """The JSON object in a file."""
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path} is not JSON ({error}); write it anew.") from error
  if not isinstance(value, dict):
    raise ValueError(
      f"{path} holds a {type(value).__name__}, expected an object."
    )
  return value


def _read_metrics(path):
  """({metric: {step: value}}, number of damaged lines).

  A run that was killed and resumed repeats steps: the later line holds. The
  last line may be torn because the run is just writing it, which is no damage;
  a torn line further up is the trace of a killed run.
  """
  if not path.is_file():
    return {}, 0
  metrics, damaged = {}, []
  # What follows the last newline is empty or torn.
  lines = path.read_text(errors="replace").split("\n")
  for row, line in enumerate(lines):
    try:
      record = json.loads(line)
      step = int(record.pop("step"))
    except (ValueError, TypeError, KeyError, AttributeError):
      damaged.append(row)
      continue
    record.pop("time", None)
    for name, value in record.items():
      if isinstance(value, int | float | list):
        metrics.setdefault(name, {})[step] = value
  return metrics, len([row for row in damaged if row + 1 < len(lines)])


def _cards(run, index):
  """The headline numbers of one run; the latest step of each label counts."""
  cards = []
  for evaluator, metric, label, form, count in HEADLINES:
    latest = {}
    for result in run.results:
      name = result.get("evaluator", "")
      value = result.get("metrics", {}).get(metric)
      if not fnmatch.fnmatch(name, evaluator) or not _is_number(value):
        continue
      title = label.format(evaluator=name.replace("_", " ").capitalize())
      step = result.get("step", 0)
      if title not in latest or step > latest[title].get("step", 0):
        latest[title] = result
    cards += [
      _card(title, result, metric, form, count)
      for title, result in latest.items()
    ]
  body = "".join(cards)
  if not run.results:
    body = missing(_NO_EVALUATION)
  return (
    f'<h2 class="run"><a href="#run-{index}">{escape(run.name)}</a></h2>'
    f'<div class="cards">{body}</div>'
  )


def _card(title, result, metric, form, count):
  metrics, protocol = result["metrics"], result.get("protocol", {})
  step = number(result.get("step", 0))
  notes = [f"{escape(result.get('evaluator', ''))}, step {step}"]
  baseline = metrics.get(f"baseline_{metric}")
  if _is_number(baseline):
    trivial = escape(protocol.get("baseline", "baseline"))
    notes.insert(0, f"{trivial}: {form.format(baseline)}")
  counts = {**protocol, **metrics}
  if count in counts:
    notes.insert(0, f"{number(counts[count])} {count}")
  return (
    f'<div class="card"><span>{escape(title)}</span>'
    f"<strong>{form.format(metrics[metric])}</strong>"
    f"<small>{'<br>'.join(notes)}</small></div>"
  )


def _is_number(value):
  return isinstance(value, int | float)


def _section(run, index):
  config = run.config
  facts = [escape(run.workdir)]
  if "algorithm" in config:
    facts.insert(0, escape(config["algorithm"]))
  if run.metrics:
    last = number(max(max(curve) for curve in run.metrics.values()))
    facts.append(f"step {last} of {number(config.get('num_steps', '?'))}")
  command = ""
  if config.get("command"):
    command = f"<h3>Command</h3><pre>{escape(config['command'])}</pre>"
  return f"""<section id="run-{index}"><h2>{escape(run.name)}</h2>
<p class="muted">{" · ".join(facts)}</p>
<h3>Pictures</h3>{_pictures(run)}
<h3>Evaluation</h3>{_results(run)}
<h3>Training</h3>{curves.draw(run.metrics, str(run.workdir), run.damaged_lines)}
{command}<details><summary>Configuration</summary>
<table class="config">{_config_rows(config)}</table></details></section>"""


def _pictures(run):
  figures = []
  for name, words in run.captions.items():
    title, text = words.get("title", name), words.get("caption", "")
    caption = f"<figcaption><b>{escape(title)}</b> {escape(text)}</figcaption>"
    file = run.workdir / "samples" / name
    if file.suffix not in _MEDIA_TYPES or not file.is_file():
      figures.append(
        f"<figure>{missing(f'samples/{name} is missing.')}{caption}</figure>"
      )
      continue
    data = file.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
      width, height = image.size
    wide = ' class="wide"' if width > 2 * height else ""
    figures.append(
      f'<figure{wide}><img width="{width}" height="{height}" '
      f'alt="{escape(f"{title} {text}".strip())}" '
      f'src="data:{_MEDIA_TYPES[file.suffix]};base64,'
      f'{base64.b64encode(data).decode()}">{caption}</figure>'
    )
  if not figures:
    return missing("No pictures yet: run this experiment with --mode=evaluate.")
  return f'<div class="pictures">{"".join(figures)}</div>'


def _results(run):
  """A table per result file, its protocol in small print below."""
  tables = []
  for result in run.results:
    rows = "".join(
      f"<tr><th scope=row>{escape(name)}</th><td>{number(value)}</td></tr>"
      for name, value in result.get("metrics", {}).items()
    )
    protocol = " · ".join(
      f"{escape(name)}: {number(value)}"
      for name, value in result.get("protocol", {}).items()
    )
    tables.append(
      f'<div class="result"><table><caption>'
      f"{escape(result.get('evaluator', '?'))} "
      f"<span>step {number(result.get('step', '?'))}</span></caption>"
      f"{rows}</table><p>{protocol}</p></div>"
    )
  if not tables:
    return missing(_NO_EVALUATION)
  return f'<div class="results">{"".join(tables)}</div>'


def _config_rows(config, depth=0):
  rows = []
  for name, value in config.items():
    nested = isinstance(value, dict) and value
    text = "" if nested else escape(json.dumps(value, ensure_ascii=False))
    rows.append(
      f'<tr><th scope=row style="padding-left:{1.4 * depth:g}em">'
      f"{escape(name)}</th><td>{text}</td></tr>"
    )
    if nested:
      rows.append(_config_rows(value, depth + 1))
  return "".join(rows)


_STYLE = """
:root { --bg: #fafaf8; --card: #fff; --ink: #1d1e20; --muted: #686c73;
  --line: #e5e5e1; --curve: #2f6bd8; --dot: #d9582a; }
@media (prefers-color-scheme: dark) { :root { --bg: #131416; --card: #1b1d20;
  --ink: #e7e8ea; --muted: #9ba1a9; --line: #2d3035; --curve: #77a7ff;
  --dot: #ff9a62; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1148px; padding: 40px 24px 80px;
  background: var(--bg); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0 0 8px; font-size: 32px; line-height: 1.2;
  letter-spacing: -.02em; }
h2 { margin: 0; font-size: 24px; letter-spacing: -.01em; }
h2.run { margin: 32px 0 12px; font-size: 17px; }
h3 { margin: 36px 0 12px; font-size: 17px; }
header p { max-width: 68ch; margin: 0 0 8px; }
section { margin-top: 56px; padding-top: 32px;
  border-top: 1px solid var(--line); }
section > p { margin: 4px 0 0; }
a { color: inherit; text-decoration-color: var(--line);
  text-underline-offset: 4px; }
a:hover { text-decoration-color: currentColor; }
.muted, .missing, .legend, small, figcaption, .result p, caption span {
  color: var(--muted); font-size: 14px; }
.cards, .pictures, .results, .plots { display: grid; gap: 16px; }
.cards { grid-template-columns:
  repeat(auto-fill, minmax(min(200px, 46%), 1fr)); }
.pictures { grid-template-columns:
  repeat(auto-fill, minmax(min(100%, 440px), 1fr)); align-items: start; }
.results, .plots { grid-template-columns:
  repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
.card, .pictures figure, .result, .plot, details, pre { margin: 0;
  padding: 16px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.card span { display: block; font-size: 14px; }
.card strong { display: block; margin: 2px 0 4px; font-size: 26px;
  font-weight: 600; line-height: 1.2; letter-spacing: -.02em; }
.card small { display: block; font-size: 13px; line-height: 1.4; }
.missing { margin: 0; padding: 12px 16px; border: 1px dashed var(--line);
  border-radius: 10px; }
.cards .missing { grid-column: 1 / -1; }
.wide { grid-column: 1 / -1; }
img { display: block; width: 100%; height: auto; border-radius: 4px;
  image-rendering: pixelated; }
.pictures figcaption { margin-top: 12px; }
figcaption b { color: var(--ink); font-weight: 600; }
.plot { padding: 12px 12px 8px; }
.plot figcaption { display: flex; justify-content: space-between; gap: 12px; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; }
.legend { margin: 0 0 12px; }
.legend i { display: inline-block; width: 20px; height: 3px;
  margin: 0 4px 4px 14px; background: var(--curve); border-radius: 2px; }
.legend i:first-child { margin-left: 0; }
.legend .raw { opacity: .35; }
.legend .dot { width: 8px; height: 8px; margin-bottom: 1px;
  background: var(--dot); border-radius: 4px; }
table { width: 100%; border-collapse: collapse;
  font-variant-numeric: tabular-nums; }
caption { padding-bottom: 6px; font-weight: 600; text-align: left; }
caption span { float: right; font-weight: 400; }
th, td { padding: 5px 0; border-top: 1px solid var(--line); font-size: 14px;
  font-weight: 400; text-align: left; vertical-align: top; }
.result td { text-align: right; }
.result p { margin: 10px 0 0; font-size: 12.5px; line-height: 1.45; }
details { margin-top: 16px; }
summary { cursor: pointer; font-weight: 600; }
details > :last-child { margin-top: 12px; }
.config td, pre { font-family: ui-monospace, Menlo, Consolas, monospace;
  font-size: 13px; }
.config th { width: 40%; }
pre { white-space: pre-wrap; }
"""


def main() -> None:
  parser = argparse.ArgumentParser(description=write_report.__doc__)
  parser.add_argument("workdirs", nargs="+", metavar="WORKDIR")
  parser.add_argument("--output", default="report.html", help="page to write")
  parser.add_argument("--title", help="of the page")
  arguments = parser.parse_args()
  try:
    page = write_report(arguments.workdirs, arguments.output, arguments.title)
  except (ValueError, OSError) as error:
    sys.exit(f"error: {error}")
  print(page)


if __name__ == "__main__":
  main()


def add_caption(workdir: str, picture: str, title: str, caption: str) -> None:
  """Says in the report what samples/PICTURE shows."""
  path = os.path.join(workdir, "samples", "captions.json")
  captions = {}
  if os.path.exists(path):
    with open(path) as f:
      captions = json.load(f)
  captions[picture] = {"title": title, "caption": caption}
  files.write_atomically(path, json.dumps(captions, indent=2))
