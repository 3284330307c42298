"""Tests of magvit/workdir/commits.py: what is whole, and what errors say."""

import errno
import uuid

import pytest

from magvit.workdir import commits
from storage import store_calls
from storage import stores


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


def test_a_checkpoint_counts_as_whole_once_all_of_it_is_sent(
  tmp_path, monkeypatch
):
  """orbax puts a file of the name of our mark beside the others, on a disk."""
  url, sent = f"memory://{uuid.uuid4().hex}/2", []
  for name in (commits.COMMITTED, "digests.json", "state"):
    (tmp_path / name).write_text("x")
  real = store_calls.written

  def record(target, act):
    real(target, act)
    sent.append(sorted(stores.sizes(url)))

  monkeypatch.setattr(store_calls, "written", record)
  commits.commit(str(tmp_path), url)
  others = ["digests.json", "state"]
  assert sent == [others, [commits.COMMITTED, *others]]
  (tmp_path / commits.COMMITTED).unlink()
  commits.commit(str(tmp_path), url)
  assert sent[2:] == sent[:2]
