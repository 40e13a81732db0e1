"""Reads safetensors files, one or sharded, with checks on names and shapes."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy, which safetensors looks up by name
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from nestvec.errors import FormatError
from nestvec.system.json_text import load_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PARAMETRIZED = ".parametrizations.weight.original"


def weight_files(folder: Path) -> tuple[Path, ...]:
    """List a folder's safetensors files; empty where it has none.

    Raises:
        FormatError: The index is broken, or names a file outside the folder or a missing one.
    """
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            names = sorted(set(load_json(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise FormatError(f"{index}: not a safetensors index") from error
        for name in names:
            if not _is_file_of(folder, name):
                shown = str(name)[:100]
                raise FormatError(f"{index}: names '{shown}', which is not a file of this folder")
        return tuple(folder / name for name in names)
    single = folder / SINGLE_FILE
    return (single,) if single.is_file() else ()


def _is_file_of(folder: Path, name: object) -> bool:
    """Whether a name that others wrote is that of a file in a folder itself."""
    if not isinstance(name, str) or Path(name).name != name:
        return False
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, or no name that a file could have
        return False


class Weights:
    """Tensors of a model by name, read when asked for.

    Args:
        folder: Holds `model.safetensors` or its shards.
        files: Read these instead.

    Raises:
        FormatError: There are no such files, or they are corrupt.
    """

    def __init__(self, folder: Path, files: tuple[Path, ...] = ()) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._where: dict[str, Any] = {}
        files = files or weight_files(folder)
        if not files:
            raise FormatError(f"{folder}: no {SINGLE_FILE} (pickled weights are never read)")
        for file in files:
            try:
                opened = self._stack.enter_context(safe_open(str(file), framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise FormatError(f"{file}: corrupt or unreadable ({error})") from error
            self._where.update(dict.fromkeys(opened.keys(), opened))
        # Weights that torch derives from others (Jina's adapters) are taken as they are before that.
        self._stored = {plain_name(name): name for name in self._where if PARAMETRIZED in name}

    def __enter__(self) -> Self:
        """Keep the files open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self._where or name in self._stored

    def names(self) -> tuple[str, ...]:
        """Of every tensor, as the files have them."""
        return tuple(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, as the file says.

        Raises:
            FormatError: It is missing, or has no axis.
        """
        stored = self._name(name)
        found = tuple(self._where[stored].get_slice(stored).get_shape())
        if not found:
            raise FormatError(f"{self._folder}: tensor '{name}' is a single number")
        return found

    def raw(self, name: str) -> NDArray[Any]:
        """Read a tensor in its own dtype.

        Raises:
            FormatError: It is missing or unreadable.
        """
        stored = self._name(name)
        try:
            found: NDArray[Any] = self._where[stored].get_tensor(stored)
        except (SafetensorError, TypeError, ValueError) as error:
            raise FormatError(f"{self._folder}: tensor '{name}' is unreadable ({error})") from error
        return found

    def _name(self, name: str) -> str:
        """Under which a tensor is stored.

        Raises:
            FormatError: There is none.
        """
        if name in self._where:
            return name
        if name not in self._stored:
            raise FormatError(f"{self._folder}: tensor '{name}' is missing")
        return self._stored[name]

    def get(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Read a tensor as float32.

        Args:
            name: As in the file.
            shape: What the configuration promises.

        Raises:
            FormatError: The tensor is missing, of another shape, or holds no finite floats.
        """
        tensor = self.raw(name)
        if tensor.shape != shape:
            raise FormatError(
                f"{self._folder}: tensor '{name}' has shape {tensor.shape}, the configuration says {shape}"
            )
        found: NDArray[np.float32] = tensor.astype(np.float32)
        if not np.isfinite(found).all():
            raise FormatError(f"{self._folder}: tensor '{name}' holds NaN or infinity")
        return found


def plain_name(name: str) -> str:
    """Of a tensor that torch keeps under `PARAMETRIZED`, the name of what it derives."""
    return name.replace(PARAMETRIZED, ".weight")


def common_prefix(weights: Weights, probe: str, prefixes: tuple[str, ...]) -> str:
    """The prefix under which a checkpoint keeps its tensors ("", "bert.", …).

    Raises:
        FormatError: `probe` exists under none of them.
    """
    for prefix in prefixes:
        if prefix + probe in weights:
            return prefix
    raise FormatError(f"no tensor '{probe}' under any of the prefixes {list(prefixes)}")
