"""One self-contained HTML page about finished or running experiments.

  python -m evaluation.show.report --output=demo/report.html WORKDIR [...]

Everything is embedded (pictures as data URIs, plots as inline SVG, no script),
so that the file can be mailed, archived and opened without a network.
"""

from storage import interrupts

if __name__ == "__main__":
  interrupts.end_at_once()  # the other imports take seconds

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
from typing import Any

from PIL import Image

from evaluation import records
from evaluation.diagnosis import lines as diagnosis
from evaluation.metrics import frames as frame_metrics
from evaluation.show import markup
from evaluation.show import results
from storage import files
from storage import listing
from storage import paths
from storage import schema
from storage import stores


@dataclasses.dataclass(frozen=True)
class Headline:
  """A kind of card: one number of an evaluation, in large type."""

  evaluator: str  # pattern of evaluators' names, for fnmatch
  metric: str
  label: str  # title; with "{evaluator}" in it, each evaluator has a card
  format: str
  count: str  # metric or protocol field that puts the number in proportion


# Cards in their order on the page.
HEADLINES = (
  *(
    Headline("*", name, metric.label, metric.form, "examples")
    for name, metric in frame_metrics.at("headline").items()
  ),
  Headline("*", "usage", "Codebook use", "{:.1%}", "tokens"),
  Headline("*", "class_accuracy", "Class accuracy", "{:.1%}", "examples"),
  Headline("recognition", "accuracy", "Accuracy", "{:.1%}", "examples"),
  Headline(
    "frechet",
    "frechet_appearance_distance",
    "Fréchet distance",
    "{:.4g}",
    "examples",
  ),
  Headline("*", "hidden_psnr", "{evaluator} PSNR", "{:.2f} dB", "examples"),
)

_ABOUT = (
  "MAGVIT-v2: a causal 3-D convolutional tokenizer with lookup-free "
  "quantization turns video into discrete tokens; a masked generative "
  "transformer models those tokens."
)
_MEDIA_TYPES = {".gif": "image/gif", ".png": "image/png"}


@dataclasses.dataclass(frozen=True)
class _Card:
  """A headline of one result, as text."""

  title: str
  value: str
  notes: list[str]


@dataclasses.dataclass(frozen=True)
class _Caption:
  """Words on a picture, in captions.json."""

  title: str | None = None  # None: the name of the file
  caption: str = ""


@dataclasses.dataclass(frozen=True)
class _Picture:
  """A picture of samples/ and its caption; `data` is "" if the file is gone."""

  name: str
  title: str
  caption: str
  media_type: str = ""
  data: str = ""  # contents of the file, in base64
  width: int = 0
  height: int = 0

  @property
  def alt(self):
    return f"{self.title} {self.caption}".strip()

  @property
  def is_wide(self):
    return self.width > 2 * self.height


@dataclasses.dataclass(frozen=True)
class _Run:
  """All that the page shows of one workdir."""

  workdir: str
  config: dict
  pictures: list[_Picture]
  results: list  # objects of results/*.json
  metrics: dict  # name -> {step: value}
  damaged_lines: int  # number of damaged lines in metrics.jsonl
  damaged: list[str]  # a line on each results file that cannot be read
  when: str  # day of the last training metrics

  @property
  def name(self):
    return str(self.config.get("name") or _last_name(self.workdir))

  @property
  def facts(self):
    """What this is: kind, data and its size, steps, day, folder."""
    facts = []
    if "algorithm" in self.config:
      facts.append(str(self.config["algorithm"]))
    data = self.config.get("dataset")
    if isinstance(data, dict) and {"name", "frames", "size"} <= data.keys():
      side = f"{data['size']} x {data['size']} pixels"
      frames = "" if data["frames"] == 1 else f"{data['frames']} frames of "
      facts.append(f"{data['name']}, {frames}{side}")
    if self.metrics:
      last = max(max(curve) for curve in self.metrics.values())
      total = markup.plain(self.config.get("num_steps", "?"))
      facts.append(f"step {markup.plain(last)} of {total}")
    return [*facts, self.when, self.workdir]

  @property
  def health(self):
    """What is wrong with the training, a line each, or that nothing is."""
    return diagnosis.lines(self.metrics, self.config)

  @property
  def usual(self):
    """Results of the evaluation that training itself makes."""
    return [r for r in self.results if not results.is_protocol(r)]

  @property
  def protocols(self):
    """Results of `--protocol`, and of files of somebody's own."""
    return [r for r in self.results if results.is_protocol(r)]

  def _rarity(self, result):
    """Minus the weight that a task has in training; 0 for other results."""
    weights = self.config.get("tasks")
    weights = weights if isinstance(weights, dict) else {}
    weight = weights.get(result.get("evaluator"), 0)
    return -weight if _is_number(weight) else 0

  @property
  def cards(self):
    """The headline numbers, each at its latest step.

    Those of tasks are in the order of how often the model trained them.
    """
    cards = []
    for headline in HEADLINES:
      latest = {}
      for result in sorted(self.usual, key=self._rarity):
        name = result.get("evaluator", "")
        matches = fnmatch.fnmatch(name, headline.evaluator)
        value = result.get("metrics", {}).get(headline.metric)
        if not matches or not _is_number(value):
          continue
        evaluator = name.replace("_", " ").capitalize()
        title = headline.label.format(evaluator=evaluator)
        step = result.get("step", 0)
        if title not in latest or step > latest[title].get("step", 0):
          latest[title] = result
      cards += [_card(headline, *pair) for pair in latest.items()]
    return cards


