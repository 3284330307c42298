"""Tests of the source tree itself: floors, circles, and who may do what."""

import ast
import functools
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
# The wings from the roof down, one floor in each line. A file imports from its
# wing and from the floors below.
_FLOORS = (
  ("main", "magvit/console"),
  ("magvit/compress", "magvit/decompress"),
  ("magvit/modes",),
  ("magvit/compression",),
  ("magvit/api",),
  ("magvit/training", "magvit/cost"),
  ("magvit/scoring",),
  ("magvit/trained",),
  ("magvit/recognition",),
  ("magvit/generators",),
  ("magvit/tokenizer",),
  ("magvit/workdir", "magvit/algorithm"),
  ("magvit/mesh", "magvit/optimizer", "magvit/command_line"),
  ("evaluation",),
  ("models", "input_pipeline"),
  ("storage",),
  ("configs",),
)
# Calls that make a file or a folder, wherever their names come from; calls of
# `open` count by their mode.
_WRITING_CALLS = frozenset(
  (
    *("os.makedirs", "os.mkdir", "os.rename", "os.replace", "os.link"),
    *("os.symlink", "os.truncate", "os.open", "os.mkfifo"),
    *("mkdir", "touch", "write_text", "write_bytes", "symlink_to", "tofile"),
    *("shutil.move", "shutil.copy", "shutil.copyfile", "shutil.copytree"),
    *("shutil.copy2", "tempfile.mkdtemp", "tempfile.mkstemp"),
    *("tempfile.NamedTemporaryFile", "tempfile.TemporaryDirectory"),
    *("np.save", "np.savez", "np.savez_compressed", "np.savetxt"),
    *("save", "savefig", "save_file", "json.dump", "FileHandler"),
    *("SummaryWriter", "ArrayRecordWriter", "start_trace"),
    *("CheckpointManager", "_ffmpeg"),
  )
)
# What may write beside storage/files.py, and why that is safe.
_PUBLISHED = "the path comes from files.published"
_OWN_FOLDER = "a library writes into a folder of files.own_folder"
_COPIES = "copies of objects, in a folder whose name cannot be guessed"
_MEMORY = "into memory"
_OTHER = "another function of that name, which uses storage/files.py"
_OTHER_WRITERS = {
  ("configs.describe", "write_text"): "a page of the docs, by its developer",
  ("evaluation.show.curves", "savefig"): _MEMORY,
  ("evaluation.show.mp4", "open"): _PUBLISHED,
  ("evaluation.show.pictures", "save"): _MEMORY,
  ("input_pipeline.decoding.reencode", "open"): _MEMORY,
  ("input_pipeline.decoding.reencode", "save"): _MEMORY,
  ("input_pipeline.sources.media_shards", "save"): _MEMORY,
  ("input_pipeline.sources.token_shards", "save"): _MEMORY,
  ("magvit.compression.rate_distortion", "savefig"): _MEMORY,
  ("magvit.compression.video_codecs", "_ffmpeg"): _PUBLISHED,
  ("magvit.cost.compiled", "tempfile.TemporaryDirectory"): "cannot be guessed",
  ("magvit.modes.export", "save"): _OTHER,
  ("magvit.training.checkpoints", "CheckpointManager"): _OWN_FOLDER,
  ("magvit.training.checkpoints", "save"): _OWN_FOLDER,
  ("magvit.training.loop", "save"): _OTHER,
  ("magvit.training.metrics", "SummaryWriter"): _OWN_FOLDER,
  ("magvit.training.trace", "start_trace"): _OWN_FOLDER,
  ("magvit.workdir.weights", "save"): _OWN_FOLDER,
  ("models.weights.convert", "save"): _OTHER,
  ("models.weights.fetch", "save"): _OTHER,
  ("models.weights.fetch", "tempfile.TemporaryDirectory"): "cannot be guessed",
  ("models.weights.safetensors_file", "save"): _MEMORY,
  ("storage.lock", "os.makedirs"): "the folder that the user named",
  ("storage.lock", "os.open"): "makes what was not there, and follows no link",
  ("storage.lock", "os.replace"): "replaces a lock by one",
  ("magvit.workdir.commits", "tempfile.TemporaryDirectory"): _COPIES,
  ("storage.packages", "tempfile.TemporaryDirectory"): "cannot be guessed",
  ("storage.npz", "open"): "members of an archive that is published",
  ("storage.rows", "open"): _PUBLISHED,
  ("storage.shard_cache", "open"): "by one process, then renamed",
  ("storage.shard_cache", "os.makedirs"): "the folder of the machine's cache",
  ("storage.shard_cache", "os.open"): "locks and the count of that folder",
  ("storage.shard_cache", "os.replace"): "renames what is whole",
  ("storage.store_records", "tempfile.NamedTemporaryFile"): "no guessed name",
  ("storage.shards", "ArrayRecordWriter"): _PUBLISHED,
  ("storage.stores", "os.makedirs"): _COPIES,
  ("storage.stores", "shutil.move"): _OWN_FOLDER,
  ("storage.stores", "tempfile.mkdtemp"): _COPIES,
}
# Functions of more than 60 lines, and why each is better whole.
_LONG_FUNCTIONS = {
  "configs": "a config is a list of fields",
}
_LONGEST_FUNCTION = 60  # lines
_LONGEST_FILE = 400  # lines


@functools.cache
def _sources() -> dict[str, pathlib.Path]:
  """Files of the project by module name; not the tests and benchmarks."""
  tops = sorted({wing.partition("/")[0] for floor in _FLOORS for wing in floor})
  paths = [_ROOT / "main.py"]
  for top in tops:
    paths += sorted((_ROOT / top).glob("**/*.py"))
  names = (".".join(p.relative_to(_ROOT).with_suffix("").parts) for p in paths)
  return {
    name.removesuffix(".__init__"): path
    for name, path in zip(names, paths, strict=True)
  }


