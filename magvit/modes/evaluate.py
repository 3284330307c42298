"""--mode=evaluate: the usual scores of a workdir's model, or a protocol's."""

import functools

import ml_collections

from evaluation.protocols import run as protocol_run
from evaluation.protocols import table as protocol_table
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.scoring import held_out
from magvit.scoring import model as scored_model
from magvit.scoring import pictures as scoring_pictures
from magvit.training import check
from magvit.workdir import folder as workdir_lib


def run_offline(
  mode: str, config: ml_collections.ConfigDict, workdir: str
) -> None:
  """Evaluates, samples or reconstructs with the newest checkpoint."""
  mesh = mesh_lib.make_mesh(config.mesh)
  check.check_config(config, mesh)
  trained = trained_lib.open_trained(workdir, config, mesh)
  runs = {
    "evaluate": held_out.evaluate_all,
    "sample": scoring_pictures.sample,
    "reconstruct": scoring_pictures.reconstruct,
  }
  runs[mode](trained)


def score_protocol(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  request: protocol_run.Request,
) -> None:
  """A protocol's numbers, of the model in a workdir or of given files."""
  if request.input is None or workdir_lib.has_config(workdir):
    stored = workdir_lib.read_config(workdir)
    if config is not None and request.input is None:
      workdir_lib.check_same_experiment(stored, config, workdir)
    config = config or stored
  opener = None
  if request.input is None:
    protocol = protocol_table.get(request.protocol)
    opener = functools.partial(
      scored_model.open_model, workdir, config, protocol
    )
  protocol_run.score(workdir, request, config, opener)
  if workdir_lib.has_config(workdir):
    scoring_pictures.write_report(workdir)