def write_report(workdirs, path, title=None):
  """Writes the page about these workdirs, in this order, and returns its path.

  Args:
    workdirs: folders with a config.json and, as far as the experiment has got,
      metrics.jsonl, results/*.json and samples/ with captions.json.
    path: the HTML file; replaced atomically.
    title: title of the page; None for a general one.

  Raises:
    ValueError: a workdir has no config.json, or that or captions.json does not
      parse. A damaged result is a line of the page and of the log, and damaged
      lines of metrics.jsonl, which is read while it is written, are counted.
  """
  runs = [_read_run(workdir) for workdir in workdirs]
  if not runs:
    raise ValueError("workdirs=[] must name at least one workdir to report on.")
  # Names of files that are no UTF-8 come with their bytes, which HTML has not.
  page = _render(runs, title).encode(errors="backslashreplace")
  return files.write_atomically(path, page)


def _render(runs, title):
  """The page as HTML, from the template and style sheet beside this file."""
  # Loaded here: training imports this file and may never write a report.
  import jinja2
  import markupsafe

  from evaluation.show import curves  # Matplotlib takes long to import.

  folder = pathlib.Path(__file__).parent
  templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(folder),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  templates.filters["plain"] = markup.plain
  templates.filters["cells"] = results.cells
  templates.filters["flat"] = results.flat
  templates.filters["json"] = lambda x: json.dumps(x, ensure_ascii=False)

  def draw(run):
    drawn = curves.draw(run.metrics, run.workdir, run.damaged_lines)
    return markupsafe.Markup(drawn)

  return templates.get_template("report.html.jinja").render(
    runs=runs,
    title=title or "Open MAGVIT-v2: experiment report",
    about=_ABOUT,
    today=f"{datetime.date.today():%d %B %Y}",
    style=markupsafe.Markup((folder / "report.css").read_text()),
    curves=draw,
    first_curve=lambda run: markupsafe.Markup(
      curves.draw_first(run.metrics, run.workdir)
    ),
    missing=lambda text: markupsafe.Markup(markup.missing(text)),
  )


def _last_name(workdir: str) -> str:
  """The name of a workdir's folder, without those above it."""
  if stores.is_url(workdir):
    return os.path.basename(stores.absolute(workdir))
  return pathlib.Path(workdir).resolve().name


def _is_shown(name: str) -> bool:
  """Whether the page shows a file of a workdir, by its name there."""
  folder, _, last = name.rpartition("/")
  plain = ("config.json", "metrics.jsonl", "samples/captions.json")
  shown = {"results": (".json",), "samples": tuple(_MEDIA_TYPES)}
  return name in plain or last.endswith(shown.get(folder, ("/",)))


