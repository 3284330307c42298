"""Text of the report: numbers for people, and text escaped for HTML."""

import html
import json
import math


def number(value):
  """Text for people, as by `plain`, escaped for HTML."""
  return escape(plain(value))


def plain(value):
  """Text for people: 1,234 for counts, four significant digits for floats."""
  if isinstance(value, str):
    return value
  if isinstance(value, bool) or not isinstance(value, int | float):
    return json.dumps(value)
  if isinstance(value, float) and abs(value) < 1e4 or not math.isfinite(value):
    return f"{value:.4g}"
  return f"{value:,.0f}"


def compact(value):
  """Text for axes: 0.02, 150, 20k, 1.5M."""
  if abs(value) >= 1e6:
    return f"{value / 1e6:g}M"
  return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


def escape(value):
  return html.escape(str(value))


def missing(text):
  return f'<p class="missing">{escape(text)}</p>'
