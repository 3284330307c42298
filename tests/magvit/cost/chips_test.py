"""Tests of names of topologies."""

import pytest

from magvit.cost import chips


def test_slices_of_a_topology():
  assert chips.split("v5e:16x16") == (1, "v5e:16x16")
  assert chips.split("2xv5e:16x16") == (2, "v5e:16x16")
  match = "^--topology=0xv5e:2x4 must have at least 1 slice, like 2xv5e:2x4$"
  with pytest.raises(ValueError, match=match):
    chips.split("0xv5e:2x4")
