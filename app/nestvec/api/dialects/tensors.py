"""Input tensors of the Open Inference Protocol v2: in JSON, or as raw bytes behind it (the binary tensor extension).

Source: the KServe v2 protocol and Triton's `extension_binary_data.md`.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nestvec.api.requests.fields import as_integer
from nestvec.errors import BodyFormatError, InputError
from nestvec.system.unicode import replace_lone_surrogates

# Stands before each element of a BYTES tensor.
ELEMENT_LENGTH: Final = struct.Struct("<I")
# Integer datatypes of the protocol, as numpy's.
INTEGERS: Final[Mapping[str, str]] = {
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
}
MAX_AXES: Final = 4


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input of a request.

    Attributes:
        name: The name that the request gives it.
        datatype: "BYTES", or one of `INTEGERS`.
        shape: The size of each axis.
        values: The elements, row-major: texts for BYTES, otherwise integers.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[str] | Sequence[int]

    @property
    def texts(self) -> list[str]:
        """The elements of a BYTES tensor.

        Raises:
            InputError: The tensor holds integers.
        """
        if self.datatype != "BYTES":
            raise InputError(f"input '{self.name}' must be of datatype BYTES", param=self.name)
        return [str(value) for value in self.values]

    @property
    def integers(self) -> list[int]:
        """The elements of a tensor of integers.

        Raises:
            InputError: The tensor holds texts.
        """
        if self.datatype == "BYTES":
            raise InputError(f"input '{self.name}' must be of an integer type", param=self.name)
        return [int(value) for value in self.values]


def read_tensors(header: Mapping[str, Any], raw: bytes) -> dict[str, InputTensor]:
    """Read all inputs of a request.

    Args:
        header: The JSON of the request's body.
        raw: The bytes behind the JSON: tensors in the order of those inputs that say how many bytes they have.

    Returns:
        The inputs by their names.

    Raises:
        InputError: An input is not what the protocol says; names it.
        BodyFormatError: Sizes do not fit the bytes.
    """
    items = header.get("inputs")
    if not isinstance(items, list) or not items:
        raise InputError("'inputs' must be a list of at least one tensor", param="inputs")
    tensors: dict[str, InputTensor] = {}
    start = 0
    for index, item in enumerate(items):
        name, datatype, shape = _description(item, index)
        size_bytes = _binary_size_bytes(item, name)
        if size_bytes is None:
            values = _from_json(item.get("data"), name, datatype)
        else:
            if size_bytes > len(raw) - start:
                raise BodyFormatError(f"input '{name}' is longer than what follows the JSON")
            values = _from_bytes(raw[start : start + size_bytes], name, datatype)
            start += size_bytes
        if math.prod(shape) != len(values):
            raise InputError(
                f"input '{name}' has {len(values)} elements, its shape says {math.prod(shape)}",
                param=name,
            )
        tensors[name] = InputTensor(name, datatype, shape, values)
    if start != len(raw):
        raise BodyFormatError(f"{len(raw) - start} bytes behind the last tensor")
    return tensors


def _description(item: Any, index: int) -> tuple[str, str, tuple[int, ...]]:  # noqa: ANN401 - JSON is of any type
    """Return the name, datatype and shape of an input.

    Raises:
        InputError: One of them is missing or wrong.
    """
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str):
        raise InputError("each input needs a 'name'", param="inputs", input_index=index)
    datatype, shape = item.get("datatype"), item.get("shape")
    if datatype != "BYTES" and datatype not in INTEGERS:
        raise InputError(f"input '{name}' must be of datatype BYTES or an integer type", param=name)
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_AXES:
        raise InputError(f"input '{name}' needs a 'shape'", param=name)
    sizes = [as_integer(size) for size in shape]
    if any(size is None or size < 0 for size in sizes):
        raise InputError(f"the shape of input '{name}' must be of integers", param=name)
    return name, str(datatype), tuple(size for size in sizes if size is not None)


def _binary_size_bytes(item: Mapping[str, Any], name: str) -> int | None:
    """Return how many raw bytes an input has behind the JSON; None for one whose elements are in the JSON.

    Raises:
        BodyFormatError: `binary_data_size` is no integer of 0 or more.
    """
    parameters = item.get("parameters") or {}
    value = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if value is None:
        return None
    size_bytes = as_integer(value)
    if size_bytes is None or size_bytes < 0:
        raise BodyFormatError(f"binary_data_size of input '{name}' must be an integer of 0 or more")
    return size_bytes


def _from_json(data: Any, name: str, datatype: str) -> list[str] | list[int]:  # noqa: ANN401 - JSON is of any type
    """Return the elements of nested or flat lists, row-major.

    Raises:
        InputError: `data` is no list, or an element of another type.
    """
    if not isinstance(data, list):
        raise InputError(f"input '{name}' needs 'data', a list", param=name)
    flat = data
    for _ in range(MAX_AXES - 1):
        if not flat or not all(isinstance(item, list) for item in flat):
            break
        flat = [part for item in flat for part in item]
    if datatype == "BYTES":
        texts = [item for item in flat if isinstance(item, str)]
        if len(texts) != len(flat):
            raise InputError(f"data of input '{name}' must be strings", param=name)
        return texts
    numbers = [as_integer(item) for item in flat]
    integers = [number for number in numbers if number is not None]
    if len(integers) != len(flat):
        raise InputError(f"data of input '{name}' must be integers", param=name)
    return integers


def _from_bytes(raw: bytes, name: str, datatype: str) -> list[str] | list[int]:
    """Return the elements of a tensor's raw bytes; text that is not UTF-8 gets replacement characters.

    Raises:
        BodyFormatError: The bytes are no whole number of elements.
    """
    if datatype != "BYTES":
        dtype = np.dtype(INTEGERS[datatype])
        if len(raw) % dtype.itemsize:
            raise BodyFormatError(f"the bytes of input '{name}' are no whole elements")
        numbers: list[int] = np.frombuffer(raw, dtype).tolist()
        return numbers
    texts = []
    offset = 0
    while offset < len(raw):
        if offset + ELEMENT_LENGTH.size > len(raw):
            raise BodyFormatError(f"the bytes of input '{name}' end within a length")
        (length,) = ELEMENT_LENGTH.unpack_from(raw, offset)
        offset += ELEMENT_LENGTH.size
        if offset + length > len(raw):
            raise BodyFormatError(f"an element of input '{name}' is longer than the tensor")
        text = raw[offset : offset + length].decode("utf-8", "replace")
        texts.append(replace_lone_surrogates(text))
        offset += length
    return texts
