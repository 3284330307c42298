"""--mode=evaluate: scores a model by the usual metrics, or by a protocol.

  python main.py --workdir=DIR --mode=evaluate
  python main.py --workdir=DIR --mode=evaluate --protocol=NAME
    [--input=SAMPLES] [--reference=REAL] [--weights=FILE] [--num=N] [--folds=K]

`evaluation/protocols/run.py` says what a protocol reads and writes;
`magvit/scoring/linear_probe.py` is one of its own, on the layers of a model.
"""

import dataclasses
import functools

import ml_collections

from evaluation.protocols import run as protocol_run
from evaluation.protocols import table as protocol_table
from magvit.modes import offline
from magvit.modes import table
from magvit.scoring import held_out
from magvit.scoring import linear_probe
from magvit.scoring import model as scored_model
from magvit.scoring import pictures as scoring_pictures
from magvit.training import check
from magvit.workdir import folder as workdir_lib
from storage import files
from storage import processes


def run(
  options: table.Evaluate,
  config: ml_collections.ConfigDict | None,
  workdir: str,
) -> None:
  if options.protocol is None:
    config = workdir_lib.stored_config(workdir, config)
    with _one_writer(workdir, "evaluate", "--mode=evaluate"):
      check.check_data(config, workdir, training=False)
      held_out.evaluate_all(offline.open_model(workdir, config))
  elif options.protocol == linear_probe.NAME:
    _probe(options, config, workdir)
  else:
    request = protocol_run.Request(**dataclasses.asdict(options))
    name = protocol_table.get(request.protocol).name
    with _one_writer(workdir, name, f"--mode=evaluate --protocol={name}"):
      score_protocol(config, workdir, request)


def _probe(
  options: table.Evaluate,
  config: ml_collections.ConfigDict | None,
  workdir: str,
) -> None:
  """Probes the layers of the model in a workdir."""
  for field in ("input", "reference", "weights", "folds", "data"):
    value = getattr(options, field)
    if value is not None:
      raise ValueError(
        f"--{field}={value}: --protocol={linear_probe.NAME} reads the layers of"
        f" the model in {workdir} alone: leave --{field} out"
      )
  config = workdir_lib.stored_config(workdir, config)
  name = linear_probe.NAME
  with _one_writer(workdir, name, f"--mode=evaluate --protocol={name}"):
    check.check_data(config, workdir, training=False)
    linear_probe.score(offline.open_model(workdir, config), options.num)
    scoring_pictures.write_report(workdir)


def _one_writer(workdir: str, name: str, mode: str):
  """Lets no other job write the same results; others may be written."""
  results = files.inside(workdir, "results", name)
  return processes.one_writer(results, mode, beside=True)


def score_protocol(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  request: protocol_run.Request,
) -> None:
  """Measures a protocol on the model in a workdir, or on given files."""
  if request.input is None or workdir_lib.has_config(workdir):
    stored = workdir_lib.read_config(workdir)
    if config is not None and request.input is None:
      workdir_lib.check_same_experiment(stored, config, workdir)
    config = config or stored
  open_model = None
  if request.input is None and config is not None:
    protocol = protocol_table.get(request.protocol)
    open_model = functools.partial(
      scored_model.open_model, workdir, config, protocol
    )
  protocol_run.score(workdir, request, config, open_model)
  if workdir_lib.has_config(workdir):
    scoring_pictures.write_report(workdir)
