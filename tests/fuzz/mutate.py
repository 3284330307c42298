"""Damages and forgeries of files, drawn from a seeded generator.

`mutate` takes a file's bytes and gives others. Where it knows the format (JSON,
zip, PNG, safetensors) it often changes what is in there and makes lengths and
checksums true again, since a reader looks no further than a wrong checksum.
"""

import io
import json
import random
import struct
import warnings
import zipfile
import zlib

_PNG = b"\x89PNG\r\n\x1a\n"
_NUMBERS = (
  *(0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1),
  *(2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63),
  2**64 - 1,
)
_VALUES = (
  *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**400, 1.5),
  *(float("nan"), float("inf"), -1e308, "", " ", "x", "..", "/etc/passwd"),
  *("../../outside/victim", "a\nb", "\u0000", "\ud800", "$HOME/x", "~/x"),
  *([], [[]], {}, {"": None}, [1, "a", None], "9" * 5000, [0] * 3, {"a": []}),
)
_NAMES = (
  *("../../outside/new.npy", "/tmp/fuzz-outside.npy", "arr_0.npy", ""),
  *("arr_0", "a\nb.npy", "\u0441.npy", "x" * 300 + ".npy", "arr_0.npy/"),
)


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
  """Another file of these bytes; `other` is a file to splice with."""
  known = [m for is_kind, m in _KINDS if is_kind(data)]
  if known and rng.random() < 0.7:
    try:
      return known[0](data, rng)
    except (ValueError, KeyError, OverflowError, zipfile.BadZipFile):
      pass  # the seed itself may be odd
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    data = rng.choice(_BYTES)(data, other, rng)
  return data


def _flip(data: bytes, other: bytes, rng: random.Random) -> bytes:
  changed = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 8, 32))):
    if changed:
      changed[_place(changed, rng)] ^= 1 << rng.randrange(8)
  return bytes(changed)


def _truncate(data: bytes, other: bytes, rng: random.Random) -> bytes:
  return data[: _place(data + b"0", rng)]


def _cut_out(data: bytes, other: bytes, rng: random.Random) -> bytes:
  start = _place(data + b"0", rng)
  return data[:start] + data[start + rng.choice((1, 2, 4, 8, 100, 5000)) :]


def _splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
  return data[: _place(data + b"0", rng)] + other[_place(other + b"0", rng) :]


def _repeat(data: bytes, other: bytes, rng: random.Random) -> bytes:
  start, size = _place(data + b"0", rng), rng.choice((1, 4, 16, 200))
  piece = data[start : start + size]
  return data[:start] + piece * rng.choice((2, 3, 50)) + data[start + size :]


def _set_length(data: bytes, other: bytes, rng: random.Random) -> bytes:
  """Overwrites a number of 1 to 8 bytes, which may count what follows."""
  size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
  number = rng.choice(_NUMBERS) % 256**size
  start = _place(data + b"0", rng)
  return data[:start] + number.to_bytes(size, order) + data[start + size :]


def _fill(data: bytes, other: bytes, rng: random.Random) -> bytes:
  start, size = _place(data + b"0", rng), rng.choice((4, 64, 1000))
  piece = rng.choice((bytes(1), b"\xff", rng.randbytes(1))) * size
  return data[:start] + piece + data[start + size :]


def _append(data: bytes, other: bytes, rng: random.Random) -> bytes:
  return data + rng.choice((other, data, rng.randbytes(100)))


_BYTES = (
  *(_flip, _flip, _set_length, _set_length, _truncate, _cut_out, _splice),
  *(_repeat, _fill, _append),
)


def _place(data: bytes | bytearray, rng: random.Random) -> int:
  """Headers stand in front, and are hit more often than their share."""
  near = rng.choice((64, 512, len(data)))
  return rng.randrange(min(near, len(data)))


def is_json(data: bytes) -> bool:
  return data.lstrip()[:1] in (b"{", b"[")


