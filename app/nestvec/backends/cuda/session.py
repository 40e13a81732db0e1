"""What the device backend needs of a runtime's session over a graph; `onnx_backend.py` has the one there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# ONNX's number of bfloat16, which numpy lacks; other types go by numpy's names.
BFLOAT16 = "bfloat16"
SIZES: Mapping[str, int] = {
    "int64": 8,
    "int32": 4,
    "float32": 4,
    "float16": 2,
    BFLOAT16: 2,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a graph.

    Attributes:
        dtype: A key of `SIZES`.
        shape: Numbers, and None where a run decides.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """Memory for a tensor in one run.

    Attributes:
        address: Of it.
        shape: In this run.
        is_on_host: Whether it is in the host's memory.
    """

    tensor: Tensor
    address: int
    shape: tuple[int, ...]
    is_on_host: bool = False


class DeviceSession(Protocol):
    """A graph on a device; called from the device's thread only."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """What it takes."""

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """What it gives."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the graph says of itself."""

    @property
    def captures(self) -> bool:
        """Whether runs can be captured."""

    def run(
        self, inputs: Sequence[Bound], outputs: Sequence[Bound], graph_number: int | None = None
    ) -> None:
        """Begin a run on the device's stream.

        Args:
            inputs: All that the graph takes.
            outputs: What is wanted.
            graph_number: Capture this run under a number, from 1; or start what was captured under it, whose memory
                must be the same. None for a plain run.

        Raises:
            BackendError: The runtime failed; of memory, or for good, by its kinds.
        """

    def close(self) -> None:
        """Free it."""


class OpenSession(Protocol):
    """Opens a graph on a device."""

    def __call__(self, path: Path, *, memory_limit: int, captures: bool) -> DeviceSession:
        """Open it.

        Args:
            path: The graph.
            memory_limit: Bytes that its arena may take; 0 for no bound.
            captures: Whether runs are to be captured.

        Raises:
            FormatError: It cannot be opened.
            ProviderError: The device cannot be used.
        """
