"""Tensors and plain values of a pickle, without unpickling it.

A pickle is a program for a small stack machine, whose instructions may import
and call anything. This machine of our own has only the instructions that build
plain values, and knows by name the few functions that torch's files call. It
imports nothing, and calls nothing that a file names.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import pickletools
from typing import IO
from typing import Any

# A state of 6,000 tensors takes 240,000 instructions and 2 MB.
MOST_BYTES = 2**24
_MOST_INSTRUCTIONS = 1_000_000
_LONGEST_KEY = 100
_LONGEST_NAME = 1000  # characters of a global's name, and of a dict's key
_MODULES = ("__torch__.", "__torch__ ")  # what names of TorchScript begin with

_STORAGES = {
  "torch FloatStorage": "float32",
  "torch DoubleStorage": "float64",
  "torch HalfStorage": "float16",
  "torch BFloat16Storage": "bfloat16",
  "torch LongStorage": "int64",
  "torch IntStorage": "int32",
  "torch ShortStorage": "int16",
  "torch CharStorage": "int8",
  "torch ByteStorage": "uint8",
  "torch BoolStorage": "bool",
  "torch ComplexFloatStorage": "complex64",
  "torch ComplexDoubleStorage": "complex128",
}
_DTYPES = frozenset(
  f"torch {name}"
  for name in (
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "uint8", "bool"),
  )
)
_REMEDY = (
  "only tensors and plain values are read, so that no file can run code. If you"
  " trust it, open it where torch is installed, and save its tensors alone:"
  " torch.save(model.state_dict(), FILE)"
)


@dataclasses.dataclass(frozen=True)
class Storage:
  """Numbers that lie elsewhere in the file."""

  key: str
  dtype: str
  numel: int


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A view of a storage; offset and strides count numbers. Not checked yet."""

  storage: Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]


@dataclasses.dataclass
class Module:
  """A module of TorchScript as a mere bag: its class and code are not read.

  is_opaque: whether only code of its own, __setstate__, could tell its state.
  """

  attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
  is_opaque: bool = False


class Stateful:
  """What a function of the caller's makes, for the pickle to complete."""

  def set_state(self, state: Any) -> None:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Global:
  name: str  # "module name"


class _Refused(ValueError):
  """A pickle that is not read, in words for users."""


def load(
  stream: IO[bytes],
  storages: dict[str, Storage],
  functions: Mapping[str, Callable[..., Any] | None] | None = None,
) -> Any:
  """Reads the next pickle of a stream.

  Sets become lists, and ordered, counting and default dicts become dicts.

  Args:
    stream: a file of at most MOST_BYTES.
    storages: the storages that the pickle mentions are put in here, by key.
    functions: what it may call beside torch's, by "module name"; None for what
      it may only mention.

  Raises:
    ValueError: a damaged pickle, one of anything else than tensors and plain
      values, or one that takes too many instructions.
  """
  machine = _Machine(storages, {**_FUNCTIONS, **(functions or {})})
  for opcode, argument, _ in pickletools.genops(stream):
    machine.work += 1
    if machine.work > _MOST_INSTRUCTIONS:
      raise ValueError(f"its pickle has over {_MOST_INSTRUCTIONS} instructions")
    instruction = _INSTRUCTIONS.get(opcode.name)
    if instruction is None:
      raise ValueError(
        f"its pickle has the instruction {opcode.name}, and {_REMEDY}"
      )
    try:
      instruction(machine, argument)
    except _Refused:
      raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
      raise ValueError(
        f"its pickle is damaged at instruction {machine.work}, {opcode.name}"
      ) from error
  return machine.result()


