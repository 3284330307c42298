"""Requests to object stores: repeated for a while, then one clear error.

File systems are those of fsspec, whose packages find the credentials.
"""

from collections.abc import Callable
import errno
import logging
import os
import re
import time
from typing import Any
from typing import TypeVar

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_ATTEMPTS = 3  # a request has, on top of those of the store's own library
_FIRST_WAIT = 1.0  # seconds before the second attempt, doubled for each later
_SECONDS = 30.0  # without a byte, after which a request counts as failed
_CREDENTIALS = {
  "gs": "gcloud auth application-default login, or set"
  " GOOGLE_APPLICATION_CREDENTIALS",
  "s3": "aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
_UNKNOWN = ("NoCredentials", "DefaultCredentialsError", "PartialCredentials")
_LASTING = (ImportError, ValueError, TypeError, KeyError, NotImplementedError)
_prepared: set[str] = set()  # kinds of stores that have their settings


def is_url(path: str | os.PathLike) -> bool:
  """Whether something is the URL of an object store, not a path of a disk."""
  return _URL.match(os.fspath(path)) is not None


def protocol(url: str) -> str:
  """The kind of a URL, like "gs"; "" for a path."""
  match = _URL.match(url)
  if match is None:
    return ""
  return {"gcs": "gs", "s3a": "s3"}.get(match[1].lower(), match[1].lower())


def check_kind(url: str) -> None:
  """Raises ValueError for a URL of a kind that no store has."""
  import fsspec  # it takes a while, and most programs need none

  if protocol(url) not in fsspec.available_protocols():
    raise ValueError(
      f"{url} is an address in no such kind of store as fsspec knows: name one"
      " of gs://, s3:// and others, or a folder of a disk"
    )


def written(url: str, act: Callable[[Any], None]) -> None:
  """As `tried`; what is absent at a write is the bucket."""
  try:
    tried(url, act)
  except FileNotFoundError as error:
    reason = "there is no such bucket: make it, or name another"
    raise OSError(errno.ENOENT, reason, url) from error


def tried(url: str, act: Callable[[Any], _T]) -> _T:
  """What `act` returns of the file system of a URL, after a few attempts.

  Raises:
    FileNotFoundError: there is no such object.
    FileExistsError: there is one already.
    OSError: the store cannot be reached, or refuses; it says why.
  """
  system = _system(url)
  for attempt in range(_ATTEMPTS):
    try:
      return act(system)
    except FileNotFoundError as error:
      words = os.strerror(errno.ENOENT)
      raise FileNotFoundError(errno.ENOENT, words, url) from error
    except FileExistsError as error:
      words = os.strerror(errno.EEXIST)
      raise FileExistsError(errno.EEXIST, words, url) from error
    except (IsADirectoryError, NotADirectoryError):
      raise
    except Exception as error:  # each library has classes of its own
      reason, lasts = _reason(url, error)
      if lasts or attempt + 1 == _ATTEMPTS:
        raise OSError(errno.EIO, reason, url) from error
      log.info("%s: %s; trying again", url, reason)
      time.sleep(_FIRST_WAIT * 2**attempt)
  raise AssertionError("the last attempt returns or raises")


def _reason(url: str, error: Exception) -> tuple[str, bool]:
  """(words on an error of a store with a remedy, whether it will last)."""
  words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
  login = _CREDENTIALS.get(protocol(url), "see the documentation of the store")
  if any(name in words for name in _UNKNOWN):
    return f"no credentials were found: run {login}", True
  code = getattr(error, "code", None)
  if code in (401, "401") or "Anonymous caller" in words:
    return f"the store does not know who asks ({words}): run {login}", True
  if isinstance(error, PermissionError) or "Forbidden" in words:
    remedy = "let this account read and write there, or name another bucket"
    return f"the store refuses ({words}): {remedy}", True
  if isinstance(error, _LASTING):
    return f"the store cannot do that ({words})", True
  return f"the store does not answer as it should ({words})", False


def _system(url: str) -> Any:
  """The file system of a URL; OSError if its package is missing."""
  import fsspec  # it takes a while, and most programs need none

  try:
    _prepare(protocol(url))
    return fsspec.filesystem(protocol(url))
  except ImportError as error:
    package = {"gs": "gcsfs", "s3": "s3fs"}.get(protocol(url))
    remedy = f"pip install {package}" if package else f"{error}"
    raise OSError(
      errno.ENOPKG, f"a package is missing for this store: {remedy}", url
    ) from error
  except ValueError as error:
    known = "gs://, s3:// and other stores of fsspec"
    raise OSError(
      errno.EINVAL, f"no such kind of store ({error}): name one of {known}", url
    ) from error
  except Exception as error:
    raise OSError(errno.EIO, _reason(url, error)[0], url) from error


def _prepare(kind: str) -> None:
  """Sets what fsspec makes the file systems of a store with, everywhere.

  orbax has file systems of its own, and so the settings are fsspec's. Lists of
  names are not kept, because other processes write, too.
  """
  if kind in _prepared:
    return
  from fsspec import config

  settings: dict[str, Any] = {}
  if kind == "gs":
    import aiohttp  # the library of gcsfs

    # Without one a request that stalls is waited for without end.
    settings["requests_timeout"] = aiohttp.ClientTimeout(
      total=None, sock_connect=_SECONDS, sock_read=_SECONDS
    )
    # It logs a traceback of every error that it also raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
  if kind in ("gs", "s3"):
    settings["use_listings_cache"] = False
  # What somebody has set for fsspec counts more.
  config.conf[kind] = {**settings, **config.conf.get(kind, {})}
  _prepared.add(kind)


def stripped(url: str) -> str:
  """The name of an object as its file system lists it."""
  return _system(url)._strip_protocol(url)
