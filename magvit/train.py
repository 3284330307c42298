"""The training loop. There is one, and it knows no algorithm."""

import logging
from typing import Any

from clu import parameter_overview
import jax
from jax.sharding import Mesh
import ml_collections

from evaluation import evaluators
from evaluation import protocols
from input_pipeline import pipeline
from magvit import autoregressive
from magvit import checkpoint
from magvit import evaluate
from magvit import masked
from magvit import mesh as mesh_lib
from magvit import metrics as metrics_lib
from magvit import preemption
from magvit import profile
from magvit import score
from magvit import scored_model
from magvit import starts
from magvit import state as state_lib
from magvit import tokenizer
from magvit import tokens
from magvit import training_checkpoints

log = logging.getLogger(__name__)

ALGORITHMS = {
  "tokenizer": tokenizer.build,
  "masked": masked.build,
  "autoregressive": autoregressive.build,
}


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
  checkpoint.check_workdir(workdir, config)
  starts.check(config, workdir)
  algorithm = build(starts.settled(config, workdir), workdir, mesh)
  tokens.check_stored(with_own_tokenizer(config, workdir))
  data = pipeline.train_batches(
    config.dataset,
    config.batch_size,
    mesh_lib.local_parts(mesh),
    mesh_lib.batch_parts(mesh),
  )
  checkpoint.write_config(workdir, config)
  checkpoint.keep_tokenizer(config, workdir, algorithm.frozen)

  key = jax.random.key(config.seed)
  init_key, step_key = jax.random.split(key)
  state = state_lib.create(algorithm, mesh, init_key)
  checkpoints = training_checkpoints.Checkpoints(workdir, config)
  start, state = checkpoints.restore_newest(state, data)
  if start:
    log.info("resuming from step %d in %s", start, workdir)
  else:
    state = starts.first_state(config, algorithm, mesh, state)
  if jax.process_index() == 0:
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
  algorithm: state_lib.Algorithm,
  state: state_lib.TrainState,
  key: jax.Array,
  data,
  checkpoints: training_checkpoints.Checkpoints,
) -> state_lib.TrainState:
  """Steps from `state.step` to `config.num_steps`; returns the last state."""
  start = int(state.step)
  progress = metrics_lib.Progress(start, config.num_steps, config.name)
  writer = metrics_lib.Writer(workdir, start)
  step_fn = jax.jit(
    algorithm.step,
    donate_argnums=0,
    out_shardings=(state_lib.shardings_of(state), mesh_lib.replicated(mesh)),
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
    writer.write(step, evaluate.flat(results))
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
      profile.Trace(workdir, config.profile_steps) as trace,
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


def run_offline(
  mode: str, config: ml_collections.ConfigDict, workdir: str
) -> None:
  """Evaluates, samples or reconstructs with the newest checkpoint."""
  mesh = mesh_lib.make_mesh(config.mesh)
  check_config(config, mesh)
  algorithm, params, step = open_trained(config, workdir, mesh)
  run = evaluate_all if mode == "evaluate" else evaluate.MODES[mode]
  run(config, workdir, mesh, algorithm, params, step)


def evaluate_all(
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: Mesh,
  algorithm: state_lib.Algorithm,
  params: Any,
  step: int,
) -> list[evaluators.Result]:
  """The usual scores, and the protocols of config.evaluation."""
  results = evaluate.evaluate(config, workdir, mesh, algorithm, params, step)
  if config.evaluation.protocols:
    model = scored_model.Model(config, workdir, mesh, algorithm, params, step)
    results += score.run_configured(config, workdir, model)
  return results


def score_protocol(
  config: ml_collections.ConfigDict | None,
  workdir: str,
  request: score.Request,
) -> None:
  """A protocol's numbers, of the model in a workdir or of given files."""
  if request.input is None or checkpoint.has_config(workdir):
    stored = checkpoint.read_config(workdir)
    if config is not None and request.input is None:
      checkpoint.check_same_experiment(stored, config, workdir)
    config = config or stored
  opener = None
  if request.input is None:
    opener = lambda: scored_model.open_model(
      config, workdir, protocols.get(request.protocol), open_trained
    )
  score.score(workdir, request, config, opener)


def open_trained(
  config: ml_collections.ConfigDict, workdir: str, mesh: Mesh
) -> tuple[state_lib.Algorithm, Any, int]:
  """(algorithm, what its predict functions take, step) of a workdir.

  Raises:
    ValueError: nothing was trained there, or another network.
  """
  step = checkpoint.latest_step(workdir)
  settled = starts.settled(config, workdir)
  if config.algorithm == "tokenizer":  # whose loss alone has that network
    settled = ml_collections.ConfigDict(settled.to_dict())
    settled.loss.perceptual_network = "off"
  algorithm = build(settled, workdir, mesh)
  abstract = jax.eval_shape(algorithm.init, jax.random.key(0))
  part = {}  # the average, of a network that keeps one
  for name in algorithm.predict_networks:
    kind = "ema" if name in abstract.ema else "params"
    part.setdefault(kind, {})[name] = getattr(abstract, kind)[name]
  restored = checkpoint.restore_part(
    workdir, part, mesh, algorithm.sharding_rules
  )
  params = {k: v for kind in restored.values() for k, v in kind.items()}
  params.update(algorithm.frozen)
  return algorithm, params, step


def build(
  config: ml_collections.ConfigDict, workdir: str, mesh: Mesh
) -> state_lib.Algorithm:
  """The config's algorithm, on the workdir's own tokenizer once it has one."""
  config = with_own_tokenizer(config, workdir)
  return ALGORITHMS[config.algorithm](config, mesh)


def with_own_tokenizer(
  config: ml_collections.ConfigDict, workdir: str
) -> ml_collections.ConfigDict:
  """A generator's names the copy in its workdir, once there is one."""
  own = checkpoint.own_tokenizer(workdir)
  if "tokenizer_workdir" in config and own is not None:
    config = ml_collections.ConfigDict(config.to_dict())
    config.tokenizer_workdir = own
  return config


def check_config(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
  """Raises ValueError for fields of the loop that cannot work."""
  if config.algorithm not in ALGORITHMS:
    raise ValueError(
      f"algorithm={config.algorithm!r} must be one of {sorted(ALGORITHMS)}"
    )
  for field in ("num_steps", "log_every", "checkpoint_every"):
    if config[field] < 1:
      raise ValueError(f"{field}={config[field]} must be at least 1")
  profile.check_steps(config.profile_steps)
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


def log_sizes(state: state_lib.TrainState) -> None:
  for name, params in {**state.params, **state.frozen}.items():
    count = parameter_overview.count_parameters(params)
    log.info("%s: %s parameters", name, f"{count:,}")