class _Machine:
  """Stack, marks and memo of a pickle.

  work: number of instructions so far, and of values that they copied.
  """

  def __init__(
    self,
    storages: dict[str, Storage],
    functions: Mapping[str, Callable[..., Any] | None],
  ):
    self._stack: list[Any] = []
    self._below: list[list[Any]] = []  # the stacks under each mark
    self._memo: dict[int, Any] = {}
    self._storages = storages
    self._functions = functions
    self.work = 0

  def push(self, value: Any) -> None:
    self._stack.append(value)

  def pop(self) -> Any:
    return self._stack.pop()

  def result(self) -> Any:
    if len(self._stack) != 1 or self._below:
      raise ValueError("its pickle is damaged: it holds not just one value")
    return self._stack[0]

  def mark(self) -> None:
    self._below.append(self._stack)
    self._stack = []

  def pop_mark(self) -> list[Any]:
    values, self._stack = self._stack, self._below.pop()
    return values

  def top(self, kind: type) -> Any:
    if type(self._stack[-1]) is not kind:
      raise TypeError(f"expected a {kind.__name__}")
    return self._stack[-1]

  def put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def memoize(self) -> None:
    self.put(len(self._memo))

  def get(self, index: int) -> None:
    self.push(self._memo[index])

  def set_items(self, flat: list[Any]) -> None:
    self.top(dict).update(_dict(zip(flat[::2], flat[1::2], strict=True)))

  def push_global(self, name: str) -> None:
    known = name in self._functions or name in _STORAGES or name in _DTYPES
    if not known and not name.startswith(_MODULES):
      shown = name[:_LONGEST_KEY].replace(" ", ".")
      raise _Refused(f"it holds {shown!r}, and {_REMEDY}")
    self.push(_Global(name))

  def push_stack_global(self) -> None:
    name, module = self.pop(), self.pop()
    if not isinstance(name, str) or not isinstance(module, str):
      raise TypeError("names must be text")
    # Two texts of the memo may be joined again and again.
    if len(name) + len(module) > _LONGEST_NAME:
      raise _Refused(f"it holds a name of {len(name) + len(module)} characters")
    self.push_global(f"{module} {name}")

  def reduce(self) -> None:
    arguments, function = self.pop(), self.top(_Global)
    call = self._functions[function.name]
    if call is None or type(arguments) is not tuple:
      raise TypeError(f"{function.name} cannot be called")
    # What is made from a value may be made from it again and again.
    sized = [x for x in arguments if isinstance(x, list | tuple | dict | str)]
    self.work += sum(map(len, sized))
    self._stack[-1] = call(*arguments)

  def new_object(self) -> None:
    self.pop()
    if not self.top(_Global).name.startswith(_MODULES):
      raise TypeError("only modules of TorchScript are objects")
    self._stack[-1] = Module()

  def build(self) -> None:
    state, target = self.pop(), self._stack[-1]
    if isinstance(target, Module):
      if isinstance(state, dict):
        target.attributes = state
      else:
        target.is_opaque = True
    elif isinstance(target, Stateful):
      target.set_state(state)
    elif not isinstance(target, dict):  # a dict's attributes say nothing to us
      raise TypeError("it has no state")

  def push_storage(self) -> None:
    kind, dtype, key, _, numel, *view = self.pop()
    if kind != "storage" or view not in ([], [None]):
      raise TypeError("no storage")
    if not isinstance(key, str) or len(key) > _LONGEST_KEY:
      raise TypeError("no key of a storage")
    storage = Storage(key, _STORAGES[dtype.name], _size(numel))
    if self._storages.setdefault(key, storage) != storage:
      raise _Refused(f"it describes its storage {key!r} in two ways")
    self.push(storage)


def _size(value: Any) -> int:
  if type(value) is not int or not 0 <= value < 2**60:
    raise TypeError("no size")
  return value


def _dict(pairs) -> dict[Any, Any]:
  """A dict; keys are such that finding them is quick whatever they are."""
  made = {}
  for key, value in pairs:
    if isinstance(key, str | bytes) and len(key) > _LONGEST_NAME:
      raise _Refused(f"it has a key of {len(key)} characters")
    if not isinstance(key, str | bytes | int) or (
      isinstance(key, int) and abs(key) >= 2**32
    ):
      raise TypeError("a key must be text or a number of 32 bits")
    made[key] = value
  return made


def _tensor(storage, offset, size, stride, *_) -> Tensor:
  if not isinstance(storage, Storage) or not len(size) == len(stride) <= 32:
    raise TypeError("no tensor")
  sizes, strides = (tuple(map(_size, x)) for x in (size, stride))
  return Tensor(storage, _size(offset), sizes, strides)


def _parameter(tensor, *_) -> Tensor:
  if not isinstance(tensor, Tensor):
    raise TypeError("no parameter")
  return tensor