def _read_run(path):
  shown = str(pathlib.Path(path)) if not stores.is_url(path) else path
  if not stores.is_folder(path):
    raise ValueError(f"workdir {shown!r} is not a directory.")
  if not stores.is_file(os.path.join(path, "config.json")):
    raise ValueError(
      f"workdir {shown!r} has no config.json, expected the workdir of "
      "a started experiment; training writes that file first."
    )
  workdir = pathlib.Path(stores.fetched_folder(path, _is_shown))
  config = schema.load(workdir / "config.json", dict[str, Any])
  samples = workdir / "samples"
  captions = _read_captions(workdir)
  for file in sorted(samples.glob("*"), key=_natural):
    if file.suffix in _MEDIA_TYPES:
      captions.setdefault(file.name, _Caption())
  drawn = [_read_picture(samples, *pair) for pair in captions.items()]
  read, damaged = results.read(workdir / "results")
  metrics, damaged_lines = records.read_metrics(workdir / "metrics.jsonl")
  when = _day(workdir)
  return _Run(
    *(shown, config, drawn, read, metrics, damaged_lines, damaged, when)
  )


def _day(workdir):
  """Day on which the newest of these files was written."""
  for name in ("metrics.jsonl", "config.json"):
    if (workdir / name).is_file():
      changed = (workdir / name).stat().st_mtime
      return f"{datetime.date.fromtimestamp(changed):%-d %B %Y}"
  return ""


def _natural(path):
  return listing.natural(path.name)


def _card(headline, title, result):
  metrics, protocol = result["metrics"], result.get("protocol", {})
  step = markup.plain(result.get("step", 0))
  notes = [f"{result.get('evaluator', '')}, step {step}"]
  baseline = metrics.get(f"baseline_{headline.metric}")
  if _is_number(baseline):
    trivial = protocol.get("baseline", "baseline")
    notes.insert(0, f"{trivial}: {headline.format.format(baseline)}")
  counts = {**protocol, **metrics}
  if headline.count in counts:
    count = markup.plain(counts[headline.count])
    notes.insert(0, f"{count} {headline.count}")
  return _Card(title, headline.format.format(metrics[headline.metric]), notes)


def _is_number(value):
  return isinstance(value, int | float)


def _read_captions(workdir):
  """{path of a picture below samples/: its caption}."""
  path = files.inside(workdir, "samples", "captions.json")
  if not stores.exists(path):
    return {}
  remedy = "write it again, or remove it"
  return schema.load(path, dict[str, _Caption], remedy)


def _read_picture(samples, name, words):
  """The picture; ValueError if its name leads out of the folder."""
  file = pathlib.Path(files.inside(samples, name))
  title = file.name if words.title is None else words.title
  picture = _Picture(file.name, title, words.caption)
  if file.suffix not in _MEDIA_TYPES or not file.is_file():
    return picture
  data = file.read_bytes()
  with Image.open(io.BytesIO(data)) as image:
    width, height = image.size
  return dataclasses.replace(
    picture,
    media_type=_MEDIA_TYPES[file.suffix],
    data=base64.b64encode(data).decode(),
    width=width,
    height=height,
  )


def add_caption(workdir: str, picture: str, title: str, caption: str) -> None:
  """Sets the title and caption of samples/PICTURE in the report."""
  path = files.inside(workdir, "samples", "captions.json")
  captions = {**_read_captions(workdir), picture: _Caption(title, caption)}
  text = {name: dataclasses.asdict(words) for name, words in captions.items()}
  files.write_atomically(path, json.dumps(text, indent=2))


def main() -> None:
  parser = argparse.ArgumentParser(
    description="One page about finished or running experiments."
  )
  parser.add_argument(
    "workdirs",
    nargs="+",
    type=paths.argument_or_url,
    metavar="WORKDIR",
    help="folder of an experiment, as training writes it",
  )
  parser.add_argument(
    "--output",
    default="report.html",
    type=paths.argument_or_url,
    help="HTML page to write",
  )
  parser.add_argument("--title", help="title of the page")
  arguments = parser.parse_args()
  with interrupts.in_one_line():
    try:
      page = write_report(arguments.workdirs, arguments.output, arguments.title)
    except (ValueError, OSError) as error:
      sys.exit(f"error: {error}")
  print(page)


if __name__ == "__main__":
  main()
