"""Five steps of training, by the processes and the test that compares them."""

import jax

from input_pipeline import pipeline
from magvit import mesh as mesh_lib
from magvit import state as state_lib


def run(build, config, mesh):
  """[losses of each step by name, stacked...] + [parameters...], arrays."""
  config.optimizer.peak_learning_rate = 1e-4  # see mesh_test._assert_same
  algorithm = build(config, mesh)
  state = state_lib.create(algorithm, mesh, jax.random.key(0))
  step_fn = jax.jit(
    algorithm.step,
    donate_argnums=0,
    out_shardings=(state_lib.shardings_of(state), mesh_lib.replicated(mesh)),
  )
  data = pipeline.train_batches(
    config.dataset,
    config.batch_size,
    jax.process_index(),
    jax.process_count(),
  )
  history = []
  for step in range(5):
    batch = mesh_lib.place_batch(next(data), mesh)
    state, metrics = step_fn(state, batch, jax.random.key(step))
    metrics = jax.device_get(metrics)
    history += [v for k, v in sorted(metrics.items()) if k.endswith("loss")]
  return [*history, *jax.tree.leaves(jax.device_get(state.params))]
