"""Tests of magvit/workdir/commits.py: what a store's error says of files."""

import errno

import pytest

from magvit.workdir import commits


class _HttpError(Exception):
  """As gcsfs has it."""

  def __init__(self, code):
    super().__init__(f"code {code}")
    self.code = code


_HttpError.__module__ = "gcsfs.retry"
_TEXT = "Error reading gs://b/run/checkpoints/2/state/manifest.ocdbt"


@pytest.mark.parametrize(
  "error, expected",
  [
    (OSError("Forbidden: b/x"), True),
    (OSError(errno.EIO, "the store does not answer", "gs://b"), True),
    (TimeoutError(), True),
    (_HttpError(503), True),
    (_HttpError(404), False),
    (ValueError(f"PERMISSION_DENIED: {_TEXT}"), True),
    (ValueError(f"UNAVAILABLE: {_TEXT}"), True),
    (ValueError(f"DEADLINE_EXCEEDED: {_TEXT}"), True),
    (ValueError(f"DATA_LOSS: {_TEXT}"), False),
    (ValueError(f"FAILED_PRECONDITION: {_TEXT}"), False),
    (FileNotFoundError("x"), False),
    (KeyError("x"), False),
  ],
)
def test_refusals_are_told_from_damage(error, expected):
  assert commits.is_refusal(error) is expected
  wrapped = ValueError("the list of arrays is missing or damaged")
  wrapped.__cause__ = error
  assert commits.is_refusal(wrapped) is expected
