"""The training loop. There is one, and it knows no algorithm."""

import logging
from typing import Any

from clu import parameter_overview
import jax
from jax.sharding import Mesh
import ml_collections

from evaluation import evaluators
from evaluation.protocols import run as protocol_run
from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import trained as trained_lib
from magvit.generators import tokens as tokens_lib
from magvit.scoring import held_out
from magvit.scoring import model as scored_model
from magvit.scoring import pictures as scoring_pictures
from magvit.training import checkpoints as checkpoints_lib
from magvit.training import metrics as metrics_lib
from magvit.training import preemption
from magvit.training import starting_point
from magvit.training import trace as trace_lib
from magvit.workdir import folder as workdir_lib
from storage import processes

log = logging.getLogger(__name__)


def train(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Trains in `workdir`, from its newest checkpoint or from the start.

  Running the same command again continues an interrupted run: the same losses
  follow, bit for bit, as if it had not been interrupted. Ends with an
  evaluation and the report.

  Raises:
    ValueError: a config or workdir that cannot work; nothing was overwritten.
    NonFiniteError: a metric became NaN or infinite.
    Stopped: the process was asked to stop; the last step is saved.
    OSError: the disk failed; the checkpoints before are good.
  """
  mesh = mesh_lib.make_mesh(config.mesh)
  check_config(config, mesh)
  workdir_lib.check_workdir(workdir, config)
  starting_point.check(config, workdir)
  algorithm = trained_lib.build(
    trained_lib.settled(config, workdir), workdir, mesh
  )
  tokens_lib.check_stored(trained_lib.with_own_tokenizer(config, workdir))
  data = pipeline.train_batches(
    config.dataset,
    config.batch_size,
    mesh_lib.local_parts(mesh),
    mesh_lib.batch_parts(mesh),
  )
  workdir_lib.write_config(workdir, config)
  workdir_lib.keep_tokenizer(config, workdir, algorithm.frozen)

  key = jax.random.key(config.seed)
  init_key, step_key = jax.random.split(key)
  state = algorithm_lib.create(algorithm, mesh, init_key)
  checkpoints = checkpoints_lib.Checkpoints(workdir, config)
  start, state = checkpoints.restore_newest(state, data)
  if start:
    log.info("resuming from step %d in %s", start, workdir)
  else:
    state = starting_point.first_state(config, algorithm, mesh, state)
  if processes.is_first():
    log_sizes(state)
  state = run_steps(
    config, workdir, mesh, algorithm, state, step_key, data, checkpoints
  )
  params = state.predict_params()
  evaluate_all(config, workdir, mesh, algorithm, params, config.num_steps)


def run_steps(
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: Mesh,
  algorithm: algorithm_lib.Algorithm,
  state: algorithm_lib.TrainState,
  key: jax.Array,
  data,
  checkpoints: checkpoints_lib.Checkpoints,
) -> algorithm_lib.TrainState:
  """Steps from `state.step` to `config.num_steps`; returns the last state."""
  start = int(state.step)
  progress = metrics_lib.Progress(start, config.num_steps, config.name)
  writer = metrics_lib.Writer(workdir, start)
  step_fn = jax.jit(
    algorithm.step,
    donate_argnums=0,
    out_shardings=(
      algorithm_lib.shardings_of(state),
      mesh_lib.replicated(mesh),
    ),
  )

  def finish(step: int, metrics) -> None:
    """Waits for a step; stops the run there if a metric is not finite."""
    metrics = {k: v.tolist() for k, v in jax.device_get(metrics).items()}
    metrics_lib.check_finite(step, metrics)
    if step % config.log_every == 0 or step == config.num_steps:
      writer.write(step, metrics)
      log.info("%s", progress.line(step, metrics))

  def evaluate_now(step: int) -> None:
    params = state.predict_params()
    results = evaluate_all(config, workdir, mesh, algorithm, params, step)
    writer.write(step, held_out.flat(results))
    progress.restart_clock(step)

  evaluates = lambda step: (
    config.eval_every
    and 0 < step < config.num_steps
    and step % config.eval_every == 0
  )
  try:
    if evaluates(start) and not metrics_lib.has_evaluation(workdir, start):
      evaluate_now(start)  # which a stop has cut short
    pending = None  # a step is waited for after the next one is under way
    with (
      preemption.Listener() as listener,
      trace_lib.Trace(workdir, config.profile_steps) as trace,
    ):
      for step in range(start + 1, config.num_steps + 1):
        batch = mesh_lib.place_batch(next(data), mesh)
        trace.before(step, state)
        state, metrics = step_fn(state, batch, jax.random.fold_in(key, step))
        if pending is not None:
          finish(*pending)
        pending = (step, metrics)
        stops = listener.asked()
        saves = (
          stops
          or evaluates(step)
          or step == config.num_steps
          or step % config.checkpoint_every == 0
        )
        if saves:
          finish(*pending)  # first: a state that went wrong is never saved
          pending = None
        checkpoints.check()
        if saves:
          checkpoints.save(step, state, data)
        if stops:
          raise preemption.Stopped(step)
        if evaluates(step):
          checkpoints.wait()
          with listener.suspended():
            evaluate_now(step)
  finally:
    checkpoints.close()
    writer.close()
  return state


def evaluate_all(
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: Mesh,
  algorithm: algorithm_lib.Algorithm,
  params: Any,
  step: int,
) -> list[evaluators.Result]:
  """The usual scores, and the protocols of config.evaluation."""
  results = held_out.evaluate(config, workdir, mesh, algorithm, params, step)
  if config.evaluation.protocols:
    model = scored_model.Model(config, workdir, mesh, algorithm, params, step)
    results += protocol_run.run_configured(config, workdir, model)
    scoring_pictures.write_report(workdir)
  return results


def check_config(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
  """Raises ValueError for fields of the loop that cannot work."""
  if config.algorithm not in trained_lib.ALGORITHMS:
    raise ValueError(
      f"algorithm={config.algorithm!r} must be one of"
      f" {sorted(trained_lib.ALGORITHMS)}"
    )
  for field in ("num_steps", "log_every", "checkpoint_every"):
    if config[field] < 1:
      raise ValueError(f"{field}={config[field]} must be at least 1")
  trace_lib.check_steps(config.profile_steps)
  if config.microbatches < 1:
    raise ValueError(f"microbatches={config.microbatches} must be at least 1")
  mesh_lib.check_batch_size(
    config.batch_size, mesh, microbatches=config.microbatches
  )
  if config.dataset.joint_images:
    mesh_lib.check_batch_size(
      config.dataset.joint_images,
      mesh,
      "dataset.joint_images",
      config.microbatches,
    )
  pipeline.source(config.dataset, "train")
  classes = len(pipeline.class_names(config.dataset))
  if "transformer" in config and classes > config.transformer.num_classes > 1:
    raise ValueError(
      f"transformer.num_classes={config.transformer.num_classes} must be at"
      f" least the {classes} classes of dataset.name={config.dataset.name!r}"
    )


def log_sizes(state: algorithm_lib.TrainState) -> None:
  for name, params in {**state.params, **state.frozen}.items():
    count = parameter_overview.count_parameters(params)
    log.info("%s: %s parameters", name, f"{count:,}")
