"""Tests of the words in the code: a newcomer understands each line alone."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_FOLDERS = (
  *("benchmarks", "configs", "evaluation", "input_pipeline", "magvit"),
  *("models", "storage", "tests"),
)
# Words that say nothing as the only name of a thing.
_EMPTY_NAMES = {"asked", "found", "its", "own", "theirs", "what"}
# Phrases, and what to say instead.
_PHRASES = {
  "on the way backwards": "in the backward pass",
  "computed again": "recomputed, or rematerialised",
  "compute again": "recompute, or rematerialise",
  "one after the other": "in turn, or in parts",
}


def _files() -> list[pathlib.Path]:
  paths = [_ROOT / "main.py"]
  for folder in _FOLDERS:
    paths += sorted((_ROOT / folder).glob("**/*.py"))
  # It was written for an earlier version, which runs it.
  return [p for p in paths if p.relative_to(_ROOT).parts[1:2] != ("old_work",)]


def _texts(source: str) -> list[tuple[int, str]]:
  """(line, text) of each block of comments and of each docstring."""
  texts, block = [], []
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      alone = token.line.strip().startswith("#")
      text = token.string.lstrip("# ")
      if alone and block and block[-1][0] == token.start[0] - 1:
        block.append((token.start[0], text))
        continue
      texts += [(block[0][0], " ".join(t for _, t in block))] if block else []
      block = [(token.start[0], text)]
  texts += [(block[0][0], " ".join(t for _, t in block))] if block else []
  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, kinds) and ast.get_docstring(node):
      line = node.body[0].lineno
      texts.append((line, " ".join(ast.get_docstring(node).split())))
  return texts


def _names(tree: ast.Module) -> list[tuple[int, str]]:
  """(line, name) of each variable and argument that the file names."""
  names = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      names.append((node.lineno, node.id))
    elif isinstance(node, ast.arg):
      names.append((node.lineno, node.arg))
  return names


@pytest.mark.parametrize(
  "path", _files(), ids=lambda p: str(p.relative_to(_ROOT))
)
def test_words_stand_alone(path):
  source = path.read_text()
  tree = ast.parse(source)
  faults = []
  for line, text in _texts(source):
    if re.match(r"of\b", text, re.IGNORECASE):
      faults.append(f"{line}: begins with 'of': {text[:50]}")
    for phrase, better in _PHRASES.items():
      if phrase in text and path != pathlib.Path(__file__):
        faults.append(f"{line}: say {better!r} instead of {phrase!r}")
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef) and node.name.startswith("of_"):
      faults.append(f"{node.lineno}: {node.name} should begin with a verb")
  faults += [
    f"{line}: {name!r} names nothing"
    for line, name in _names(tree)
    if name in _EMPTY_NAMES
  ]
  assert not faults, "\n".join(faults)
