"""Tests of every row of the generators of latents with a head or a flow."""

import types

import jax
import pytest

from configs import masked_diffusion as head_rows
from configs import next_frame_flow as flow_rows
from magvit.generators import masked_diffusion
from magvit.generators import next_frame_flow
from magvit.generators import tasks
from models import network

_GRIDS = {"5x4x4": (5, 4, 4), "5x8x8": (5, 8, 8), "5x16x16": (5, 16, 16)}
_GRIDS["16x16"] = (1, 16, 16)
_CHANNELS = {"digits": 10, "film64": 18, "ucf101": 18}  # MAR's rows: 16


@pytest.mark.parametrize(
  ("rows", "algorithm", "arg"),
  [
    *((head_rows, masked_diffusion, arg) for arg in head_rows.VARIANTS),
    *((flow_rows, next_frame_flow, arg) for arg in flow_rows.VARIANTS),
  ],
)
def test_a_row_has_the_size_it_says(rows, algorithm, arg):
  c = rows.get_config(arg)
  words = next(
    line.split()
    for line in rows.__doc__.splitlines()
    if line.split()[:1] == [arg]
  )
  shape = _GRIDS[words[1]]
  latents = types.SimpleNamespace(
    shape=shape,
    num=shape[0] * shape[1] * shape[2],
    channels=_CHANNELS.get(arg, 16),
  )
  net = algorithm.define_denoiser(c, latents)
  params = jax.eval_shape(net.init, jax.random.key(0))
  millions = lambda tree: str(round(network.count(tree) / 1e6, 1))
  assert millions(params) in words
  if "head" in params:
    assert millions(params["head"]) in words
  for name in tasks.task_names(c):
    tasks.given_latents(name, shape, c.condition_frames, 4)


@pytest.mark.parametrize("rows", [head_rows, flow_rows])
def test_an_unknown_row_is_refused(rows):
  with pytest.raises(ValueError, match="unknown variant 'nothing'"):
    rows.get_config("nothing")
