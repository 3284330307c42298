"""What tests of the report write into workdirs, and the page of them."""

import json

from evaluation.show import report


def write_lines(workdir, *lines):
  text = "".join(
    line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines
  )
  (workdir / "metrics.jsonl").write_text(text)


def write_result(workdir, name, evaluator, step, metrics, **protocol):
  (workdir / "results").mkdir(exist_ok=True)
  result = {
    "evaluator": evaluator,
    "step": step,
    "metrics": metrics,
    "protocol": protocol,
  }
  (workdir / "results" / f"{name}.json").write_text(json.dumps(result))


def page(*workdirs, path=None):
  return report.write_report(
    workdirs, path or workdirs[0] / "page" / "report.html"
  ).read_text()
