"""Tests of every row of configs/recognition.py, described but not allocated."""

import jax
import pytest

from configs import recognition as configs
from magvit import mesh as mesh_lib
from magvit import optimizer
from magvit import trained as trained_lib
from models import network

_TOKENIZERS = {
  "kinetics400": "kinetics600",
  "ssv2": "ucf101",
  "ssv2_pretraining": "ucf101",
}


def _rows():
  """Rows that take seconds to describe are for `make test-rows`, but one."""
  for arg in configs.VARIANTS:
    default = arg.startswith("digits") or arg == "ucf101"
    yield pytest.param(arg, marks=() if default else pytest.mark.rows)


@pytest.mark.parametrize("arg", list(_rows()))
def test_a_row_has_the_tokens_and_the_size_it_says(arg):
  row = next(
    line.split()
    for line in configs.__doc__.splitlines()
    if line.split()[:1] == [arg]
  )
  name = "digits" if arg.startswith("digits") else _TOKENIZERS.get(arg, arg)
  tokenizer = f"configs/tokenizer_video.py:{name}"
  sizes, shapes = [], set()
  for kind in ("tokens", "pixels"):
    c = configs.get_config(arg)
    c.recognizer.input = kind
    reads = kind == "tokens" or c.pretraining.targets != "off"
    c.tokenizer_workdir = tokenizer if reads else ""
    mesh = mesh_lib.data_mesh(jax.devices()[:1])
    algorithm = trained_lib.build(c, mesh, abstract=True)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    sizes.append(round(network.count(state.params["recognizer"]) / 1e6, 1))
    shapes.add("x".join(map(str, algorithm.inputs.latent_shape)))
    optimizer.make_schedule(c.optimizer, c.num_steps)
  assert shapes == {row[1]}
  assert [str(size) for size in sizes] == row[2:4]


def test_clips_of_ssv2_are_never_mirrored():
  assert not configs.get_config("ssv2").dataset.flip


def test_an_unknown_row_is_refused():
  with pytest.raises(ValueError, match="variant 'hmdb51': .*'ssv2'"):
    configs.get_config("hmdb51")
