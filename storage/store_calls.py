"""Requests to object stores: repeated for a while, then one clear error.

File systems are those of fsspec, whose packages find the credentials. They
repeat requests themselves, in silence, and look for credentials on the network;
so whoever waits is told for which store after some seconds.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import logging
import os
import re
import time
from typing import Any
from typing import TypeVar

from storage import pulse

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_ATTEMPTS = 3  # a request has, on top of those of the store's own library
_FIRST_WAIT = 1.0  # seconds before the second attempt, doubled for each later
_SECONDS = 30.0  # without a byte, after which a request counts as failed
_LONGEST = 120.0  # seconds after which no further attempt is made
_CURL = {
  "CONNECT_TIMEOUT_SECONDS": f"{_SECONDS:.0f}",
  "LOW_SPEED_TIME_SECONDS": f"{_SECONDS:.0f}",
  "LOW_SPEED_LIMIT_BYTES": "1",  # a second
}
_QUIET = 8.0  # seconds of waiting about which nothing is said
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
  with _telling(url):
    return _tried(url, act)


@contextlib.contextmanager
def _telling(url: str) -> Iterator[None]:
  """Says for which store a thread waits, as long as it does."""
  begun, due = time.monotonic(), 0.0

  def tell() -> None:
    nonlocal due
    seconds = time.monotonic() - begun
    if seconds < due:
      return
    due = 2 * seconds
    log.warning(
      "WARNING: waiting for %s for %.0f s now. Unless a large file takes that"
      " long: is there a network, and a login (%s)?",
      *(url, seconds, _login(url)),
    )

  with pulse.repeated(tell, _QUIET, "waiting"):
    yield


def _tried(url: str, act: Callable[[Any], _T]) -> _T:
  """As `tried`, without a word on the way."""
  system, begun = _system(url), time.monotonic()
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
      # The libraries may have repeated a request that stalls for minutes.
      late = time.monotonic() - begun > _LONGEST
      if lasts or late or attempt + 1 == _ATTEMPTS:
        raise OSError(errno.EIO, reason, url) from error
      log.info("%s: %s; trying again", url, reason)
      time.sleep(_FIRST_WAIT * 2**attempt)
  raise AssertionError("the last attempt returns or raises")


def _login(url: str) -> str:
  return _CREDENTIALS.get(protocol(url), "see the documentation of the store")


def _reason(url: str, error: Exception) -> tuple[str, bool]:
  """(words on an error of a store with a remedy, whether it will last)."""
  words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
  login = _login(url)
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
    # orbax's arrays go another way, which has no limit of its own, either.
    for name, value in _CURL.items():
      os.environ.setdefault(f"TENSORSTORE_CURL_{name}", value)
  if kind in ("gs", "s3"):
    settings["use_listings_cache"] = False
  # What somebody has set for fsspec counts more.
  config.conf[kind] = {**settings, **config.conf.get(kind, {})}
  _prepared.add(kind)


def stripped(url: str) -> str:
  """The name of an object as its file system lists it."""
  return _system(url)._strip_protocol(url)
