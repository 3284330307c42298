"""Every field of every experiment as a page, made from `configs/base.py`.

  python -m configs.describe [--output=docs/configs.md]

A field's comment stands behind it, or in whole lines before it. Such lines go
on with the comment of the field above if they follow it at once and it filled
its line, as a word wrap leaves it; else they are of the field below.
"""

import argparse
import ast
from collections.abc import Iterator
import dataclasses
import inspect
import pathlib
import re

import ml_collections

from configs import base

_OUTPUT = pathlib.Path(__file__).parents[1] / "docs" / "configs.md"
_COLUMNS = 80  # of base.py
_LONG = 40  # letters of a default, beyond which it is not shown
_HEADER = """# Every field

`python -m configs.describe` writes this page from the comments of
[configs/base.py](../configs/base.py). Any field can be changed on the command
line, as `--config.dataset.size=64`; the files beside it say what each row of
the papers changes. `spec` marks a value of the MAGVIT-v2 papers or of Google's
public code, v1 the first MAGVIT, OM2 Open-MAGVIT2.
"""
_COMMON = "common"


@dataclasses.dataclass(frozen=True)
class Field:
  """A line `c.PATH = ...` of base.py."""

  path: str  # "dataset.size"
  comment: str
  value: str  # its default as base.py writes it
  maker: str  # the function of base.py that makes this section, or ""


def page() -> str:
  """The page in Markdown."""
  functions = _functions()
  titles = {_COMMON: "Every experiment"}
  titles |= {
    name: name
    for name, fields in functions.items()
    if name != _COMMON and any(field.path == "algorithm" for field in fields)
  }
  comments = {f.path: f.comment for f in functions[_COMMON]}
  parts = [_HEADER]
  for name, title in titles.items():
    heading = title if name == _COMMON else f"`algorithm = {title!r}`"
    config = getattr(base, name)()
    fields = list(_expanded(functions[name], functions))
    parts += [f"## {heading}", _summary(name)]
    parts += _tables(fields, config, comments)
  return "\n\n".join(part.strip() for part in parts) + "\n"


def _functions() -> dict[str, list[Field]]:
  """The fields that each function of base.py sets, in their order."""
  text = inspect.getsource(base)
  lines = text.splitlines()
  return {
    node.name: list(_fields(node, lines))
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef)
  }


def _fields(function: ast.FunctionDef, lines: list[str]) -> Iterator[Field]:
  """The assignments to `c.PATH`, with their comments."""
  before = []  # comment lines that belong to the next field
  statements = [
    node
    for node in function.body
    if isinstance(node, ast.Assign)
    and ast.unparse(node.targets[0]).split(".")[0] == "c"
  ]
  for node in statements:
    path = ast.unparse(node.targets[0]).partition(".")[2]
    last = (node.end_lineno or node.lineno) - 1  # counted from 0
    behind = lines[last].encode()[node.end_col_offset :].decode()
    after, below = _comments(lines, last, behind)
    if path:
      call = node.value.func if isinstance(node.value, ast.Call) else None
      maker = call.id if isinstance(call, ast.Name) else ""
      comment = " ".join([*before, *after])
      yield Field(path, comment, ast.unparse(node.value), maker)
    before = below


def _comments(
  lines: list[str], last: int, behind: str
) -> tuple[list[str], list[str]]:
  """(the comment of the field in line `last`, that of the next field)."""
  after = [_text(behind)] if behind.strip() else []
  below, previous = [], lines[last] if after else ""
  for line in lines[last + 1 :]:
    if not line.strip():
      previous = ""
      continue
    if not line.lstrip().startswith("#"):
      break
    first_word = _text(line).split()[0]
    full = len(previous) + 1 + len(first_word) > _COLUMNS
    if previous and full and not below:
      after.append(_text(line))
    else:
      below.append(_text(line))
    previous = line
  return after, below


def _text(comment: str) -> str:
  return comment.strip().lstrip("#").strip()


def _expanded(
  fields: list[Field], functions: dict[str, list[Field]]
) -> Iterator[Field]:
  """Also the fields of sections that another function of base.py makes."""
  for field in fields:
    yield field
    for inner in functions.get(field.maker, ()):
      yield dataclasses.replace(inner, path=f"{field.path}.{inner.path}")


def _tables(
  fields: list[Field],
  config: ml_collections.ConfigDict,
  comments: dict[str, str],
) -> Iterator[str]:
  """A table for each section, top-level fields first.

  `comments` are those of fields that this function sets again, by path.
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
      head = ["| field | default | what |", "|---|---|---|"]
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
  """The first paragraph of a function's docstring."""
  text = (inspect.getdoc(getattr(base, name)) or "").split("\n\n")[0]
  return re.sub(r"\s+", " ", text)


def main() -> None:
  summary = (__doc__ or "").partition("\n")[0]
  parser = argparse.ArgumentParser(description=summary)
  parser.add_argument("--output", type=pathlib.Path, default=_OUTPUT)
  arguments = parser.parse_args()
  arguments.output.write_text(page())


if __name__ == "__main__":
  main()
