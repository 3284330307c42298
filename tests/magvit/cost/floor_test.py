"""Tests of the floor of a tokenizer's step."""

import pytest

from magvit.cost import floor
from tests import tiny


@pytest.mark.parametrize(
  "interval", [pytest.param(1, marks=pytest.mark.rows), 4]
)
def test_a_step_has_hardly_more_products_than_its_networks_need(interval):
  config = tiny.tokenizer()
  config.loss.r1_interval = interval
  config.health_every = 10
  config.dataset.joint_images = 4
  parts, step = floor.measure(config)
  least = sum(parts.values())
  # Losses, and entropies over the codebook, have small products.
  assert least * 0.999 <= step < 1.01 * least
  assert parts["perceptual"] == 0
  rest = {name: n for name, n in parts.items() if name != "perceptual"}
  assert min(rest.values()) > 0
