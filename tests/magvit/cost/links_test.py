"""Tests of groups of devices and the links that each has."""

import pytest

from magvit.cost import links


@pytest.mark.parametrize(
  ("text", "members"),
  [
    ("replica_groups={{0,4},{1,5}}, dimensions={0}", (0, 4)),
    ("replica_groups=[2,4]<=[8], to_apply=%add", (0, 1, 2, 3)),
    ("replica_groups=[4,2]<=[2,4]T(1,0), x", (0, 4)),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", (0, 4)),
    ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
    ("source_target_pairs={{0,3},{3,0}}", (0, 3)),
    ("replica_groups={}, to_apply=%add", ()),
  ],
)
def test_groups_as_compilers_write_them(text, members):
  assert links.group(text) == members


def test_a_group_has_the_links_between_its_members():
  torus = links.Links(tuple((i % 16, i // 16, 0) for i in range(256)), 4.0)
  assert torus.rate(()) == 4.0  # all chips
  assert torus.rate(range(16)) == 2.0  # a row, closed to a ring
  assert torus.rate(range(0, 256, 16)) == 2.0  # a column
  assert torus.rate(range(8)) == 1.0  # half a row: its ends have one neighbour
  assert torus.rate((0, 1)) == 1.0
  # Every fourth chip of a row, by way of the three between.
  assert torus.rate(range(0, 16, 4)) == 0.5
  block = [16 * y + x for y in range(4) for x in range(4)]
  assert torus.rate(block) == 2.0  # its corners have two neighbours


def test_bytes_that_each_member_sends():
  assert links.share_sent("all-reduce", 4) == 2 * 3 / 4
  assert links.share_sent("all-gather", 4) == 3 / 4
  assert links.share_sent("collective-permute", 2) == 1
