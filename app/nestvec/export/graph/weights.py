"""Reads a checkpoint's files, single or sharded, and checks names, shapes and values."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.config.quantization import Quantization, read_quantization
from nestvec.export.graph.dequantization import SCALES, ZERO_POINT, dequantized, is_quantized
from nestvec.export.graph.tensor_files import TensorFile, open_tensors
from nestvec.export.graph.types import Float32Array
from nestvec.system.json_files import load_json, read_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# The same in torch's own format, read where there are no safetensors.
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
# Where `torch.nn.utils.parametrize` keeps the tensor that a weight is computed from.
PARAMETRIZED = ".parametrizations.weight.original"


def weight_files(folder: Path, *, reads_pickles: bool = True) -> tuple[Path, ...]:
    """List a folder's files of weights; empty if it has none.

    Safetensors are taken before torch's own files, and a single file before an index, as transformers does: an index
    beside it is one that was left there.

    Args:
        folder: The model's folder, or a module's.
        reads_pickles: Whether torch's own files count.

    Raises:
        FormatError: An index is broken, or names a file outside the folder, a missing one or one of another kind.
    """
    files = _files(folder, SINGLE_FILE, INDEX_FILE)
    if files or not reads_pickles:
        return files
    return _files(folder, PICKLE_FILE, PICKLE_INDEX_FILE)


def _files(folder: Path, single: str, index: str) -> tuple[Path, ...]:
    """List the files of one kind: the single one, else those of the index."""
    if (folder / single).is_file():
        return (folder / single,)
    path = folder / index
    if not path.is_file():
        return ()
    names = shard_names(path)
    for name in names:
        if not _is_file_in(folder, name):
            shown = str(name)[:100]
            raise FormatError(f"{path}: names '{shown}', which is not a file of this folder")
        if Path(name).suffix != Path(single).suffix:
            raise FormatError(
                f"{path}: names '{name[:100]}', which is no {Path(single).suffix} file"
            )
    return tuple(folder / name for name in names)


def shard_names(index: Path) -> tuple[str, ...]:
    """Read the names of the files that an index lists; they are as untrusted as the file.

    Raises:
        FormatError: It is not an index.
    """
    try:
        names = set(load_json(index.read_text("utf-8"))["weight_map"].values())
        return tuple(sorted(names))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise FormatError(f"{index}: not an index of weights") from error


def _is_file_in(folder: Path, name: object) -> bool:
    """Whether an untrusted name is that of a file that lies directly in a folder."""
    if not isinstance(name, str) or Path(name).name != name:
        return False
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, or no name that a file could have
        return False


class Weights:
    """A model's tensors by name, each read when it is asked for.

    Args:
        folder: Holds `model.safetensors` or its shards, or else `pytorch_model.bin` or its.
        files: Read these files instead.
        on_tensor: Called with 1 for each tensor that was read.

    Raises:
        FormatError: There are no such files, or they are corrupt.
    """

    def __init__(
        self,
        folder: Path,
        files: tuple[Path, ...] = (),
        on_tensor: Callable[[int], None] | None = None,
    ) -> None:
        self._folder = folder
        self._on_tensor = on_tensor
        self._files: list[TensorFile] = []
        self._file_of: dict[str, TensorFile] = {}
        files = files or weight_files(folder)
        if not files:
            raise FormatError(f"{folder}: no {SINGLE_FILE} and no {PICKLE_FILE}")
        try:
            for path in files:
                file = open_tensors(path)
                self._files.append(file)
                self._file_of.update(dict.fromkeys(file.names(), file))
        except FormatError:
            self._close()
            raise
        # Weights that torch computes from others (Jina's adapters) are read as they are before that computation.
        self._stored_names = {
            plain_name(name): name for name in self._file_of if PARAMETRIZED in name
        }

    def __enter__(self) -> Self:
        """Return the open tensors."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._close()

    def _close(self) -> None:
        for file in self._files:
            file.close()

    def __contains__(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._file_of or name in self._stored_names

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, as the files spell them."""
        return tuple(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, read from the file's header.

        Raises:
            FormatError: The tensor is missing, or is a scalar.
        """
        stored_name = self._stored_name(name)
        shape = self._file_of[stored_name].shape(stored_name)
        if not shape:
            raise FormatError(f"{self._folder}: tensor '{name}' is a single number")
        return shape

    def raw(self, name: str) -> NDArray[Any]:
        """Read a tensor in its own dtype.

        Raises:
            FormatError: The tensor is missing or unreadable.
        """
        stored_name = self._stored_name(name)
        tensor = self._file_of[stored_name].read(stored_name)
        if self._on_tensor is not None:
            self._on_tensor(1)
        return tensor

    def row(self, name: str, row: int) -> Float32Array:
        """Read one row of a matrix as float32, and no other.

        Raises:
            FormatError: The tensor is missing, is no matrix, has no such row or is quantised; or the row holds values
                that are not finite.
        """
        stored_name = self._stored_name(name)
        shape = self.shape(name)
        if len(shape) != 2 or not 0 <= row < shape[0]:  # noqa: PLR2004 - rows and columns
            raise FormatError(f"{self._folder}: tensor '{name}' of shape {shape} has no row {row}")
        stored = self._file_of[stored_name].read_row(stored_name, row)
        values: Float32Array = stored.astype(np.float32)
        if is_quantized(stored):
            raise FormatError(f"{self._folder}: tensor '{name}' is quantised, and is read by rows")
        if not np.isfinite(values).all():
            raise FormatError(f"{self._folder}: tensor '{name}' holds NaN or infinity")
        return values

    def _stored_name(self, name: str) -> str:
        """The name under which a file has a tensor.

        Raises:
            FormatError: The tensor is missing.
        """
        if name in self._file_of:
            return name
        if name not in self._stored_names:
            raise FormatError(f"{self._folder}: tensor '{name}' is missing")
        return self._stored_names[name]

    def get(self, name: str, shape: tuple[int, ...]) -> Float32Array:
        """Read a tensor as float32; one that is stored in 8 bits is multiplied by its scale.

        Args:
            name: The tensor's name in the file.
            shape: The shape that the configuration promises.

        Raises:
            FormatError: The tensor is missing, has another shape, or holds values that are not finite floats; or it is
                quantised and its scale does not fit.
        """
        tensor = self.raw(name)
        if tensor.shape != shape:
            raise FormatError(
                f"{self._folder}: tensor '{name}' has shape {tensor.shape}, the configuration says {shape}"
            )
        values = self._floats(name, tensor)
        if not np.isfinite(values).all():
            raise FormatError(f"{self._folder}: tensor '{name}' holds NaN or infinity")
        return values

    def _floats(self, name: str, tensor: NDArray[Any]) -> Float32Array:
        """Return a tensor's values as float32, by its scale where it has one.

        Raises:
            FormatError: The scale is missing, though config.json says that weights are quantised, or does not fit.
        """
        # What float32 cannot hold becomes infinity, which is refused.
        with np.errstate(over="ignore"):
            plain: Float32Array = tensor.astype(np.float32)
        if not is_quantized(tensor):
            return plain
        quantization = self._quantization
        scale_name = next((name + end for end in SCALES if name + end in self), None)
        if scale_name is None and quantization is not None:
            raise FormatError(
                f"{self._folder}: tensor '{name}' is {tensor.dtype} and has no '{name}{SCALES[0]}', though config.json "
                "has 'quantization_config'"
            )
        if scale_name is None:
            return plain
        scale = self.raw(scale_name).astype(np.float32)
        zero_name = name + ZERO_POINT
        zero_point = self.raw(zero_name) if zero_name in self else None
        block = quantization.block if quantization is not None else None
        values = dequantized(tensor, scale, zero_point, block)
        if values is None:
            raise FormatError(
                f"{self._folder}: tensor '{scale_name}' has shape {scale.shape}, which does not fit '{name}' of shape "
                f"{tensor.shape} (blocks by config.json: {block})"
            )
        return values

    @cached_property
    def _quantization(self) -> Quantization | None:
        """What the folder's config.json says of its weights; None where it says nothing."""
        path = self._folder / "config.json"
        return read_quantization(read_json(path)) if path.is_file() else None


def plain_name(name: str) -> str:
    """The name of the weight that torch computes from a tensor kept under `PARAMETRIZED`."""
    return name.replace(PARAMETRIZED, ".weight")


def common_prefix(weights: Weights, probe: str, prefixes: tuple[str, ...]) -> str:
    """The prefix under which a checkpoint keeps its tensors ("", "bert.", …).

    Args:
        weights: The checkpoint.
        probe: A tensor that every checkpoint of the family has, without prefix.
        prefixes: Prefixes to try, in order.

    Raises:
        FormatError: `probe` exists under none of them.
    """
    for prefix in prefixes:
        if prefix + probe in weights:
            return prefix
    raise FormatError(f"no tensor '{probe}' under any of the prefixes {list(prefixes)}")
