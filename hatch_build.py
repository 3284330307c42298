"""Builds the wheel: all wings inside the package `magvit`, imports to match.

The repository has its wings (`models/`, `configs/`, ...) side by side. Such
names belong to nobody, and a wheel that installs them takes them from the
user's own packages. So in a wheel `models/` is `magvit/models/`, main.py is
`magvit/main.py`, and each line that imports a wing, or names a command of ours,
says so. No line is added or removed, so that tracebacks show the lines of the
repository; nothing happens when the package is imported, so that pickles,
worker processes and type checkers see ordinary modules.

`pip install --editable .` installs the repository as it is.
"""

import ast
from collections.abc import Iterator
import pathlib
import re
import shutil
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "magvit"
WINGS = ("configs", "evaluation", "input_pipeline", "models", "storage")
_SUFFIXES = frozenset((".py", ".typed", ".css", ".jinja"))
_LEFT_OUT = frozenset(("configs/describe.py",))  # it writes a page of docs/
_WING = "|".join(WINGS)
_CHANGES = tuple(
  (re.compile(pattern, re.MULTILINE), replacement)
  for pattern, replacement in (
    (rf"^([ \t]*from )({_WING})(?=[. ])", rf"\1{PACKAGE}.\2"),
    (
      rf"^([ \t]*)import ({_WING})(?=$|  #| as )",
      rf"\1from {PACKAGE} import \2",
    ),
    (rf"\bpython -m ({_WING})(?=\.)", rf"python -m {PACKAGE}.\1"),
    (r"\b(?:python )?main\.py (?=--)", f"{PACKAGE} "),
  )
)


class CustomBuildHook(BuildHookInterface):
  """Gives hatchling the files of the wheel."""

  _folder: str

  def initialize(self, version: str, build_data: dict[str, Any]) -> None:
    self._folder = tempfile.mkdtemp()
    if version == "editable":
      return
    included = write(pathlib.Path(self.root), pathlib.Path(self._folder))
    build_data["force_include"].update(included)

  def finalize(
    self, version: str, build_data: dict[str, Any], artifact_path: str
  ) -> None:
    del version, build_data, artifact_path
    shutil.rmtree(self._folder)


def write(root: pathlib.Path, folder: pathlib.Path) -> dict[str, str]:
  """Writes the files of the wheel; returns {written file: path in the wheel}.

  Raises:
    ValueError: a file that the wheel cannot hold: of an unknown kind, of a name
      that another one has, or with an import that is not understood.
  """
  included = {}
  for source, target in _files(root):
    written = folder / target
    if written.exists():
      raise ValueError(f"two files are {target} in a wheel: rename {source}")
    written.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".py":
      text = moved(source.read_text(), str(source))
      written.write_text(text)
    else:
      shutil.copyfile(source, written)
    included[str(written)] = target
  return included


def _files(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
  """(file of the repository, its path in the wheel) of each that is packed."""
  yield root / "main.py", f"{PACKAGE}/main.py"
  for wing in (PACKAGE, *WINGS):
    for path in sorted((root / wing).rglob("*")):
      name = path.relative_to(root).as_posix()
      if path.is_dir() or "__pycache__" in path.parts or name in _LEFT_OUT:
        continue
      if path.suffix not in _SUFFIXES:
        raise ValueError(
          f"{path} is of no kind that a wheel holds"
          f" ({' '.join(sorted(_SUFFIXES))}): remove it, or add the kind to"
          " hatch_build.py"
        )
      yield path, name if wing == PACKAGE else f"{PACKAGE}/{name}"


def moved(source: str, name: str) -> str:
  """The text of a module as it is in the wheel, line for line.

  Args:
    source: text of the module in the repository.
    name: what errors call it.

  Raises:
    ValueError: an import of a wing that stays as it was.
  """
  for pattern, replacement in _CHANGES:
    source = pattern.sub(replacement, source)
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      imported = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
      imported = [node.module or ""]
    else:
      continue
    for module in imported:
      if module.partition(".")[0] in (*WINGS, "main"):
        raise ValueError(
          f"{name}, line {node.lineno}: a wheel has no module {module}: write"
          " the import as one line `from WING... import NAME` or `import WING`"
        )
  return source
