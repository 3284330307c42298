"""Every field of every experiment, as a page made from `configs/base.py`.

  python -m configs.describe [--output=docs/configs.md]

A field's comment stands behind it, or in whole lines right above it.
"""

import argparse
import ast
from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import inspect
import itertools
import pathlib
import re

import ml_collections

from configs import base
from configs import clips
from configs import job
from configs import latent_base
from configs import recognition_base

_OUTPUT = pathlib.Path(__file__).parents[1] / "docs" / "configs.md"
_LONG = 40  # most characters of a default that the page shows
_HEADER = """# Every field

`python -m configs.describe` writes this page from the comments of
[configs/base.py](../configs/base.py),
[configs/latent_base.py](../configs/latent_base.py),
[configs/recognition_base.py](../configs/recognition_base.py),
[configs/clips.py](../configs/clips.py) and [configs/job.py](../configs/job.py).
Any field can be changed on the command line, as `--config.dataset.size=64`; the
files beside them say what each row of the papers changes. A mark says where a
value comes from: `spec` is a MAGVIT-v2 paper or Google's public code, `v1` the
first MAGVIT, `OM2` Open-MAGVIT2.
"""
_COMMON = "common"
_SHARED = {  # functions that are no experiment -> heading
  _COMMON: "Every experiment",
  "latent_generator": "Every generator of latents",
}
_FILES = (
  base,
  latent_base,
  recognition_base,
  clips,
  job,
)  # whose functions set fields


@dataclasses.dataclass(frozen=True)
class Field:
  """A line `c.PATH = ...`."""

  path: str  # names with dots, like "dataset.size"
  comment: str
  value: str  # source text of the default
  maker: str  # function that makes this section, or ""


def page() -> str:
  """Returns the page in Markdown."""
  functions = _functions()
  titles = {
    name: _SHARED.get(name, f"`algorithm = {name!r}`")
    for name, fields in functions.items()
    if name in _SHARED or any(field.path == "algorithm" for field in fields)
  }
  common = _expanded(functions[_COMMON], functions)
  comments = {field.path: field.comment for field in common}
  parts = [_HEADER]
  for name, title in titles.items():
    config = _maker(name)()
    fields = list(_expanded(functions[name], functions))
    parts += [f"## {title}", _summary(name)]
    parts += _tables(fields, config, comments)
  return "\n\n".join(part.strip() for part in parts) + "\n"


def _maker(name: str) -> Callable[[], ml_collections.ConfigDict]:
  """The function of this name in one of `_FILES`."""
  return next(getattr(file, name) for file in _FILES if hasattr(file, name))


def _functions() -> dict[str, list[Field]]:
  """Name of each function of `_FILES` -> the fields it sets, in order."""
  functions = {}
  for text in map(inspect.getsource, _FILES):
    lines = text.splitlines()
    for node in ast.parse(text).body:
      if isinstance(node, ast.FunctionDef):
        functions[node.name] = list(_fields(node, lines))
  return functions


def _fields(function: ast.FunctionDef, lines: list[str]) -> Iterator[Field]:
  """Assignments to `c.PATH`, with their comments."""
  for node in function.body:
    if not isinstance(node, ast.Assign):
      continue
    variable, _, path = ast.unparse(node.targets[0]).partition(".")
    if variable == "c" and path:
      call = node.value.func if isinstance(node.value, ast.Call) else None
      maker = ast.unparse(call).rpartition(".")[2] if call else ""
      comment = _comment(node, lines)
      yield Field(path, comment, ast.unparse(node.value), maker)


def _comment(node: ast.Assign, lines: list[str]) -> str:
  """Whole lines of comment right above an assignment, and what is behind it."""
  above = itertools.takewhile(
    lambda line: line.lstrip().startswith("#"),
    reversed(lines[: node.lineno - 1]),
  )
  last = (node.end_lineno or node.lineno) - 1  # index in `lines`
  behind = lines[last].encode()[node.end_col_offset :].decode()
  parts = [*reversed(list(above)), behind]
  return " ".join(map(_text, parts)).strip()


def _text(comment: str) -> str:
  return comment.strip().lstrip("#").strip()


def _expanded(
  fields: list[Field], functions: dict[str, list[Field]]
) -> Iterator[Field]:
  """Adds the fields of sections that another function makes."""
  for field in fields:
    yield field
    for inner in functions.get(field.maker, ()):
      yield dataclasses.replace(inner, path=f"{field.path}.{inner.path}")


def _tables(
  fields: list[Field],
  config: ml_collections.ConfigDict,
  comments: dict[str, str],
) -> Iterator[str]:
  """Yields a table for each section, top-level fields first.

  `comments`, by path, serve fields that are set again without a comment.
  """
  sections = {"": {}}
  about = {}
  for field in fields:
    value = _value(config, field.path)
    if isinstance(value, ml_collections.ConfigDict):
      about[field.path] = field.comment
      sections.setdefault(field.path, {})
      continue
    default = "a path to give" if field.value == "REQUIRED" else _code(value)
    comment = field.comment or comments.get(field.path, "")
    comments = {**comments, field.path: comment}
    rows = sections.setdefault(field.path.rpartition(".")[0], {})
    rows[field.path] = (f"`{field.path}`", default, comment)
  for section, rows in sections.items():
    if section:
      yield f"### {section}"
    if about.get(section):
      yield about[section]
    if rows:
      head = ["| field | default | meaning |", "|---|---|---|"]
      yield "\n".join([*head, *map(_row, rows.values())])


def _row(cells: tuple[str, ...]) -> str:
  return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(config: ml_collections.ConfigDict, path: str):
  for name in path.split("."):
    config = config[name]
  return config


def _code(value) -> str:
  text = repr(value)
  return f"`{text}`" if len(text) <= _LONG else "see `configs/base.py`"


def _summary(name: str) -> str:
  """First paragraph of a function's docstring."""
  text = (inspect.getdoc(_maker(name)) or "").split("\n\n")[0]
  return re.sub(r"\s+", " ", text)


def main() -> None:
  summary = (__doc__ or "").partition("\n")[0]
  parser = argparse.ArgumentParser(description=summary)
  parser.add_argument("--output", type=pathlib.Path, default=_OUTPUT)
  arguments = parser.parse_args()
  arguments.output.write_text(page())


if __name__ == "__main__":
  main()