def mutate_json(data: bytes, rng: random.Random) -> bytes:
  if rng.random() < 0.1:
    opened = rng.choice((b"[", b'{"a":', b'{"shards":['))
    return opened * rng.choice((10, 1000, 100_000)) + data
  tree = json.loads(data)
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    tree = _changed_tree(tree, rng)
  text = json.dumps(tree, indent=rng.choice((None, 2)))
  return text.encode()


def _changed_tree(tree, rng: random.Random):
  """Changes one value, or one name, of a tree of JSON."""
  places = [((), tree)]  # (path, value) of all values in the tree
  for path, value in places:
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    places += [((*path, key), below) for key, below in inner]
  path, value = rng.choice(places)
  if not path:
    return rng.choice((tree, rng.choice(_VALUES)))
  parent = tree
  for key in path[:-1]:
    parent = parent[key]
  match rng.randrange(6):
    case 0:
      del parent[path[-1]]
    case 1 if isinstance(parent, dict):
      parent[rng.choice(("", "x", "../x", "a" * 3000))] = value
    case 2:
      parent[path[-1]] = [value] * rng.choice((1, 2, 40))
    case 3 if isinstance(value, (int, float)):
      parent[path[-1]] = rng.choice((-value, value + 1, value * 10**6, -1))
    case 4:
      parent[path[-1]] = rng.choice(places)[1]
      if path[-1] == () or _has_loop(tree):
        parent[path[-1]] = None
    case _:
      parent[path[-1]] = rng.choice(_VALUES)
  return json.loads(json.dumps(tree))  # no part is in it twice


def _has_loop(tree) -> bool:
  try:
    json.dumps(tree)
  except (ValueError, RecursionError):
    return True
  return False


def _is_zip(data: bytes) -> bool:
  return data[:4] == b"PK\x03\x04"


def _mutate_zip(data: bytes, rng: random.Random) -> bytes:
  """Changes members of an archive, whose checksums are true again."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = [(i.filename, archive.read(i)) for i in archive.infolist()]
  place = rng.randrange(len(members))
  name, content = members[place]
  match rng.randrange(6):
    case 0:
      members[place] = (rng.choice(_NAMES) or "a", content)
    case 1:
      del members[place]
    case 2:
      members.append((name, mutate(content, content, rng)))
    case 3:
      members[place] = (name, content[:128] + bytes(10**7))
    case _:
      members[place] = (name, mutate(content, content, rng))
  method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
  file = io.BytesIO()
  with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
    warnings.simplefilter("ignore")  # two members of one name
    for name, content in members:
      archive.writestr(zipfile.ZipInfo(name), content, method)
  return file.getvalue()


def _is_png(data: bytes) -> bool:
  return data.startswith(_PNG)


def _mutate_png(data: bytes, rng: random.Random) -> bytes:
  """Changes chunks of a PNG, whose lengths and checksums are true again."""
  chunks, at = [], len(_PNG)
  while at + 12 <= len(data):
    (size,) = struct.unpack_from(">I", data, at)
    chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
    at += 12 + size
  place = rng.randrange(len(chunks))
  kind, content = chunks[place]
  match rng.randrange(4):
    case 0:
      del chunks[place]
    case 1:
      chunks.insert(rng.randrange(len(chunks)), (kind, content))
    case 2 if kind == b"IDAT":
      chunks[place] = (kind, zlib.compress(bytes(10**6)))
    case _:
      chunks[place] = (kind, mutate(content, content, rng))
  return _PNG + b"".join(
    struct.pack(">I", len(content))
    + kind
    + content
    + struct.pack(">I", zlib.crc32(kind + content))
    for kind, content in chunks
  )


def _is_safetensors(data: bytes) -> bool:
  return len(data) > 8 and data[8:9] == b"{"


def _mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
  """Changes the header in JSON, whose length is true again."""
  (size,) = struct.unpack_from("<Q", data)
  header = mutate_json(data[8 : 8 + size], rng)
  return struct.pack("<Q", len(header)) + header + data[8 + size :]


_KINDS = (
  (is_json, mutate_json),
  (_is_zip, _mutate_zip),
  (_is_png, _mutate_png),
  (_is_safetensors, _mutate_safetensors),
)
