"""A server between a program and a store, which makes requests fail."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import http.client
import http.server
import threading
import time
from typing import Any
import urllib.parse

# What becomes of a request, by its number from 1, method and path: a status to
# answer with, seconds to wait before it is passed on, or None.
Fault = Callable[[int, str, str], int | float | None]

_OF_A_CONNECTION = ("content-length", "transfer-encoding", "connection", "host")


@contextlib.contextmanager
def running(target: str, fault: Fault) -> Iterator[str]:
  """Yields the URL of a server that passes requests on to `target`."""
  server = _Server(target, fault)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield server.url
  finally:
    server.shutdown()
    server.server_close()


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 128

  def __init__(self, target: str, fault: Fault):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.url = f"http://127.0.0.1:{self.server_port}"
    self.target, self._fault = target, fault
    self._counted, self._lock = 0, threading.Lock()

  def next_fault(self, method: str, path: str) -> int | float | None:
    with self._lock:
      self._counted += 1
      return self._fault(self._counted, method, path)

  def handle_error(self, request: Any, client_address: Any) -> None:
    """Says nothing: programs that are killed break off their requests."""


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  server: _Server

  def _pass_on(self) -> None:
    body = self._body()
    made = self.server.next_fault(self.command, self.path)
    if isinstance(made, float):
      time.sleep(made)
    if isinstance(made, int):
      self._answer(made, [], b"{}")
      return
    target = urllib.parse.urlsplit(self.server.target).netloc
    with contextlib.closing(http.client.HTTPConnection(target)) as inner:
      kept = {k: v for k, v in self.headers.items() if _is_kept(k)}
      inner.request(self.command, self.path, body, kept)
      answer = inner.getresponse()
      self._answer(answer.status, answer.getheaders(), answer.read())

  do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _pass_on

  def _answer(
    self, status: int, headers: list[tuple[str, str]], data: bytes
  ) -> None:
    with contextlib.suppress(ConnectionError):  # nobody waits any more
      self.send_response_only(status)
      for name, value in headers:
        if _is_kept(name):
          # A resumable upload goes on at an address that the store names.
          value = value.replace(self.server.target, self.server.url)
          self.send_header(name, value)
      self.send_header("Content-Length", str(len(data)))
      self.end_headers()
      if self.command != "HEAD":
        self.wfile.write(data)

  def _body(self) -> bytes:
    if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
      return self.rfile.read(int(self.headers.get("Content-Length", 0)))
    pieces = []
    while size := int(self.rfile.readline().split(b";")[0], 16):
      pieces.append(self.rfile.read(size))
      self.rfile.readline()
    self.rfile.readline()
    return b"".join(pieces)

  def log_message(self, format: str, *args: Any) -> None:
    """Says nothing: requests are many."""


def _is_kept(name: str) -> bool:
  """Whether a header belongs to the request, not to one connection."""
  return name.lower() not in _OF_A_CONNECTION
