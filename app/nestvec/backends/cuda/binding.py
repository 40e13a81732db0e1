"""Where a graph's inputs and outputs lie in a run of some shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Final, Self

import numpy as np

from nestvec.backends.cuda.arrays import BOUNDS, Array, Feeds
from nestvec.backends.cuda.buffers import Bytes, DeviceBuffer, HostBuffer, rounded
from nestvec.backends.cuda.device_thread import DeviceLine
from nestvec.backends.cuda.graph_adapter import Plan
from nestvec.backends.cuda.session import SIZES, Bound, DeviceSession
from nestvec.backends.cuda.shapes import Shape

BLOCK: Final = "inputs"


@dataclass(frozen=True, slots=True)
class Packing:
    """Inputs of a run side by side in one block, so that one copy brings them all.

    Attributes:
        offsets: Of each that is copied.
        size: Of the block, in bytes.
    """

    offsets: Mapping[str, int]
    size: int

    @classmethod
    def of(cls, session: DeviceSession, plan: Plan, shape: Shape) -> Self:
        """Where each lies."""
        offsets, size = {}, 0
        for name, tensor in session.inputs.items():
            if plan.is_fed(name) and name != BOUNDS:
                offsets[name] = size
                size += rounded(prod(plan.shape_of(name, shape, 0)) * SIZES[tensor.dtype])
        return cls(offsets, size)


@dataclass(slots=True)
class Binder:
    """Device memory for the inputs and outputs of runs that follow one another on the stream.

    Attributes:
        line: To the device whose memory it is.
        plan: Of the graph.
    """

    line: DeviceLine
    plan: Plan
    _buffers: dict[str, DeviceBuffer] = field(default_factory=dict)
    _bounds: HostBuffer | None = None

    def inputs(
        self, session: DeviceSession, packing: Packing, shape: Shape, pages: int
    ) -> dict[str, Bound]:
        """Memory for what a run takes; the host's own inputs have no address yet.

        Args:
            session: The graph.
            packing: Of the shape.
            shape: Of the run.
            pages: That its inputs take.

        Raises:
            BackendMemoryError: There is none.
        """
        block = self._address(BLOCK, packing.size)
        found = {}
        for name, tensor in session.inputs.items():
            size = self.plan.shape_of(name, shape, pages)
            if name in packing.offsets:
                address = block + packing.offsets[name]
            elif name == BOUNDS:
                address = 0
            else:
                address = self._address(name, prod(size) * SIZES[tensor.dtype])
            found[name] = Bound(tensor, address, size, is_on_host=name == BOUNDS)
        return found

    def keep(self, bounds: Array) -> int:
        """Address of the host's own input, read while a run is begun: always the same, as captured runs ask."""
        self._bounds = self._bounds or HostBuffer(self.line.pinned)
        return self._bounds.holding(bounds).ctypes.data

    def block(self) -> int:
        """Address of the inputs that are copied, as bound last."""
        return self._buffers[BLOCK].address

    def outputs(
        self, session: DeviceSession, names: Sequence[str], shape: Shape
    ) -> dict[str, Bound]:
        """Memory for outputs that are wanted.

        Raises:
            BackendMemoryError: There is none.
        """
        found = {}
        for name in names:
            tensor = session.outputs[name]
            size = self.plan.output_shape(name, shape)
            found[name] = Bound(tensor, self._address(name, prod(size) * SIZES[tensor.dtype]), size)
        return found

    def release(self) -> None:
        """Give all of it back."""
        for buffer in self._buffers.values():
            buffer.release()

    def _address(self, name: str, size: int) -> int:
        return self._buffers.setdefault(name, DeviceBuffer(self.line.device)).at_least(size)


@dataclass(slots=True)
class Stage:
    """The host's side of one batch under way: page-locked arrays, until their copies are done.

    Attributes:
        line: To the device that copies from and to them.
    """

    line: DeviceLine
    _inputs: HostBuffer | None = None
    _output: HostBuffer | None = None

    def fill(self, session: DeviceSession, plan: Plan, shape: Shape, made: Feeds) -> "Filled":
        """Make the arrays of a batch."""
        packing = Packing.of(session, plan, shape)
        self._inputs = self._inputs or HostBuffer(self.line.pinned)
        block = self._inputs.view(packing.size)
        for name, offset in packing.offsets.items():
            values = np.ascontiguousarray(made[name], session.inputs[name].dtype)
            block[offset : offset + values.nbytes] = values.reshape(-1).view(np.uint8)
        return Filled(packing, block, made[BOUNDS] if BOUNDS in session.inputs else None)

    def output(self, size: int) -> Bytes:
        """Where results go."""
        self._output = self._output or HostBuffer(self.line.pinned)
        return self._output.view(size)


@dataclass(frozen=True, slots=True)
class Filled:
    """Inputs of a batch on the host.

    Attributes:
        packing: Where each lies in the block.
        block: Those that are copied.
        bounds: The one that stays, if it is wanted.
    """

    packing: Packing
    block: Bytes
    bounds: Array | None


def copied_in(memory: Binder, inputs: Mapping[str, Bound], filled: Filled) -> list[Bound]:
    """Begin to copy what was filled; gives the inputs as a run takes them."""
    memory.line.device.copy_in(memory.block(), filled.block)
    if filled.bounds is None:
        return list(inputs.values())
    address = memory.keep(filled.bounds)
    return [
        replace(bound, address=address) if bound.is_on_host else bound for bound in inputs.values()
    ]
