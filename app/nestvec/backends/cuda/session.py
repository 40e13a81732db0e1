"""What the device backend needs of a runtime's session over a graph; `onnx_session.py` has the one that there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# ONNX's bfloat16, which numpy lacks; other types go by numpy's names.
BFLOAT16 = "bfloat16"
# Bytes of a value, by its type.
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
        name: Its name in the graph.
        dtype: Type of its values, a key of `SIZES`.
        shape: Its sizes, None where each run decides.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class BoundTensor:
    """The memory of a tensor in one run.

    Attributes:
        tensor: The graph's input or output.
        address: Where its values lie.
        shape: Its sizes in this run.
        is_on_host: Whether the address is in the host's memory.
    """

    tensor: Tensor
    address: int
    shape: tuple[int, ...]
    is_on_host: bool = False


class DeviceSession(Protocol):
    """A graph on a device; called from the device's thread only."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """The graph's inputs by name."""

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """The graph's outputs by name."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """The graph's metadata properties."""

    @property
    def captures(self) -> bool:
        """Whether runs can be captured as CUDA graphs."""

    def run(
        self,
        inputs: Sequence[BoundTensor],
        outputs: Sequence[BoundTensor],
        graph_number: int | None = None,
    ) -> None:
        """Begin a run on the device's stream.

        Args:
            inputs: All that the graph takes.
            outputs: Those outputs that are wanted.
            graph_number: Capture this run as a CUDA graph under this number, from 1; or launch the one captured under
                it, whose memory must be the same. None for a plain run.

        Raises:
            BackendError: The runtime failed; its subclasses say whether memory was short or the device is gone.
        """

    def close(self) -> None:
        """Free the session."""


class OpenSession(Protocol):
    """Opens a graph on a device."""

    def __call__(self, path: Path, *, memory_limit_bytes: int, captures: bool) -> DeviceSession:
        """Open a graph.

        Args:
            path: The graph's file.
            memory_limit_bytes: What its arena may take; 0 for no bound.
            captures: Whether runs are to be captured as CUDA graphs.

        Raises:
            FormatError: It cannot be opened.
            ProviderError: The device cannot be used.
        """
