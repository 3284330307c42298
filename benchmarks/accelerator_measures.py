"""Tables of a report of `benchmarks/accelerator.py`, as plain text."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]
_CLIPS = "2_clips"  # at which we are compared with Open-MAGVIT2


@dataclasses.dataclass(frozen=True)
class Measure:
  """One figure of the rows, and what it has to be.

  `compute` raises KeyError where a row was not measured. A measure without
  either bound is only stated.
  """

  name: str
  compute: Callable[[Rows], float]
  most: float | None = None
  least: float | None = None

  def judge(self, rows: Rows) -> dict[str, Any]:
    """{"value", "asked", "result"}: met, missed, stated or not run."""
    bound = ""
    if self.most is not None:
      bound = f"at most {self.most:g}"
    if self.least is not None:
      bound = f"at least {self.least:g}"
    try:
      value = self.compute(rows)
    except KeyError:
      return {"value": None, "asked": bound, "result": "not run"}
    result = "stated"
    if bound:
      too_much = self.most is not None and value > self.most
      too_little = self.least is not None and value < self.least
      result = "missed" if too_much or too_little else "met"
    return {"value": value, "asked": bound, "result": result}


def _get(row: str, *names: str) -> Callable[[Rows], float]:
  def get(rows: Rows) -> float:
    value: Any = rows[row]
    for name in names:
      value = value[name]
    return value

  return get


def _ratio(one: Callable, other: Callable) -> Callable[[Rows], float]:
  return lambda rows: one(rows) / other(rows)


def _compiling(row: str) -> Callable[[Rows], float]:
  return lambda rows: rows[row]["lower_seconds"] + rows[row]["compile_seconds"]


def _largest_difference(dtype: str) -> Callable[[Rows], float]:
  """Largest of an output or gradient from the plain form, with all masks."""

  def compute(rows: Rows) -> float:
    kind = f"kernel_{dtype}_"
    cases = [v for k, v in rows["attention"].items() if k.startswith(kind)]
    if not cases:
      raise KeyError(kind)
    return max(max(case) for case in cases)

  return compute


def _over_fastest(rows: Rows) -> float:
  """Time of the chosen form of a convolution over the fastest, at worst."""
  layers = rows["convolution"].values()
  times = [
    layer["over_fastest"]
    for layer in layers
    if isinstance(layer, Mapping) and "over_fastest" in layer
  ]
  if not times:
    raise KeyError("over_fastest")
  return max(times)


MEASURES = (
  Measure("MAGVIT-L step, GiB", _get("masked_train", "peak_gib"), most=40),
  Measure(
    "MAGVIT-L step over torch's",
    _ratio(_get("masked_train", "seconds"), _get("torch_bert", "seconds")),
    most=0.9,
  ),
  Measure(
    "MAGVIT-L step over compiled torch's",
    _ratio(
      _get("masked_train", "seconds"), _get("torch_bert_compiled", "seconds")
    ),
  ),
  Measure("MAGVIT-L step, MFU", _get("masked_train", "mfu"), least=0.45),
  Measure(
    "AR-LM step, positions a second",
    _get("autoregressive_train", "positions_per_second"),
  ),
  Measure("AR-LM step, MFU", _get("autoregressive_train", "mfu")),
  Measure(
    "AR-LM sampling, tokens a second",
    _get("autoregressive_sample", "tokens_per_second"),
  ),
  Measure(
    "AR-LM sampling over its floor by bytes",
    _get("autoregressive_sample", "over_floor_by_bytes"),
    most=2,
  ),
  Measure(
    "tokenizer step, seconds to compile, cold",
    _compiling("tokenizer_train"),
    most=120,
  ),
  Measure(
    "tokenizer step, seconds to compile, warm",
    _compiling("tokenizer_train_warm"),
    most=20,
  ),
  Measure("tokenizer step, clips that fit", _get("tokenizer_train", "clips")),
  Measure("tokenizer step, MFU", _get("tokenizer_train", "mfu")),
  Measure(
    "tokenizer's generator over Open-MAGVIT2's, 2 clips",
    _ratio(
      _get("tokenizer_generator", _CLIPS, "seconds"),
      _get("open_magvit2", _CLIPS, "seconds"),
    ),
    most=0.8,
  ),
  Measure(
    "reconstruction over Open-MAGVIT2's",
    _ratio(
      _get("reconstruct", "seconds"), _get("open_magvit2", "both", "seconds")
    ),
  ),
  Measure("convolutions, chosen form over the fastest", _over_fastest, most=1),
  Measure(
    "attention, difference of float32",
    _largest_difference("float32"),
    most=1e-5,
  ),
  Measure(
    "attention, difference of bfloat16",
    _largest_difference("bfloat16"),
    most=1e-2,
  ),
  Measure("dropout, mean over seeds", _get("attention", "dropout", "mean")),
  Measure(
    "dropout, variance over the expected one",
    _get("attention", "dropout", "variance_over_expected"),
  ),
  Measure(
    "share of equal bits of ids, float32, CPU",
    _get("ids", "float32", "equal_bits"),
  ),
  Measure(
    "share of equal bits of ids, bfloat16, CPU",
    _get("ids", "bfloat16", "equal_bits"),
  ),
  Measure(
    "features of Inception, difference from the CPU's",
    _get("ids", "inception", "difference"),
    most=1e-3,
  ),
)

_COLUMNS = (
  ("seconds", "seconds"),
  ("floor", "floor_seconds"),
  ("MFU", "mfu"),
  ("GiB", "peak_gib"),
  ("compile", "compile_seconds"),
)


def judge(rows: Rows) -> dict[str, dict[str, Any]]:
  """What `Measure.judge` says, by the measure's name."""
  return {measure.name: measure.judge(rows) for measure in MEASURES}


def table(report: Mapping[str, Any]) -> str:
  """Two tables: of the rows, and of the measures of a report."""
  lines = [["row", *(title for title, _ in _COLUMNS), ""]]
  for name, row in report["rows"].items():
    cells = [_number(row.get(field)) for _, field in _COLUMNS]
    reason = f"not run: {row['not run']}" if "not run" in row else ""
    lines.append([name, *cells, reason])
  judged = [["measure", "value", "asked", "result"]]
  for name, verdict in report["measures"].items():
    value = _number(verdict["value"])
    judged.append([name, value, verdict["asked"], verdict["result"]])
  return f"{_align(lines)}\n\n{_align(judged)}"


def _number(value: Any) -> str:
  """Text of a number; empty for what is missing or has parts."""
  return f"{value:.4g}" if isinstance(value, (int, float)) else ""


def _align(lines: list[list[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(width) for cell, width in zip(line, widths, strict=True)
    ).rstrip()
    for line in lines
  )
