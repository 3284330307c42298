"""Progress of long work for people: share, rate and time left."""

import datetime


def progress(name: str, done: int, total: int, rate: float, unit: str) -> str:
  """E.g. "NAME 120/600 (20%), 1.9 steps/s, 4:12 left"; `rate` a second."""
  left = datetime.timedelta(seconds=round((total - done) / max(rate, 1e-9)))
  share = 100 * done // total
  return f"{name} {done}/{total} ({share}%), {rate:.3g} {unit}/s, {left} left"
