"""Writes files as `torch.save` does, without torch; and such as it never would."""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

STORAGES: Final = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
START: Final = b"\x80\x02"
MAPPING: Final = b"ccollections\nOrderedDict\n)R"
TENSOR: Final = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text_op(text: str) -> bytes:
    """The instruction for a text."""
    content = text.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def int_op(number: int) -> bytes:
    """The instruction for a number."""
    if 0 <= number < 2**31:
        return b"J" + struct.pack("<i", number)
    content = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def tuple_op(*parts: bytes) -> bytes:
    """The instructions for a tuple."""
    return b"(" + b"".join(parts) + b"t"


def storage_op(key: str, dtype: str, elements: int) -> bytes:
    """The instructions for an array in a file of the archive."""
    kind = f"ctorch\n{STORAGES[dtype]}\n".encode()
    parts = text_op("storage"), kind, text_op(key), text_op("cpu"), int_op(elements)
    return tuple_op(*parts) + b"Q"


def tensor_op(
    storage: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    """The instructions for a tensor that is a view of an array."""
    sizes, steps = (tuple_op(*map(int_op, values)) for values in (shape, strides))
    return TENSOR + tuple_op(storage, int_op(offset), sizes, steps, b"\x89", MAPPING) + b"R"


def state_pickle(tensors: Mapping[str, bytes]) -> bytes:
    """The pickle of a dictionary of tensors, of the instructions for each."""
    pairs = b"".join(text_op(name) + tensor for name, tensor in tensors.items())
    return START + MAPPING + b"(" + pairs + b"u}" + text_op("_metadata") + MAPPING + b"sb."


def archive(
    pickle: bytes,
    arrays: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    more: Mapping[str, bytes] | None = None,
) -> bytes:
    """The archive that holds a pickle and the bytes of arrays by their keys."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as packed:
        packed.writestr("archive/data.pkl", pickle)
        for key, content in arrays.items():
            packed.writestr(f"archive/data/{key}", content)
        for name, content in (more or {}).items():
            packed.writestr(f"archive/{name}", content)
    return file.getvalue()


def torch_bytes(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The file that `torch.save` would write of these tensors."""
    parts, arrays = {}, {}
    for key, (name, tensor) in enumerate(tensors.items()):
        values = np.ascontiguousarray(tensor)
        steps = tuple(step // values.itemsize for step in values.strides)
        storage = storage_op(str(key), str(values.dtype), values.size)
        parts[name] = tensor_op(storage, values.shape, steps)
        arrays[str(key)] = values.tobytes()
    return archive(state_pickle(parts), arrays, more={"version": b"3\n", "byteorder": b"little"})


def save_torch(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write tensors as torch does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(torch_bytes(tensors))
