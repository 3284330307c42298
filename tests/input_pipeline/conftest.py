"""Fixtures of the tests of data."""

import pytest

from storage import parts


@pytest.fixture
def in_this_process(monkeypatch):
  """Replaces worker processes, whose start takes seconds; one test has them."""

  class Pool(parts.futures.ThreadPoolExecutor):
    def __init__(self, workers, context, initializer, initargs):
      super().__init__(1, initializer=initializer, initargs=initargs)

  monkeypatch.setattr(parts.futures, "ProcessPoolExecutor", Pool)
