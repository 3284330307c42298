"""Tests of the signatures in models/: settings come as records."""

import ast
import pathlib

_MODELS = pathlib.Path(__file__).parents[2] / "models"
_MOST = 8  # largest number of parameters; more belong into a record


def _num_parameters(function: ast.FunctionDef) -> int:
  """Number of parameters, without self."""
  a = function.args
  variadic = [x for x in (a.vararg, a.kwarg) if x is not None]
  return len([*a.posonlyargs, *a.args, *a.kwonlyargs, *variadic]) - 1


def test_no_constructor_takes_more_than_8_parameters():
  count = {}
  for file in sorted(_MODELS.rglob("*.py")):
    for node in ast.walk(ast.parse(file.read_text())):
      if isinstance(node, ast.FunctionDef) and node.name == "__init__":
        where = f"{file.relative_to(_MODELS.parent)}:{node.lineno}"
        count[where] = _num_parameters(node)
  assert count  # an empty count means the wrong folder
  assert {where: n for where, n in count.items() if n > _MOST} == {}
