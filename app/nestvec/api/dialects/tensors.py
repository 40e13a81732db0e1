"""Tensors of the Open Inference Protocol v2: in JSON, or as raw bytes behind it (the binary tensor extension).

Source: the KServe v2 protocol and Triton's `extension_binary_data.md` (api-contract 6.3 and 6.4).
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

LENGTH: Final = struct.Struct("<I")  # before each element of a BYTES tensor
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
MOST_AXES: Final = 4


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input.

    Attributes:
        datatype: "BYTES", or one of `INTEGERS`.
        values: Row-major; texts for BYTES, else integers.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[str] | Sequence[int]

    @property
    def texts(self) -> list[str]:
        """Of a BYTES tensor.

        Raises:
            InputError: It holds numbers.
        """
        if self.datatype != "BYTES":
            raise InputError(f"input '{self.name}' must be of datatype BYTES", param=self.name)
        return [str(value) for value in self.values]

    @property
    def integers(self) -> list[int]:
        """Of any other.

        Raises:
            InputError: It holds texts.
        """
        if self.datatype == "BYTES":
            raise InputError(f"input '{self.name}' must be of an integer type", param=self.name)
        return [int(value) for value in self.values]


def read_tensors(head: Mapping[str, Any], tail: bytes) -> dict[str, Tensor]:
    """Read all inputs of a request.

    Args:
        head: Its JSON.
        tail: The raw tensors behind it, in the order of those inputs that say how many bytes they have.

    Raises:
        InputError: An input is not what the protocol says; names it.
        BodyFormatError: Sizes do not fit the bytes.
    """
    given = head.get("inputs")
    if not isinstance(given, list) or not given:
        raise InputError("'inputs' must be a list of at least one tensor", param="inputs")
    found: dict[str, Tensor] = {}
    start = 0
    for index, one in enumerate(given):
        name, datatype, shape = _described(one, index)
        size = _binary_size(one, name)
        if size is None:
            values = _from_json(one.get("data"), name, datatype)
        else:
            if size > len(tail) - start:
                raise BodyFormatError(f"input '{name}' is longer than what follows the JSON")
            values = _from_bytes(tail[start : start + size], name, datatype)
            start += size
        if math.prod(shape) != len(values):
            raise InputError(
                f"input '{name}' has {len(values)} elements, its shape says {math.prod(shape)}",
                param=name,
            )
        found[name] = Tensor(name, datatype, shape, values)
    if start != len(tail):
        raise BodyFormatError(f"{len(tail) - start} bytes behind the last tensor")
    return found


def _described(one: Any, index: int) -> tuple[str, str, tuple[int, ...]]:  # noqa: ANN401 - JSON is of any type
    name = one.get("name") if isinstance(one, dict) else None
    if not isinstance(name, str):
        raise InputError("each input needs a 'name'", param="inputs", input_index=index)
    datatype, shape = one.get("datatype"), one.get("shape")
    if datatype != "BYTES" and datatype not in INTEGERS:
        raise InputError(f"input '{name}' must be of datatype BYTES or an integer type", param=name)
    if not isinstance(shape, list) or not 1 <= len(shape) <= MOST_AXES:
        raise InputError(f"input '{name}' needs a 'shape'", param=name)
    sizes = [as_integer(size) for size in shape]
    if any(size is None or size < 0 for size in sizes):
        raise InputError(f"the shape of input '{name}' must be of integers", param=name)
    return name, str(datatype), tuple(size for size in sizes if size is not None)


def _binary_size(one: Mapping[str, Any], name: str) -> int | None:
    parameters = one.get("parameters") or {}
    given = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if given is None:
        return None
    size = as_integer(given)
    if size is None or size < 0:
        raise BodyFormatError(f"binary_data_size of input '{name}' must be an integer of 0 or more")
    return size


def _from_json(data: Any, name: str, datatype: str) -> list[str] | list[int]:  # noqa: ANN401 - JSON is of any type
    """Elements of nested or flat lists, row-major."""
    if not isinstance(data, list):
        raise InputError(f"input '{name}' needs 'data', a list", param=name)
    flat = data
    for _ in range(MOST_AXES - 1):
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
    if datatype != "BYTES":
        dtype = np.dtype(INTEGERS[datatype])
        if len(raw) % dtype.itemsize:
            raise BodyFormatError(f"the bytes of input '{name}' are no whole elements")
        numbers: list[int] = np.frombuffer(raw, dtype).tolist()
        return numbers
    texts = []
    place = 0
    while place < len(raw):
        if place + LENGTH.size > len(raw):
            raise BodyFormatError(f"the bytes of input '{name}' end within a length")
        (length,) = LENGTH.unpack_from(raw, place)
        place += LENGTH.size
        if place + length > len(raw):
            raise BodyFormatError(f"an element of input '{name}' is longer than the tensor")
        text = raw[place : place + length].decode("utf-8", "replace")
        texts.append(replace_lone_surrogates(text))
        place += length
    return texts
