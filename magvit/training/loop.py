"""The training loop, one for all algorithms."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import logging

from clu import parameter_overview
import grain
import jax
from jax.sharding import Mesh
import ml_collections
import numpy as np

from input_pipeline import pipeline
from magvit import algorithm as algorithm_lib
from magvit import mesh as mesh_lib
from magvit import optimizer
from magvit import trained as trained_lib
from magvit.generators import tokens as tokens_lib
from magvit.scoring import held_out
from magvit.scoring import pictures
from magvit.training import ahead as ahead_lib
from magvit.training import automatic
from magvit.training import check
from magvit.training import checkpoints as checkpoints_lib
from magvit.training import endings
from magvit.training import metrics as metrics_lib
from magvit.training import preemption
from magvit.training import skips
from magvit.training import starting_point
from magvit.training import trace as trace_lib
from magvit.training import trackers
from magvit.training import waits as waits_lib
from magvit.training import watch as watch_lib
from magvit.workdir import folder as workdir_lib
from magvit.workdir import heartbeat as heartbeat_lib
from magvit.workdir import weights as weights_lib
from storage import compile_cache
from storage import files
from storage import processes
from storage import progress as progress_lib

log = logging.getLogger(__name__)


def train(
  config: ml_collections.ConfigDict,
  workdir: str,
  tracker: trackers.Tracker | None = None,
) -> None:
  """Trains in `workdir`, from its newest checkpoint or from the start.

  Running the same command again continues an interrupted run: the same losses
  follow, bit for bit, as if it had not been interrupted. Ends with an
  evaluation and the report.

  Raises:
    ValueError: a config or workdir that cannot work, or another process that
      writes there; nothing was overwritten.
    NonFiniteError: a metric became NaN or infinite.
    Stopped: the process was asked to stop; the last step is saved.
    OSError: the disk failed; the checkpoints before are good.
  """
  label = f"workdir={workdir}"
  with processes.one_writer(
    workdir, "--mode=train", label=label
  ) as check_alone:
    _train(config, workdir, tracker, check_alone)


def _train(
  config: ml_collections.ConfigDict,
  workdir: str,
  tracker: trackers.Tracker | None,
  check_alone: Callable[[], None],
) -> None:
  mesh = mesh_lib.make_mesh(config.mesh)
  config = automatic.with_numbers(config, workdir, mesh)
  check.check_config(config, mesh)
  workdir_lib.check_workdir(workdir, config)
  watch = watch_lib.Watch(workdir, config)
  with watch.running():
    _train_watched(config, workdir, mesh, tracker, watch, check_alone)


def _train_watched(
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: Mesh,
  tracker: trackers.Tracker | None,
  watch: watch_lib.Watch,
  check_alone: Callable[[], None],
) -> None:
  check.check_data(config, workdir, training=True)
  config = workdir_lib.as_begun(workdir, config)
  starting_point.check(config, workdir)
  resolved = trained_lib.resolve(config, workdir, training=True)
  algorithm = _built(resolved, mesh, workdir)
  check.check_room(algorithm, workdir)
  tokens_lib.check_stored(resolved)
  with progress_lib.phase("opening the data set"):
    data = pipeline.train_batches(
      config.dataset,
      config.batch_size,
      mesh_lib.local_parts(mesh),
      mesh_lib.batch_parts(mesh),
    )
  workdir_lib.write_config(workdir, config)
  workdir_lib.keep_tokenizer(config, workdir, algorithm.frozen)
  if config.get("keep_programs", False):
    compile_cache.keep_in(files.own_folder(workdir, "programs"))

  init_key, step_key = jax.random.split(jax.random.key(config.seed))
  checkpoints = checkpoints_lib.Checkpoints(workdir, config)
  described = algorithm_lib.described(algorithm, mesh)
  step_fn = _jitted(algorithm, described, mesh)
  with (
    ahead_lib.Ahead(step_fn, described, step_key, data, mesh) as ahead,
    contextlib.ExitStack() as told,
  ):
    start, state = _first_state(
      *(config, workdir, mesh, algorithm, described),
      *(checkpoints, init_key, ahead),
    )
    watch.start_at(start)
    tell = told.enter_context(trackers.opened(tracker, workdir, config, start))
    run = _Run(
      *(config, workdir, mesh, algorithm, checkpoints, start),
      *(watch, tell, check_alone),
    )
    try:
      state = run.run_steps(step_fn, state, step_key, data, ahead)
    except endings.NonFiniteError:
      # The page says why the run ended, to somebody who has no log of it.
      metrics_lib.say_health(workdir, config)
      pictures.write_report(workdir)
      raise
    with watch.doing(heartbeat_lib.EVALUATING):
      results = held_out.evaluate_all(
        run.trained(state, config.num_steps), held_out.training_count(config)
      )
    tell(config.num_steps, held_out.flat(results))
  metrics_lib.say_health(workdir, config)


def _built(
  config: ml_collections.ConfigDict, mesh: Mesh, workdir: str
) -> algorithm_lib.Algorithm:
  """The algorithm, which measures what it needs of the data in a new run."""
  with progress_lib.phase("reading the networks that training uses"):
    algorithm = trained_lib.build(config, mesh)
  if not weights_lib.is_resumed(workdir):
    algorithm = algorithm.measured(mesh)
  return skips.guarded(algorithm)


def _jitted(
  algorithm: algorithm_lib.Algorithm,
  described: algorithm_lib.TrainState,
  mesh: Mesh,
) -> Callable:
  """The training step, to be compiled."""
  return jax.jit(
    algorithm.step,
    donate_argnums=0,
    out_shardings=(
      algorithm_lib.shardings_of(described),
      mesh_lib.replicated(mesh),
    ),
  )


def _first_state(
  config: ml_collections.ConfigDict,
  workdir: str,
  mesh: Mesh,
  algorithm: algorithm_lib.Algorithm,
  described: algorithm_lib.TrainState,
  checkpoints: checkpoints_lib.Checkpoints,
  key: jax.Array,
  ahead: ahead_lib.Ahead,
) -> tuple[int, algorithm_lib.TrainState]:
  """(step, state) to go on from: of the newest checkpoint, or the first one.

  The first batch is read, and the step compiled, beside it.
  """
  newest = checkpoints.newest()
  if newest is None or newest[0] < config.num_steps:
    ahead.begin(newest and newest[1])
  if weights_lib.is_resumed(workdir):
    frozen = algorithm_lib.place_frozen(algorithm, mesh)
    state = described.replace(frozen=frozen)
  else:
    with progress_lib.phase("compiling and drawing the first weights"):
      state = algorithm_lib.create(algorithm, mesh, key)
  with progress_lib.phase("looking for a checkpoint, and reading it"):
    start, state = checkpoints.restore_newest(state, ahead)
  if start == config.num_steps:
    log.info("all %d steps are done in %s: nothing to train", start, workdir)
  elif start:
    log.info("resuming from step %d in %s", start, workdir)
  else:
    with progress_lib.phase("reading the weights to start from"):
      state = starting_point.first_state(config, algorithm, mesh, state)
  # The step is compiled for these shardings.
  state = jax.device_put(state, algorithm_lib.shardings_of(described))
  if processes.is_first():
    log_sizes(state)
  return start, state


class _Run:
  """The steps of a run, and the logs, saves and evaluations after them."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    workdir: str,
    mesh: Mesh,
    algorithm: algorithm_lib.Algorithm,
    checkpoints: checkpoints_lib.Checkpoints,
    start: int,
    watch: watch_lib.Watch,
    tell: trackers.Write,
    check_alone: Callable[[], None],
  ):
    self._watch, self._check_alone = watch, check_alone
    self._config, self._workdir, self._mesh = config, workdir, mesh
    self._algorithm, self._checkpoints = algorithm, checkpoints
    self._start = start
    self._data_wait = waits_lib.DataWait(config.dataset.workers)
    self._writer = metrics_lib.Writer(workdir, start, tell)
    # All networks of an algorithm have the one schedule.
    self._learning_rate = optimizer.make_schedule(
      config.optimizer, config.num_steps
    )
    self._progress = metrics_lib.Progress(
      start, config.num_steps, config.name, algorithm.facts.leading_metrics
    )

  def run_steps(
    self,
    step_fn: Callable,
    state: algorithm_lib.TrainState,
    key: jax.Array,
    data: grain.DatasetIterator,
    ahead: ahead_lib.Ahead,
  ) -> algorithm_lib.TrainState:
    """Steps from `state.step` to `config.num_steps`; returns the last state.

    `ahead` has the first batch, and `data` those after it.
    """
    try:
      if self._evaluates_after(self._start) and not metrics_lib.has_evaluation(
        self._workdir, self._start
      ):
        self._evaluate(state, self._start)  # a stop has cut this one short
      if self._start >= self._config.num_steps:
        return state
      # Before the listener: a signal ends the process, as nothing is unsaved.
      with self._watch.doing(heartbeat_lib.COMPILING):
        batch = ahead.batch()
        with progress_lib.phase("waiting for the other processes to compile"):
          processes.meet("the training step is compiled")
      self._progress.restart_clock(self._start)
      with (
        self._watch.doing(heartbeat_lib.TRAINING),
        progress_lib.phase("training"),
        preemption.Listener() as listener,
        trace_lib.Trace(self._workdir, self._config.profile_steps) as trace,
      ):
        return self._run_steps(
          step_fn, state, key, batch, data, listener, trace
        )
    finally:
      self._checkpoints.close()
      self._writer.close()

  def _run_steps(self, step_fn, state, key, batch, data, listener, trace):
    pending = None  # step to wait for, once the next one is under way
    for step in range(self._start + 1, self._config.num_steps + 1):
      if step > self._start + 1:
        with self._data_wait.reading():
          batch = mesh_lib.place_batch(next(data), self._mesh)
      trace.before(step, state)
      state, metrics = step_fn(state, batch, jax.random.fold_in(key, step))
      self._data_wait.stepping(metrics)
      if pending is not None:
        self._finish(*pending)
      pending = (step, metrics)
      stops = listener.should_stop()
      saves = stops or self._saves_after(step)
      if saves:
        self._finish(*pending)  # before the save: no state with NaN is saved
        pending = None
      self._checkpoints.check()
      if saves:
        self._check_alone()
        with self._saving(step):
          self._writer.push()  # first, for a resumed run repeats later steps
          self._checkpoints.save(step, state, data)
      if stops:
        raise endings.Stopped(step)
      if self._evaluates_after(step):
        with self._saving(step):
          self._checkpoints.wait()
        with self._progress.paused(), listener.suspended():
          self._evaluate(state, step)
    return state

  @contextlib.contextmanager
  def _saving(self, step: int) -> Iterator[None]:
    with (
      self._progress.paused(),
      self._watch.doing(heartbeat_lib.SAVING),
      progress_lib.phase(f"saving step {step}"),
    ):
      yield

  def _finish(self, step: int, metrics: algorithm_lib.Metrics) -> None:
    """Waits for a step; stops the run there if a metric is not finite.

    A step that was left out, which `watch.skips` allows, is logged instead.
    """
    values = {k: v.tolist() for k, v in jax.device_get(metrics).items()}
    config = self._config
    is_due = step % config.log_every == 0 or step == config.num_steps
    left_out = skips.was_left_out(values)
    # A step that ends the run is written, so that its report can say why.
    is_written = is_due or left_out or bool(metrics_lib.not_finite(values))
    waited = self._data_wait.share(self._progress.seconds())
    if is_written:
      values["data_wait"] = waited
      values["learning_rate"] = np.asarray(self._learning_rate(step - 1)).item()
      values["steps_per_second"] = self._progress.rate(step)
      self._writer.write(step, values)
    if left_out:
      skips.say(step, values, config.watch.skips)
    else:
      metrics_lib.check_finite(step, values)
    self._watch.stepped(step, values.get(skips.TOTAL, 0))
    if is_written or self._progress.is_due():
      self._watch.measured(self._progress.rate(step))
      progress_lib.say(self._progress.line(step, values))
      self._data_wait.say(waited)

  def _evaluate(self, state: algorithm_lib.TrainState, step: int) -> None:
    with self._watch.doing(heartbeat_lib.EVALUATING):
      results = held_out.evaluate_all(
        self.trained(state, step), held_out.training_count(self._config)
      )
    self._writer.write(step, held_out.flat(results))
    self._writer.push()
    metrics_lib.say_health(self._workdir, self._config)

  def _evaluates_after(self, step: int) -> bool:
    every = self._config.eval_every
    last = self._config.num_steps
    return bool(every) and 0 < step < last and step % every == 0

  def _saves_after(self, step: int) -> bool:
    return (
      self._evaluates_after(step)
      or step == self._config.num_steps
      or step % self._config.checkpoint_every == 0
    )

  def trained(
    self, state: algorithm_lib.TrainState, step: int
  ) -> trained_lib.Trained:
    """The model with the weights of a state."""
    return trained_lib.Trained(
      self._workdir,
      self._config,
      self._mesh,
      self._algorithm,
      state.predict_params(),
      step,
    )


def log_sizes(state: algorithm_lib.TrainState) -> None:
  for name, params in {**state.params, **state.frozen}.items():
    count = parameter_overview.count_parameters(params)
    log.info("%s: %s parameters", name, f"{count:,}")
