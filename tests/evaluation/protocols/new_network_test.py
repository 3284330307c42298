"""Tests of a new feature network: one file, and one line in the registry.

The registry is models/features/networks.py; the test is the file.
"""

from flax import nnx
import jax.numpy as jnp
import numpy as np
import pytest

from evaluation.metrics import frechet
from evaluation.protocols import run as protocol_run
from evaluation.protocols import table as protocol_table
from models.features import feature_network
from models.features import networks as feature_networks
from models.weights import convert


class _MeanColours(nnx.Module):
  """Clips (B, T, H, W, 3) to the weighted means of their colours."""

  def __init__(self, *, rngs):
    del rngs
    self.weight = nnx.Param(jnp.zeros((3, 2)))

  def __call__(self, video_BTHWC):
    mean_BC = video_BTHWC.astype(jnp.float32).mean((1, 2, 3))
    return {"logits": mean_BC @ self.weight[...]}


_NETWORK = feature_network.FeatureNetwork(
  make=_MeanColours,
  dims={"logits": 2},
  ndim=5,
  clips_at_once=4,
  pixels="none",
  where_to_get="colours.npz",
  sources={"numpy": feature_network.Source(lambda ours: f"their/{ours}")},
  statistics={"": "logits"},
)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  monkeypatch.setitem(feature_networks.NETWORKS, "colours", _NETWORK)
  protocol = protocol_table.Protocol(
    **{
      **vars(protocol_table.get("magvit_ucf101_fvd")),
      **dict(name="colour_distance", network="colours", num=0, folds=1),
    }
  )
  monkeypatch.setitem(protocol_table.PROTOCOLS, "colour_distance", protocol)


def test_its_weights_are_converted_and_its_features_compared(tmp_path):
  weight = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
  np.savez(tmp_path / "theirs.npz", **{"their/weight": weight})
  weights = str(tmp_path / "colours.safetensors")
  convert.convert("colours", str(tmp_path / "theirs.npz"), weights)
  rng = np.random.default_rng(0)
  made = rng.integers(0, 256, (10, 17, 4, 4, 3), dtype=np.uint8)
  np.savez(tmp_path / "made.npz", arr_0=made)
  features = made[:, :16].mean((1, 2, 3)) @ weight.astype(np.float64)
  statistics = {"": frechet.statistics(features + [3.0, 4.0])}
  frechet.save(str(tmp_path / "real.npz"), statistics)
  request = protocol_run.Request(
    "colour_distance",
    input=str(tmp_path / "made.npz"),
    reference=str(tmp_path / "real.npz"),
    weights=weights,
  )
  result = protocol_run.score(str(tmp_path), request)
  np.testing.assert_allclose(result.metrics["fvd"], 25.0, rtol=1e-4)
  assert result.protocol["resize_rule"].endswith("; inside: none")


def test_absent_weights_say_where_to_get_them(tmp_path):
  request = protocol_run.Request("colour_distance", input=str(tmp_path))
  with pytest.raises(ValueError, match="colours.npz .*--network=colours"):
    protocol_run.score(str(tmp_path), request)