@functools.cache
def _parse(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text())


def _place(module: str) -> tuple[int, str] | None:
  """(floor from the roof, wing); None of magvit/__init__.py, the front door."""
  path = module.replace(".", "/")
  for floor, wings in enumerate(_FLOORS):
    for wing in wings:
      if path == wing or path.startswith(f"{wing}/"):
        return floor, wing
  assert path == "magvit", f"{path} has no floor"
  return None


@functools.cache
def _imported_modules(path: pathlib.Path) -> set[str]:
  """Our modules that a file imports, wherever in it."""
  modules = _sources()
  imported = set()
  for node in ast.walk(_parse(path)):
    if isinstance(node, ast.ImportFrom):
      names = [f"{node.module}.{alias.name}" for alias in node.names]
      imported |= {n if n in modules else node.module for n in names}
    elif isinstance(node, ast.Import):
      imported |= {alias.name for alias in node.names}
  return imported & modules.keys()


@pytest.mark.parametrize("module", list(_sources()))
def test_imports_run_down_the_floors(module):
  place = _place(module)
  for imported in _imported_modules(_sources()[module]):
    if place is None or _place(imported) is None:
      continue
    (floor, wing), (below, other) = place, _place(imported)
    assert wing == other or floor < below, f"{module} imports {imported}"


def test_no_file_imports_itself_by_way_of_others():
  graph = {name: _imported_modules(path) for name, path in _sources().items()}
  done, under_way = set(), []

  def visit(module):
    assert module not in under_way, [*under_way, module]
    if module in done or module == "magvit":
      return
    under_way.append(module)
    for imported in sorted(graph[module] - {module}):
      visit(imported)
    under_way.pop()
    done.add(module)

  for module in graph:
    visit(module)


def test_the_loop_is_nobodys_library():
  importers = {
    name
    for name, path in _sources().items()
    if "magvit.training.loop" in _imported_modules(path)
  }
  assert importers == {"magvit.modes.train"}


def test_only_the_table_of_algorithms_asks_for_one_by_name():
  for name, path in _sources().items():
    for node in ast.walk(_parse(path)):
      if not isinstance(node, ast.Compare):
        continue
      for side in (node.left, *node.comparators):
        asks = isinstance(side, ast.Attribute) and side.attr == "algorithm"
        literal = any(
          isinstance(other, ast.Constant)
          for other in (node.left, *node.comparators)
        )
        assert not (asks and literal), f"{name}:{node.lineno}"


def test_only_the_boundary_splits_and_merges_modules():
  for path in _sources().values():
    if path.name != "network.py":
      text = path.read_text()
      for call in ("nnx.split", "nnx.merge", "nnx.jit", "nnx.Optimizer"):
        assert call not in text, path


def test_no_file_imports_what_runs_the_code_of_files():
  for name, path in _sources().items():
    for node in ast.walk(_parse(path)):
      imported = []
      if isinstance(node, ast.Import):
        imported = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        imported = [node.module]
      tops = {each.partition(".")[0] for each in imported}
      assert not tops & {"torch", "pickle", "marshal", "shelve", "dill"}, name


def _written_by(call: ast.Call) -> str | None:
  """The name of a call if it can make a file or a folder."""
  name = ast.unparse(call.func)
  last = name.rpartition(".")[2]
  if last == "open" and name != "os.open":
    modes = [x.value for x in call.keywords if x.arg == "mode"] + call.args
    strings = [x.value for x in modes if isinstance(x, ast.Constant)]
    writes = (name == "open" and len(strings) < len(modes[1:])) or any(
      isinstance(x, str) and 0 < len(x) < 4 and set(x) & set("wax+")
      for x in strings
    )
    return "open" if writes else None
  return next((x for x in (name, last) if x in _WRITING_CALLS), None)


def test_only_one_file_writes_files():
  seen = {
    (name, called)
    for name, path in _sources().items()
    for node in ast.walk(_parse(path))
    if isinstance(node, ast.Call) and (called := _written_by(node)) is not None
    if name != "storage.files"
  }
  assert seen == set(_OTHER_WRITERS)


@pytest.mark.parametrize(
  "text",
  [
    "open(path, 'w')",
    "open(path, mode='ab')",
    "path.open('x')",
    "open(path, 'r+b')",
    "open(path, mode)",
    "av.open(path, 'w', format='mp4')",
    "pathlib.Path(a).write_text(b)",
    "os.makedirs(a, exist_ok=True)",
    "np.savez(path, **arrays)",
    "Image.fromarray(x).save(path)",
  ],
)
def test_a_new_writer_is_noticed(text):
  assert _written_by(ast.parse(text, mode="eval").body) is not None


def test_a_reader_is_none():
  for text in ("open(path)", "open(path, 'rb')", "text.replace('w', 'a')"):
    assert _written_by(ast.parse(text, mode="eval").body) is None


def test_files_are_short():
  lengths = {
    name: len(path.read_text().splitlines())
    for name, path in _sources().items()
  }
  assert {n for n, length in lengths.items() if length > _LONGEST_FILE} == set()
  assert lengths["main"] <= 90


def test_functions_are_short_or_say_why_not():
  long = set()
  for name, path in _sources().items():
    for node in ast.walk(_parse(path)):
      if isinstance(node, ast.FunctionDef):
        if node.end_lineno - node.lineno + 1 > _LONGEST_FUNCTION:
          package = name.partition(".")[0]
          long.add("configs" if package == "configs" else f"{name}.{node.name}")
  assert long == set(_LONG_FUNCTIONS)
