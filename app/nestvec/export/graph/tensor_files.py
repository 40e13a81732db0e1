"""Files of tensors, each read when it is asked for: safetensors, and the zip archives that `torch.save` writes.

Source: https://huggingface.co/docs/safetensors; torch's `caffe2/serialize/inline_container.h`, section "File format".
"""

import io
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy, which safetensors looks up by name
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.graph.dequantization import FLOAT8, read_float8
from nestvec.export.graph.torch_pickle import MAX_PICKLE_BYTES, StoredTensor, read_state

SAFETENSORS: Final = ".safetensors"
PICKLES: Final = (".bin", ".pt")
PICKLE: Final = "data.pkl"
ZIP_SIGNATURE: Final = b"PK\x03\x04"
BIG_ENDIAN: Final = b"big"
POINTER: Final = b"version https://git-lfs"
# The fixed part of what stands before a file of an archive; the lengths of its name and of its extra field end it.
LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
# The list of an archive's files: 100 bytes each, of 400 in a large checkpoint.
MAX_LIST_BYTES: Final = 4 * 2**20
WAY_OUT: Final = (
    "write it as safetensors, in a venv with torch and safetensors: "
    '`save_file({name: tensor.contiguous().clone() for name, tensor in torch.load(FILE, map_location="cpu", '
    'weights_only=True).items()}, "model.safetensors")`'
)


class TensorFile(Protocol):
    """An open file of tensors."""

    def names(self) -> Sequence[str]:
        """Names of its tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one of its tensors."""

    def read(self, name: str) -> NDArray[Any]:
        """Read one of its tensors in its own dtype.

        Raises:
            FormatError: It cannot be read.
        """

    def read_row(self, name: str, row: int) -> NDArray[Any]:
        """Read one row of one of its matrices, which has as many, in its own dtype.

        Raises:
            FormatError: It cannot be read.
        """

    def close(self) -> None:
        """Close the file."""


def open_tensors(path: Path) -> TensorFile:
    """Open a file of tensors.

    Raises:
        FormatError: It is corrupt or unreadable.
    """
    return TorchCheckpoint(path) if is_pickle(path) else SafetensorsFile(path)


def is_pickle(path: Path) -> bool:
    """Whether a file is read as torch writes it, by its name."""
    return path.suffix in PICKLES


class SafetensorsFile:
    """A safetensors file.

    Args:
        path: The file.

    Raises:
        FormatError: It is corrupt or unreadable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            opened: Any = safe_open(str(path), framework="numpy")  # its stubs name no types
            self._file = opened.__enter__()
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{path}: corrupt or unreadable ({error})") from error

    def names(self) -> Sequence[str]:
        """Names of its tensors."""
        return tuple(self._file.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one of its tensors, read from the header."""
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str) -> NDArray[Any]:
        """Read one of its tensors in its own dtype.

        Raises:
            FormatError: It cannot be read.
        """
        try:
            if self._file.get_slice(name).get_dtype() in FLOAT8:
                return read_float8(self._path, name)
            tensor: NDArray[Any] = self._file.get_tensor(name)
        except (SafetensorError, TypeError, ValueError) as error:
            raise FormatError(f"{self._path}: tensor '{name}' is unreadable ({error})") from error
        return tensor

    def read_row(self, name: str, row: int) -> NDArray[Any]:
        """Read one row of one of its matrices in its own dtype.

        Raises:
            FormatError: It cannot be read.
        """
        try:
            values: NDArray[Any] = self._file.get_slice(name)[row : row + 1][0]
        except (SafetensorError, TypeError, ValueError) as error:
            raise FormatError(f"{self._path}: tensor '{name}' is unreadable ({error})") from error
        return values

    def close(self) -> None:
        """Close the file."""
        self._file.__exit__(None, None, None)


