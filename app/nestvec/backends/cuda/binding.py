"""Where a graph's inputs and outputs lie in memory in a run of some shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Final, Self

import numpy as np

from nestvec.backends.cuda.buffers import ByteArray, DeviceBuffer, HostBuffer, rounded_up
from nestvec.backends.cuda.device_thread import DeviceThread
from nestvec.backends.cuda.layout.arrays import BOUNDS, Array, Feeds
from nestvec.backends.cuda.layout.graph_adapter import GraphAdapter
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.backends.cuda.session import SIZES, BoundTensor, DeviceSession

BLOCK: Final = "inputs"


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How the inputs of a run lie side by side in one block, so that one copy brings them all.

    Attributes:
        offsets: Where each input that is copied begins in the block, in bytes.
        size: Number of bytes of the block.
    """

    offsets: Mapping[str, int]
    size: int

    @classmethod
    def of(cls, session: DeviceSession, adapter: GraphAdapter, shape: Shape) -> Self:
        """Lay out the inputs of a graph in a run of a shape."""
        offsets, size = {}, 0
        for name, tensor in session.inputs.items():
            if adapter.is_copied(name) and name != BOUNDS:
                offsets[name] = size
                size += rounded_up(prod(adapter.input_shape(name, shape, 0)) * SIZES[tensor.dtype])
        return cls(offsets, size)


def bound_bytes(session: DeviceSession, adapter: GraphAdapter, shape: Shape) -> int:
    """Return how much device memory the inputs and outputs of a graph take in a run of a shape."""
    layout = BlockLayout.of(session, adapter, shape)
    sizes = [layout.size]
    for name, tensor in session.inputs.items():
        if name not in layout.offsets and name != BOUNDS:
            dimensions = adapter.input_shape(name, shape, adapter.max_pages(shape))
            sizes.append(prod(dimensions) * SIZES[tensor.dtype])
    sizes += [
        prod(adapter.output_shape(name, shape)) * SIZES[session.outputs[name].dtype]
        for name in adapter.outputs
    ]
    return sum(rounded_up(size) for size in sizes)


@dataclass(slots=True)
class DeviceBindings:
    """Device memory for the inputs and outputs of runs that follow one another on the stream.

    Attributes:
        thread: Thread of the device whose memory it is.
        adapter: Knows the graph's inputs and outputs.
    """

    thread: DeviceThread
    adapter: GraphAdapter
    _buffers: dict[str, DeviceBuffer] = field(default_factory=dict)
    _bounds: HostBuffer | None = None

    def bind_inputs(
        self, session: DeviceSession, layout: BlockLayout, shape: Shape, pages: int
    ) -> dict[str, BoundTensor]:
        """Bind all inputs of a run to memory; the input that stays on the host has no address yet.

        Args:
            session: The graph.
            layout: Where copied inputs lie in their block, for this shape.
            shape: Sizes of the run.
            pages: Number of pages that its inputs take.

        Raises:
            BackendMemoryError: There is not enough memory.
        """
        block = self._address(BLOCK, layout.size)
        bound = {}
        for name, tensor in session.inputs.items():
            sizes = self.adapter.input_shape(name, shape, pages)
            if name in layout.offsets:
                address = block + layout.offsets[name]
            elif name == BOUNDS:
                address = 0
            else:
                address = self._address(name, prod(sizes) * SIZES[tensor.dtype])
            bound[name] = BoundTensor(tensor, address, sizes, is_on_host=name == BOUNDS)
        return bound

    def bind_outputs(
        self, session: DeviceSession, names: Sequence[str], shape: Shape
    ) -> dict[str, BoundTensor]:
        """Bind the outputs that are wanted to memory.

        Raises:
            BackendMemoryError: There is not enough memory.
        """
        bound = {}
        for name in names:
            tensor = session.outputs[name]
            sizes = self.adapter.output_shape(name, shape)
            address = self._address(name, prod(sizes) * SIZES[tensor.dtype])
            bound[name] = BoundTensor(tensor, address, sizes)
        return bound

    def keep_bounds(self, bounds: Array) -> int:
        """Copy the host's own input to where runs read it, and return the address.

        The input is read while a run is begun. Its address is always the same, as CUDA graphs require.
        """
        self._bounds = self._bounds or HostBuffer(self.thread.pinned)
        return self._bounds.holding(bounds).ctypes.data

    def block_address(self) -> int:
        """Return the address of the block of copied inputs, as bound last."""
        return self._buffers[BLOCK].address

    def release(self) -> None:
        """Free all of the memory."""
        for buffer in self._buffers.values():
            buffer.release()

    def _address(self, name: str, size: int) -> int:
        return self._buffers.setdefault(name, DeviceBuffer(self.thread.device)).at_least(size)


@dataclass(frozen=True, slots=True)
class StagedInputs:
    """The inputs of a batch in the host's memory, ready to be copied.

    Attributes:
        layout: Where each input lies in the block.
        block: The inputs that are copied, page-locked.
        bounds: The input that stays on the host; None where the graph has none.
    """

    layout: BlockLayout
    block: ByteArray
    bounds: Array | None


@dataclass(slots=True)
class StagingBuffers:
    """Page-locked host memory of one batch in flight, in use until its copies are done.

    Attributes:
        thread: Thread of the device that copies from and to the memory.
    """

    thread: DeviceThread
    _inputs: HostBuffer | None = None
    _output: HostBuffer | None = None

    def fill(
        self, session: DeviceSession, adapter: GraphAdapter, shape: Shape, feeds: Feeds
    ) -> StagedInputs:
        """Make the arrays of a batch in the block."""
        layout = BlockLayout.of(session, adapter, shape)
        self._inputs = self._inputs or HostBuffer(self.thread.pinned)
        block = self._inputs.view(layout.size)
        for name, offset in layout.offsets.items():
            values = np.ascontiguousarray(feeds[name], session.inputs[name].dtype)
            block[offset : offset + values.nbytes] = values.reshape(-1).view(np.uint8)
        return StagedInputs(layout, block, feeds[BOUNDS] if BOUNDS in session.inputs else None)

    def output(self, size: int) -> ByteArray:
        """Return so many bytes to which results are copied."""
        self._output = self._output or HostBuffer(self.thread.pinned)
        return self._output.view(size)


def begin_copy_in(
    bindings: DeviceBindings, inputs: Mapping[str, BoundTensor], staged: StagedInputs
) -> list[BoundTensor]:
    """Begin to copy staged inputs to the device, and return the inputs as a run takes them."""
    bindings.thread.device.copy_in(bindings.block_address(), staged.block)
    if staged.bounds is None:
        return list(inputs.values())
    address = bindings.keep_bounds(staged.bounds)
    return [
        replace(bound, address=address) if bound.is_on_host else bound for bound in inputs.values()
    ]
