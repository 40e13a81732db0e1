"""Input tensors of the Open Inference Protocol v2: in JSON, or as raw bytes behind it (the binary tensor extension).

Source: the KServe v2 protocol and Triton's `extension_binary_data.md`.
"""

import codecs
import itertools
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.api.requests.fields import as_integer, as_integers
from nestvec.errors import BodyFormatError, InputError

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
# Inputs that mean something number about ten: texts by one of their names, options, ids and their mask.
MAX_TENSORS: Final = 16
# How much of a text is decoded at a time.
DECODED_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input of a request.

    Attributes:
        name: The name that the request gives it.
        datatype: "BYTES", or one of `INTEGERS`.
        shape: The size of each axis.
        values: The elements, row-major: texts for BYTES, otherwise integers, (n,).
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[str] | NDArray[Any]

    @property
    def texts(self) -> list[str]:
        """The elements of a BYTES tensor.

        Raises:
            InputError: The tensor holds integers.
        """
        if not isinstance(self.values, list):
            raise InputError(f"input '{self.name}' must be of datatype BYTES", param=self.name)
        return self.values

    @property
    def integers(self) -> NDArray[Any]:
        """The elements of a tensor of integers, in its shape.

        Raises:
            InputError: The tensor holds texts.
        """
        if isinstance(self.values, list):
            raise InputError(f"input '{self.name}' must be of an integer type", param=self.name)
        return self.values.reshape(self.shape)


def read_tensors(
    header: Mapping[str, Any], raw: bytes, *, check_count: Callable[[int], None]
) -> dict[str, InputTensor]:
    """Read all inputs of a request.

    Args:
        header: The JSON of the request's body.
        raw: The bytes behind the JSON: tensors in the order of those inputs that say how many bytes they have.
        check_count: Raises for more texts, or more rows of integers, than a request may have; called for each tensor
            before any of its elements is read.

    Returns:
        The inputs by their names.

    Raises:
        InputError: An input is not what the protocol says; names it.
        RequestTooLargeError: There are too many inputs.
        BodyFormatError: Sizes do not fit the bytes.
    """
    items = header.get("inputs")
    if not isinstance(items, list) or not items:
        raise InputError("'inputs' must be a list of at least one tensor", param="inputs")
    if len(items) > MAX_TENSORS:
        raise InputError(
            f"'inputs' holds {len(items)} tensors, max {MAX_TENSORS}; texts go into one tensor",
            param="inputs",
        )
    tensors: dict[str, InputTensor] = {}
    start = 0
    for index, item in enumerate(items):
        name, datatype, shape = _description(item, index)
        elements = math.prod(shape)
        check_count(elements if datatype == "BYTES" or len(shape) == 1 else shape[0])
        size_bytes = _binary_size_bytes(item, name)
        values: list[str] | NDArray[Any]
        if size_bytes is None:
            values = _from_json(item.get("data"), name, datatype, elements)
        else:
            if size_bytes > len(raw) - start:
                raise BodyFormatError(f"input '{name}' is longer than what follows the JSON")
            part = memoryview(raw)[start : start + size_bytes]
            if datatype == "BYTES":
                values = _texts_from_bytes(part, name, elements)
            else:
                values = _integers_from_bytes(part, name, datatype)
            start += size_bytes
        if elements != len(values):
            raise _wrong_count(name, str(len(values)), elements)
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


def _from_json(
    data: Any,  # noqa: ANN401 - JSON is of any type
    name: str,
    datatype: str,
    elements: int,
) -> list[str] | NDArray[Any]:
    """Return the elements of nested or flat lists, row-major.

    Raises:
        InputError: `data` is no list of as many elements as the shape says, or an element is of another type.
    """
    if not isinstance(data, list):
        raise InputError(f"input '{name}' needs 'data', a list", param=name)
    flat = data
    for _ in range(MAX_AXES - 1):
        if set(map(type, flat)) != {list}:
            break
        flat = list(itertools.chain.from_iterable(flat))
    if len(flat) != elements:
        raise _wrong_count(name, str(len(flat)), elements)
    kinds = set(map(type, flat))
    if datatype == "BYTES":
        if kinds - {str}:
            raise InputError(f"data of input '{name}' must be strings", param=name)
        return flat
    numbers = as_integers(flat)
    if numbers is None:
        raise InputError(f"data of input '{name}' must be integers", param=name)
    return numbers


def _integers_from_bytes(raw: memoryview, name: str, datatype: str) -> NDArray[Any]:
    """Return the elements of a tensor's raw bytes, which are not copied.

    Raises:
        BodyFormatError: The bytes are no whole number of elements.
    """
    dtype = np.dtype(INTEGERS[datatype])
    if len(raw) % dtype.itemsize:
        raise BodyFormatError(f"the bytes of input '{name}' are no whole elements")
    return np.frombuffer(raw, dtype)


def _texts_from_bytes(raw: memoryview, name: str, elements: int) -> list[str]:
    """Return the texts of a tensor's raw bytes; what is not UTF-8 gets replacement characters.

    Raises:
        InputError: There are more elements than the shape says; no more of them are read.
        BodyFormatError: The bytes are no whole number of elements.
    """
    texts: list[str] = []
    offset = 0
    while offset < len(raw):
        if len(texts) == elements:
            raise _wrong_count(name, f"more than {elements}", elements)
        if offset + ELEMENT_LENGTH.size > len(raw):
            raise BodyFormatError(f"the bytes of input '{name}' end within a length")
        (length,) = ELEMENT_LENGTH.unpack_from(raw, offset)
        offset += ELEMENT_LENGTH.size
        if offset + length > len(raw):
            raise BodyFormatError(f"an element of input '{name}' is longer than the tensor")
        texts.append(_decoded(raw[offset : offset + length]))
        offset += length
    return texts


def _decoded(raw: memoryview) -> str:
    """Decode UTF-8 in slices: where much of it is invalid, each byte takes a tenth of a microsecond."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [
        decoder.decode(bytes(raw[start : start + DECODED_BYTES]))
        for start in range(0, len(raw), DECODED_BYTES)
    ]
    return "".join([*pieces, decoder.decode(b"", final=True)])


def _wrong_count(name: str, count: str, elements: int) -> InputError:
    return InputError(f"input '{name}' has {count} elements, its shape says {elements}", param=name)