class TorchCheckpoint:
    """A dictionary of tensors as `torch.save` writes it: mapped, so that a tensor takes memory when it is used.

    No code of the file runs, and none of torch is needed: `torch_pickle` reads the pickle in it. Its files are stored
    as they are, so that none is larger than the archive: a packed one is refused.

    Args:
        path: The file.

    Raises:
        FormatError: It is corrupt, unreadable, of torch's format before version 1.6, or more than a dictionary of
            tensors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._bytes = _mapped(path)
            self._places = _stored_files(path)
            self._prefix = _prefix(self._places)
            self._tensors = self._read_state()
        except FormatError as error:
            raise FormatError(f"{path}: {error.message}") from error
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: corrupt or unreadable ({error})") from error

    def names(self) -> Sequence[str]:
        """Names of its tensors."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one of its tensors."""
        return self._tensors[name].shape

    def read(self, name: str) -> NDArray[Any]:
        """Return a view of one of its tensors in its own dtype, which is read when it is used and cannot be written."""
        tensor = self._tensors[name]
        dtype = np.dtype(tensor.array.dtype)
        content = self._content(self._key(tensor))
        steps = [step * dtype.itemsize for step in tensor.strides]
        return np.ndarray(tensor.shape, dtype, content.data, tensor.offset * dtype.itemsize, steps)

    def read_row(self, name: str, row: int) -> NDArray[Any]:
        """Return a view of one row of one of its matrices in its own dtype."""
        values: NDArray[Any] = self.read(name)[row]
        return values

    def close(self) -> None:
        """Leave the file; it is unmapped once no view of it is left."""
        self._bytes = np.zeros(0, np.uint8)

    def _read_state(self) -> dict[str, StoredTensor]:
        """Read which tensors there are, and check that their values are all there."""
        order = f"{self._prefix}byteorder"
        if order in self._places and self._content(order)[:3].tobytes() == BIG_ENDIAN:
            raise FormatError(f"written by a machine that stores numbers the other way; {WAY_OUT}")
        state = self._content(self._prefix + PICKLE)
        if len(state) > MAX_PICKLE_BYTES:
            raise FormatError(f"{PICKLE} has {len(state)} bytes, max {MAX_PICKLE_BYTES}")
        tensors = read_state(state.tobytes())
        for name, tensor in tensors.items():
            self._check(name, tensor)
        return tensors

    def _key(self, tensor: StoredTensor) -> str:
        return f"{self._prefix}data/{tensor.array.key}"

    def _check(self, name: str, tensor: StoredTensor) -> None:
        """Refuse a tensor whose array is missing, beyond the file's end or not as large as it is said to be."""
        place = self._places.get(self._key(tensor))
        if place is None:
            raise FormatError(f"tensor '{name}' has no values in the archive")
        wanted = tensor.array.elements * np.dtype(tensor.array.dtype).itemsize
        if place[1] != wanted:
            raise FormatError(f"tensor '{name}' has {place[1]} bytes of values, not {wanted}")
        self._content(self._key(tensor))

    def _content(self, name: str) -> NDArray[np.uint8]:
        """A view of one of the archive's files."""
        header_at, size = self._places[name]
        header = self._bytes[header_at : header_at + LOCAL_HEADER.size].tobytes()
        if len(header) < LOCAL_HEADER.size:
            raise FormatError("its list of files points beyond its end")
        signature, name_length, extra_length = LOCAL_HEADER.unpack(header)
        start = header_at + LOCAL_HEADER.size + name_length + extra_length
        if signature != ZIP_SIGNATURE or start + size > len(self._bytes):
            raise FormatError("its list of files points beyond its end, or at none of them")
        return self._bytes[start : start + size]


def _mapped(path: Path) -> NDArray[np.uint8]:
    """Map a file that begins as torch's archives do.

    Raises:
        FormatError: It is another file.
    """
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if not start.startswith(ZIP_SIGNATURE):
        raise FormatError(_other_format(start))
    return np.memmap(path, np.uint8, mode="r")


class _BoundedFile(io.FileIO):
    """A file of which nobody reads more at once than the list of an archive's files may have."""

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        """Read as asked; all that is left where nothing is.

        Raises:
            FormatError: That is more than the list may have.
        """
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MAX_LIST_BYTES:
            raise FormatError(f"its list of files has over {MAX_LIST_BYTES} bytes")
        return super().read(wanted) or b""


def _stored_files(path: Path) -> dict[str, tuple[int, int]]:
    """List an archive's files: where the header of each is, and its size.

    Raises:
        FormatError: The list is damaged or too long, or a file is packed or encrypted, which torch's never are.
    """
    places = {}
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                is_plain = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
                if not is_plain or entry.compress_size != entry.file_size:
                    raise FormatError("a file in it is packed, as torch writes none")
                places[entry.filename] = (entry.header_offset, entry.file_size)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, OverflowError) as error:
        raise FormatError(f"not a readable archive ({error})") from error
    return places


def _prefix(places: Mapping[str, object]) -> str:
    """Return the folder in an archive that holds its files, with the slash.

    Raises:
        FormatError: There is none, or it holds a program (TorchScript).
    """
    found = [name for name in places if name.count("/") == 1 and name.endswith(f"/{PICKLE}")]
    if len(found) != 1:
        raise FormatError(f"an archive without one {PICKLE}: not written by torch.save")
    prefix = found[0].removesuffix(PICKLE)
    if f"{prefix}constants.pkl" in places:
        raise FormatError("a TorchScript program, which is never run; its weights alone would do")
    return prefix


def _other_format(start: bytes) -> str:
    """Say what a file is that begins otherwise than torch's archives, and the way out."""
    if start.startswith(POINTER):
        return "a Git LFS pointer, not the file itself: `git lfs pull` fetches it"
    return f"not an archive as torch writes it since version 1.6, and older ones are not read; {WAY_OUT}"
