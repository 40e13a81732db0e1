"""Reads the pickle inside a torch checkpoint, `data.pkl`, without pickle: nothing in it can run, and nothing can grow.

A pickle is a program. This reads the few instructions that `torch.save` writes for a dictionary of tensors, and refuses
every other one before it does anything; a name stands for one of our own values, never for what it names. Python's own
unpickler with a `find_class` that knows four names runs no code either, but cannot be bounded: see docs/decisions.

Source: `torch.save` and `torch._weights_only_unpickler` (the format); CPython's `pickletools` (the instructions).
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import FormatError

# Of a checkpoint of 400 tensors it is 40 kB, with 12,000 instructions.
MAX_PICKLE_BYTES: Final = 16 * 2**20
MAX_INSTRUCTIONS: Final = 2_000_000
MAX_NAME_CHARS: Final = 512  # of a tensor
MAX_TUPLE: Final = 16  # no shape has more dimensions, no function more arguments
PROTOCOL: Final = 2
# What reading a damaged pickle raises; the last for an odd escape in a name, where warnings are errors.
DAMAGED: Final = (ValueError, IndexError, KeyError, TypeError, OverflowError, DeprecationWarning)
MAX_SHOWN_CHARS: Final = 80  # of the file, in an error

MAPPING: Final = "collections OrderedDict"
TENSOR: Final = "torch._utils _rebuild_tensor_v2"
PARAMETER: Final = "torch._utils _rebuild_parameter"
# numpy's names; bfloat16 is the one that ml_dtypes registers.
DTYPES: Final[Mapping[str, str]] = {
    "torch FloatStorage": "float32",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch DoubleStorage": "float64",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
}
KNOWN_NAMES: Final = frozenset({MAPPING, TENSOR, PARAMETER, *DTYPES})
CONSTANTS: Final[Mapping[str, object]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
NUMBERS: Final = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
TUPLES: Final[Mapping[str, int]] = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, slots=True)
class StoredArray:
    """A file of the archive, as the pickle speaks of it.

    Attributes:
        key: Its name in the archive's folder `data`.
        dtype: numpy's name of the type of its elements.
        elements: How many it is said to hold.
    """

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor, as the pickle speaks of it: a view of an array, in elements.

    Attributes:
        array: Where its elements are.
        offset: Its first element.
        shape: Its sizes.
        strides: How many elements lie between neighbours along each dimension.
    """

    array: StoredArray
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of its elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that the pickle looks up."""

    name: str


class _Mark:
    """Where the items of a tuple, or the pairs of a dictionary, begin on the stack."""


def read_state(content: bytes) -> dict[str, StoredTensor]:
    """Read which tensors a checkpoint has.

    Args:
        content: The whole of `data.pkl`.

    Raises:
        FormatError: It is damaged, larger than any checkpoint's, holds an instruction or a name that is none of a
            dictionary of tensors, or something else than tensors.
    """
    if len(content) > MAX_PICKLE_BYTES:
        raise FormatError(f"data.pkl has {len(content)} bytes, max {MAX_PICKLE_BYTES}")
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if number >= MAX_INSTRUCTIONS:
                raise FormatError(f"data.pkl has more than {MAX_INSTRUCTIONS} instructions")
            machine.step(opcode.name, argument)
    except DAMAGED as error:
        raise FormatError(f"data.pkl is damaged ({_shown(str(error))})") from error
    return _tensors(machine.result())


def _tensors(state: object) -> dict[str, StoredTensor]:
    """Check that a checkpoint is a dictionary of tensors.

    Raises:
        FormatError: It is not; names the entry.
    """
    if not isinstance(state, dict):
        raise FormatError("it holds no dictionary of tensors")
    for name, value in state.items():
        if len(name) > MAX_NAME_CHARS:
            raise FormatError(f"the name of a tensor has {len(name)} characters")
        if not isinstance(value, StoredTensor):
            raise FormatError(
                f"'{_shown(name)}' is no tensor: only a dictionary of tensors is read (a state_dict)"
            )
    return state


class _Machine:
    """The stack and the memo of a pickle, and one method for each of the few instructions."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._steps: Mapping[str, Callable[[Any], None]] = {
            "PROTO": self._protocol,
            "GLOBAL": self._look_up,
            "BINUNICODE": self._stack.append,
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "MARK": lambda _: self._stack.append(_Mark),
            "TUPLE": lambda _: self._push_tuple(self._behind_mark()),
            "APPEND": lambda _: self._extend([self._stack.pop()]),
            "APPENDS": lambda _: self._extend(self._behind_mark()),
            "SETITEM": lambda _: self._set_items(self._popped(2)),
            "SETITEMS": lambda _: self._set_items(self._behind_mark()),
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "BINGET": lambda number: self._stack.append(self._memo[number]),
            "LONG_BINGET": lambda number: self._stack.append(self._memo[number]),
            "BINPERSID": self._refer,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "STOP": lambda _: None,
            **dict.fromkeys(NUMBERS, self._stack.append),
        }

    def step(self, name: str, argument: object) -> None:
        """Do one instruction.

        Raises:
            FormatError: It is none that a checkpoint has.
            IndexError: The stack has too little.
            KeyError: The memo has no such entry.
            TypeError: A value is not of the type that the instruction takes.
        """
        if name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in TUPLES:
            self._push_tuple(self._popped(TUPLES[name]))
        elif name in self._steps:
            self._steps[name](argument)
        else:
            raise FormatError(f"data.pkl has the instruction {name}, which no checkpoint needs")

    def result(self) -> object:
        """Return what is left on the stack.

        Raises:
            FormatError: That is not one value.
        """
        if len(self._stack) != 1:
            raise FormatError("data.pkl is damaged (it leaves not one value)")
        return self._stack[0]

    def _protocol(self, version: int) -> None:
        if version != PROTOCOL:
            raise FormatError(
                f"data.pkl is of pickle's protocol {version}; torch writes {PROTOCOL}"
            )

    def _look_up(self, name: str) -> None:
        if name not in KNOWN_NAMES:
            raise FormatError(
                f"data.pkl names '{_shown(name.replace(' ', '.'))}', which is no part of a dictionary of tensors"
            )
        self._stack.append(_Name(name))

    def _popped(self, count: int) -> list[Any]:
        """Take values from the stack, never a mark."""
        if count == 0:
            return []
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        values = self._stack[-count:]
        if _Mark in values:
            raise IndexError("a mark stands in the way")
        del self._stack[-count:]
        return values

    def _behind_mark(self) -> list[Any]:
        """Take all values behind the last mark, and the mark."""
        values = []
        while (value := self._stack.pop()) is not _Mark:
            values.append(value)
        return values[::-1]

    def _push_tuple(self, values: list[Any]) -> None:
        """Make a tuple; those of a checkpoint hold at most tuples of numbers."""
        if len(values) > MAX_TUPLE:
            raise FormatError(f"data.pkl has a tuple of {len(values)} values")
        if any(
            isinstance(item, tuple)
            for value in values
            if isinstance(value, tuple)
            for item in value
        ):
            raise FormatError("data.pkl nests tuples deeper than any checkpoint")
        self._stack.append(tuple(values))

    def _top(self, kind: type[Any]) -> Any:  # noqa: ANN401 - of the type asked for
        value = self._stack[-1]
        if not isinstance(value, kind):
            raise TypeError(f"expected a {kind.__name__}")
        return value

    def _extend(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _set_items(self, values: list[Any]) -> None:
        names, items = values[::2], values[1::2]
        if len(names) != len(items) or not all(isinstance(name, str) for name in names):
            raise TypeError("keys must be texts, with a value each")
        self._top(dict).update(zip(names, items, strict=True))

    def _put(self, number: int) -> None:
        if self._stack[-1] is _Mark:
            raise IndexError("a mark has no number")
        self._memo[number] = self._stack[-1]

    def _refer(self, _: object) -> None:
        """Make the stub of an array: `("storage", type, key, device, number of elements)`."""
        (reference,) = self._popped(1)
        if not isinstance(reference, tuple):
            raise TypeError("expected a tuple that names an array")
        kind, type_name, key, _device, elements = reference
        if kind != "storage" or not isinstance(type_name, _Name) or type_name.name not in DTYPES:
            raise TypeError("expected the name of an array")
        if not isinstance(key, str) or not _is_count(elements):
            raise TypeError("expected the key of an array and its number of elements")
        self._stack.append(StoredArray(key, DTYPES[type_name.name], elements))

    def _reduce(self, _: object) -> None:
        """Make the value that one of the three functions would give; nothing is called."""
        function, arguments = self._popped(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise TypeError("expected the name of a function and its arguments")
        if function.name == MAPPING and not arguments:
            self._stack.append({})
        elif function.name == TENSOR:
            self._stack.append(_tensor(*arguments))
        elif function.name == PARAMETER:
            tensor, _requires_grad, _hooks = arguments
            if not isinstance(tensor, StoredTensor):
                raise TypeError("a parameter must be a tensor")
            self._stack.append(tensor)
        else:
            raise FormatError(f"data.pkl calls '{_shown(function.name.replace(' ', '.'))}'")

    def _build(self, _: object) -> None:
        """Leave out the attributes of a dictionary, which are versions of torch's modules."""
        self._popped(1)
        self._top(dict)


def _tensor(
    array: object,
    offset: object,
    shape: object,
    strides: object,
    _requires_grad: object,
    _hooks: object,
    _metadata: object = None,
) -> StoredTensor:
    """Make the stub of a tensor, as `torch._utils._rebuild_tensor_v2` makes the tensor.

    Raises:
        FormatError: It reaches beyond its array, or has more elements than that.
        TypeError: The arguments are not of their types.
    """
    if not isinstance(array, StoredArray) or not isinstance(offset, int) or not _is_count(offset):
        raise TypeError("a tensor needs an array and an offset")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise TypeError("a tensor needs a shape and as many strides")
    if not all(map(_is_count, (*shape, *strides))):
        raise TypeError("sizes and strides must be numbers that are not negative")
    tensor = StoredTensor(array, offset, shape, strides)
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    # A tensor that repeats elements would be larger than the file that it comes from.
    if tensor.elements and (last >= array.elements or tensor.elements > array.elements):
        raise FormatError(
            f"a tensor of shape {_shown(str(shape))} does not lie in its {array.elements} elements"
        )
    return tensor


def _is_count(value: object) -> bool:
    """Whether a value is a number of elements that a file may have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _shown(text: str) -> str:
    """A piece of the file, short and printable, for an error."""
    return ascii(text[:MAX_SHOWN_CHARS])[1:-1]
