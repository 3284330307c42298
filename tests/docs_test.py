"""Tests of README.md and docs/: links lead somewhere, commands would run.

Commands are read as the programs read them, and never run.
"""

import ast
import functools
import pathlib
import pkgutil
import re

from absl import flags
import ml_collections
import pytest

from configs import describe
import main  # noqa: F401  defines the flags
from tests import commands
from tests import markdown

_ROOT = pathlib.Path(__file__).parents[1]
_PAGES = (
  "README.md",
  *sorted(str(path.relative_to(_ROOT)) for path in _ROOT.glob("docs/**/*.md")),
)


@functools.cache
def _page(name: str) -> markdown.Page:
  return markdown.parse((_ROOT / name).read_text())


def _is_section(path: str) -> bool:
  """Whether a path like "dataset.size" begins with a section of a config."""
  sections = [
    config.get(path.split(".")[0]) for config in commands.base_configs()
  ]
  return any(isinstance(s, ml_collections.ConfigDict) for s in sections)


@functools.cache
def _known_flags() -> set[str]:
  """Flags of main.py and of every other program of ours."""
  known = set(flags.FLAGS) | commands.foreign_flags()
  for wing in set(commands.WINGS) - {"tests"}:
    for file in (_ROOT / wing).glob("**/*.py"):
      known |= set(re.findall(r'"--(\w+)"', file.read_text()))
  return known


def _span_faults(span: str) -> list[str]:
  """Reasons why a command, flag, path or field in the text is none of ours."""
  faults = commands.faults(span)
  flag = re.match(r'--([\w.-]+?)(?:="?([^\s"]+)"?)?(?=[\s,]|$)', span)
  section = re.fullmatch(r"([a-z]+(?:\.[a-z_0-9]+)+)(?:=(\S+))?", span)
  path = re.fullmatch(r"((\w+)/[\w./-]*)(?::(\w+))?", span)
  if flag and flag[1].startswith("config."):
    faults += commands.field_faults(
      commands.base_configs(), flag[1][len("config.") :], flag[2]
    )
  elif flag and flag[1] not in _known_flags():
    faults.append(f"no program knows --{flag[1]}")
  elif flag and flag[1] == "mode" and flag[2]:
    faults += commands.main_faults([span.split()[0].rstrip(",")])
  elif section and _is_section(span) and not span.endswith(".py"):
    faults += commands.field_faults(
      commands.base_configs(), section[1], section[2]
    )
  elif span.startswith("magvit."):
    try:
      pkgutil.resolve_name(commands.in_the_repository(span.partition("(")[0]))
    except (ImportError, AttributeError) as error:
      faults.append(f"{span}: {error}")
  elif path and path[2] in commands.WINGS and not (_ROOT / path[1]).exists():
    faults.append(f"no file {path[1]}")
  elif path and path[3]:
    faults += commands.main_faults([f"--config={span}"])
  return faults


def _link_faults(name: str, link: str) -> list[str]:
  """Reasons why a link of a page leads nowhere."""
  target, _, anchor = link.partition("#")
  file = (_ROOT / name).parent / target if target else _ROOT / name
  if not file.exists():
    return [f"{name} links to {target}, which is not there"]
  if anchor and anchor not in markdown.parse(file.read_text()).anchors:
    return [f"{name} links to {link}, and {file.name} has no such heading"]
  return []


def _all(faults) -> list[str]:
  return [fault for some in faults for fault in some]


@pytest.mark.parametrize("name", (*_PAGES, "benchmarks/README.md"))
def test_every_link_leads_to_a_file_and_a_heading(name):
  links = [x for x in _page(name).links if not x.startswith("http")]
  assert not _all(_link_faults(name, link) for link in links)


@pytest.mark.parametrize("name", _PAGES)
def test_every_command_would_be_accepted(name):
  assert not _all(map(commands.faults, _page(name).lines_of_code))


@pytest.mark.parametrize("name", _PAGES)
def test_every_flag_field_and_path_in_the_text_exists(name):
  assert not _all(map(_span_faults, _page(name).spans))


@pytest.mark.parametrize("name", _PAGES)
def test_python_in_a_page_is_python_and_names_what_there_is(name):
  for language, text in _page(name).code:
    if language == "python":
      ast.parse(text)
      for called in re.findall(r"\b(magvit(?:\.\w+)+)", text):
        pkgutil.resolve_name(called)


def test_the_readme_is_short_and_leads_to_every_page():
  assert len((_ROOT / "README.md").read_text().splitlines()) <= 150
  linked = {link.partition("#")[0] for link in _page("README.md").links}
  for page in set(_PAGES) - {"README.md"}:
    folder, _, name = page.removeprefix("docs/").rpartition("/")
    if folder:  # docs/launch.md leads to the pages in docs/launch
      assert f"{folder}/{name}" in _page(f"docs/{folder}.md").links
    else:
      assert page in linked


def test_the_page_of_fields_is_the_generated_one():
  page = (_ROOT / "docs" / "configs.md").read_text()
  assert page == describe.page(), "write it: python -m configs.describe"


@pytest.mark.parametrize(
  "line, fault",
  [
    ("python main.py --workdri=x", "no --workdri"),
    ("python main.py --workdir=x --mode=trian", "--mode=trian"),
    ("python main.py --workdir=x --num=5", "--mode=train takes no --num"),
    ("python main.py --mode=sample --num=many", "--num=many"),
    ("python main.py --config=configs/masked.py:digitz", "digitz"),
    ("python main.py --config=configs/none.py:digits", "none.py"),
    ("python main.py --config=... --config.dataset.sise=3", "dataset.sise"),
    ("python main.py --config.dataset.size=large", "dataset.size=large"),
    (
      "python main.py --config=configs/tokenizer_video.py:digits"
      " --config.transformer.width=3",
      "transformer.width",
    ),
    ('ssh --command="cd x && python main.py --nothing" # it', "no --nothing"),
    ("magvit --mode=trian --workdir=x", "--mode=trian"),
    ("python -m magvit.nothing", "no module magvit.nothing"),
    ("python -m magvit.models.nothing", "no module models.nothing"),
    ("python -m input_pipeline.prepare --inputs=x", "no --inputs"),
    ("python -m pytest tests/nothing_test.py -s", "no file tests/nothing"),
    ("make demos", "no make target demos"),
  ],
)
def test_a_command_that_would_be_refused_is_noticed(line, fault):
  (message,) = commands.faults(line)
  assert fault in message


@pytest.mark.parametrize(
  "span, fault",
  [
    ("--config.mesh.fsdb=4", "mesh.fsdb"),
    ("--lables", "--lables"),
    ("--mode=trian", "trian"),
    ("dataset.sise", "dataset.sise"),
    ("models/nothing.py", "models/nothing.py"),
    ("configs/masked.py:digitz", "digitz"),
    ("magvit.load_nothing(FOLDER)", "load_nothing"),
  ],
)
def test_a_name_that_does_not_exist_is_noticed(span, fault):
  (message,) = _span_faults(span)
  assert fault in message


@pytest.mark.parametrize(
  "link", ["docs/nothing.md", "docs/faq.md#nothing", "#nothing"]
)
def test_a_link_that_leads_nowhere_is_noticed(link):
  (message,) = _link_faults("README.md", link)
  assert "nothing" in message
