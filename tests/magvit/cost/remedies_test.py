"""Tests of what the compile report says to change."""

import ml_collections
import pytest

from configs import diffusion as diffusion_configs
from configs import masked as masked_configs
from configs import tokenizer_video
from magvit.cost import chips
from magvit.cost import remedies

_V5E = chips.CHIPS["TPU v5 lite"]
_MESH = {"slice": 1, "data": 256, "fsdp": 1, "tensor": 1}


def _generator(**fields) -> ml_collections.ConfigDict:
  config = masked_configs.get_config("ucf101")
  config.batch_size = 256
  fields = {"transformer.dtype": "bfloat16", **fields}
  config.update_from_flattened_dict(fields)
  return config


def _advise(config, name="train", mesh=None, state=4e9, **figures):
  seconds = {"compute": 0.0, "memory": 0.0, "links": 0.0, "network": 0.0}
  bound = figures.get("bound", "memory")
  seconds[bound] = seconds["least"] = 1.0
  figures = {
    "fits": True,
    "bytes": 2e10,
    "flops": 1.2,
    "flops_of_model": 1.0,
    "memory_gib": {"total": 3.0},
    "seconds": seconds,
    "bound": bound,
    **figures,
  }
  mesh = {**_MESH, **(mesh or {})}
  program = remedies.Program(name, config, mesh, int(state))
  return " ".join(remedies.advise(program, figures, _V5E))


def test_what_is_set_already_is_not_named():
  text = _advise(_generator())
  assert text.startswith("Memory traffic binds, 1.0000 s against 0.0000 s")
  assert "transformer.attention=kernel" in text
  assert "mesh.fsdp=4" in text and "40% of the traffic" in text
  text = _advise(_generator(**{"transformer.attention": "kernel"}))
  assert "attention" not in text and "dtype" not in text
  split = {"data": 32, "fsdp": 8}
  text = _advise(
    _generator(**{"transformer.attention": "kernel"}), mesh=split, state=5e8
  )
  assert "fsdp" not in text and "more clips a chip than 1" in text
  text = _advise(_generator(**{"transformer.dtype": "float32"}))
  assert "transformer.dtype=bfloat16" in text


def test_no_kernel_is_named_for_attention_with_a_bias():
  config = diffusion_configs.get_config("ucf101_xl")
  assert config.denoiser.attention == "auto"
  assert "attention" not in _advise(config)
  assert "attention" not in _advise(config, fits=False, error="")


def test_bound_by_links_or_products():
  text = _advise(_generator(), bound="links")
  assert text.startswith("Links between chips bind")
  assert "fsdp" not in text and "more clips a chip" in text
  split = {"data": 32, "fsdp": 8}
  text = _advise(_generator(), bound="links", mesh=split, state=5e8)
  assert "mesh.fsdp=1, which sends no weights" in text
  # Whole, the state would fill the memory.
  text = _advise(_generator(), bound="links", mesh=split, state=4e9)
  assert "fsdp" not in text
  text = _advise(_generator(), bound="compute")
  assert text.endswith("Nothing to change but the chips or the model.")
  again = _advise(_generator(**{"transformer.remat": "all"}), bound="compute")
  assert "transformer.remat=dots" in again and "20% of the products" in again


@pytest.mark.parametrize(
  ("fields", "mesh", "state", "first"),
  [
    ({"batch_size": 512}, {}, 4e9, "microbatches=2"),
    ({"batch_size": 512}, {}, 2e10, "mesh.fsdp=4, as 18.6 GiB are weights"),
    ({"batch_size": 512}, {}, 9e10, "mesh.fsdp=16, as 83.8 GiB are weights"),
    ({}, {}, 4e9, "transformer.remat=all"),
    ({"batch_size": 768, "microbatches": 1}, {}, 4e9, "microbatches=3"),
    ({"transformer.remat": "off"}, {}, 4e9, "transformer.remat=dots"),
  ],
)
def test_what_does_not_fit_names_the_smallest_change(
  fields, mesh, state, first
):
  error = "Ran out of memory in memory space hbm. Used 23.53G of 15.75G hbm."
  text = _advise(
    _generator(**fields), mesh=mesh, state=state, fits=False, error=error
  )
  assert text.startswith(
    f"It does not fit, 23.5 of 16 GiB. The smallest change first: {first}"
  )
  assert text.endswith("--fit compiles such changes and names the best.")


def test_an_evaluation_is_not_told_of_training():
  config = tokenizer_video.get_config("ucf101")
  config.batch_size = 512
  text = _advise(config, "reconstruct", fits=False, error="Ran out of memory")
  for field in ("microbatches", "remat", "attention", "--fit"):
    assert field not in text
  assert "tokenizer.dtype=bfloat16" in text and "a batch_size below 512" in text


def test_an_evaluation_sends_no_gradients():
  text = _advise(_generator(), "sample", bound="network")
  assert text.startswith("The network between slices binds")
  assert "gradients" not in text and text.endswith("chips or the model.")


def test_groups_stay_within_a_slice():
  small = {"slice": 2, "data": 2, "fsdp": 1}
  text = _advise(_generator(), mesh=small)
  assert "mesh.fsdp=2" in text