# What may be called, by name; None for what is only mentioned.
_FUNCTIONS: dict[str, Callable[..., Any] | None] = {
  "torch._utils _rebuild_tensor": _tensor,
  "torch._utils _rebuild_tensor_v2": _tensor,
  "torch._utils _rebuild_parameter": _parameter,
  "torch._utils _rebuild_parameter_with_state": _parameter,
  "torch Size": tuple,
  "torch device": lambda *place: place,
  "torch.jit._pickle build_intlist": list,
  "torch.jit._pickle build_doublelist": list,
  "torch.jit._pickle build_boollist": list,
  "torch.jit._pickle build_tensorlist": list,
  "torch.jit._pickle restore_type_tag": lambda value, tag: value,
  "collections OrderedDict": lambda pairs=(): _dict(pairs),
  "collections defaultdict": lambda kind=None: {},
  "collections Counter": lambda counts=None: counts or {},
  "_codecs encode": lambda text, code: text.encode("latin1"),
}
for _module in ("builtins", "__builtin__"):
  _FUNCTIONS |= {f"{_module} {name}": list for name in ("set", "frozenset")}
  _FUNCTIONS |= {
    f"{_module} {name}": None for name in ("dict", "list", "int", "float")
  }


def _ignore(machine: _Machine, argument: Any) -> None:
  del machine, argument


def _push(machine: _Machine, argument: Any) -> None:
  machine.push(argument)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
  def push(machine: _Machine, _) -> None:
    values = [machine.pop() for _ in range(count)]
    machine.push(tuple(reversed(values)))

  return push


# Instructions by pickletools' names; each gets the machine and its argument.
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
  **dict.fromkeys(("PROTO", "FRAME", "STOP"), _ignore),
  **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2"), _push),
  **dict.fromkeys(("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _push),
  **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _push),
  **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE"), _push),
  **dict.fromkeys(("BINUNICODE8", "BINBYTES", "BINBYTES8"), _push),
  "SHORT_BINBYTES": _push,
  "NONE": lambda machine, _: machine.push(None),
  "NEWTRUE": lambda machine, _: machine.push(True),
  "NEWFALSE": lambda machine, _: machine.push(False),
  "EMPTY_TUPLE": lambda machine, _: machine.push(()),
  "EMPTY_LIST": lambda machine, _: machine.push([]),
  "EMPTY_DICT": lambda machine, _: machine.push({}),
  "EMPTY_SET": lambda machine, _: machine.push([]),
  "TUPLE1": _tuple(1),
  "TUPLE2": _tuple(2),
  "TUPLE3": _tuple(3),
  "MARK": lambda machine, _: machine.mark(),
  "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
  "LIST": lambda machine, _: machine.push(machine.pop_mark()),
  "FROZENSET": lambda machine, _: machine.push(machine.pop_mark()),
  "DICT": lambda machine, _: _push_dict(machine),
  "POP": lambda machine, _: machine.pop(),
  "POP_MARK": lambda machine, _: machine.pop_mark(),
  "APPEND": lambda machine, _: _extend(machine, [machine.pop()]),
  "APPENDS": lambda machine, _: _extend(machine, machine.pop_mark()),
  "ADDITEMS": lambda machine, _: _extend(machine, machine.pop_mark()),
  "SETITEM": lambda machine, _: _set_item(machine),
  "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
  **dict.fromkeys(
    ("PUT", "BINPUT", "LONG_BINPUT"),
    lambda machine, index: machine.put(index),
  ),
  "MEMOIZE": lambda machine, _: machine.memoize(),
  **dict.fromkeys(
    ("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.get(index)
  ),
  "GLOBAL": lambda machine, name: machine.push_global(name),
  "STACK_GLOBAL": lambda machine, _: machine.push_stack_global(),
  "REDUCE": lambda machine, _: machine.reduce(),
  "NEWOBJ": lambda machine, _: machine.new_object(),
  "BUILD": lambda machine, _: machine.build(),
  "BINPERSID": lambda machine, _: machine.push_storage(),
}


def _extend(machine: _Machine, values: list[Any]) -> None:
  machine.top(list).extend(values)


def _set_item(machine: _Machine) -> None:
  value, key = machine.pop(), machine.pop()
  machine.set_items([key, value])


def _push_dict(machine: _Machine) -> None:
  flat = machine.pop_mark()
  machine.push({})
  machine.set_items(flat)
