"""Tests of storage/processes.py in one process."""

import jax
from orbax.checkpoint import multihost

from storage import processes


def test_processes_meet_without_computing(monkeypatch):
  """Compilers take minutes more in one process than in another."""
  met = []
  monkeypatch.setattr(
    multihost,
    "get_barrier_sync_fn",
    lambda: lambda key, timeout_ms: met.append((key, timeout_ms)),
  )
  processes.meet("compiled")
  assert met == []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  processes.meet("compiled")
  assert met == [("compiled", 4 * 3600 * 1000)]
