"""Writes a table of vectors as safetensors, a chunk at a time: its size is known when all of it is written."""

import json
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray

# Before the numbers: a length of 8 bytes and a header, which blanks fill up. Source: the format's own page,
# https://huggingface.co/docs/safetensors.
START_BYTES: Final = 1024
TABLE: Final = "embeddings"
WEIGHTS: Final = "weights"


class SafetensorsWriter:
    """A `model.safetensors` in the making.

    Args:
        path: The file.
        dimensions: Columns of the table.

    Raises:
        OSError: The disk is full or read-only, here and in all methods.
    """

    def __init__(self, path: Path, dimensions: int) -> None:
        self._path = path
        self._dimensions = dimensions
        self._file = path.open("wb")
        self._file.write(bytes(START_BYTES))
        self.rows = 0

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

    def append(self, rows: FloatArray) -> None:
        """Write further rows, (n, D), float32."""
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
        self.rows += len(rows)

    def table(self) -> NDArray[np.float32]:
        """Return what was written, mapped: changes go to the file, and memory can be taken back at any time."""
        self._file.flush()
        shape = (self.rows, self._dimensions)
        return np.memmap(self._path, "<f4", "r+", START_BYTES, shape)

    def finish(self, weights: FloatArray | None) -> None:
        """Write the header, and a weight for each row, (rows,), where there are any."""
        size = 4 * self.rows * self._dimensions
        header: dict[str, Any] = {
            TABLE: _entry([self.rows, self._dimensions], 0, size),
        }
        if weights is not None:
            self._file.write(np.ascontiguousarray(weights, "<f4").data)
            header[WEIGHTS] = _entry([len(weights)], size, size + 4 * len(weights))
        content = json.dumps(header, separators=(",", ":")).encode()
        self._file.seek(0)
        self._file.write(struct.pack("<Q", START_BYTES - 8) + content.ljust(START_BYTES - 8))
        self._file.flush()


def _entry(shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}
