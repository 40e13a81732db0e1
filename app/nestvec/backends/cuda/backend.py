"""Runs batches on a device in fixed memory: two are in flight at a time, small ones are launched as CUDA graphs."""

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Semaphore
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.binding import (
    DeviceBindings,
    StagingBuffers,
    begin_copy_in,
    bound_bytes,
)
from nestvec.backends.cuda.cuda_graphs import CudaGraph, GraphCapturer, run_dummy
from nestvec.backends.cuda.device_thread import DeviceThread
from nestvec.backends.cuda.layout.arrays import Feeds
from nestvec.backends.cuda.layout.graph_adapter import GraphAdapter, OutputSlice
from nestvec.backends.cuda.layout.memory_estimate import MemoryEstimate, estimate_memory
from nestvec.backends.cuda.layout.packed_adapter import PackedAdapter
from nestvec.backends.cuda.layout.padded_adapter import PaddedAdapter
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.backends.cuda.session import SIZES, DeviceSession, OpenSession
from nestvec.engine.backend import BackendInfo, DeviceOptions
from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import BackendMemoryError, FormatError, ModelMemoryError

log = logging.getLogger(__name__)

# The device computes one batch while the next is copied to it; a worker that has a third ready waits.
MAX_BATCHES_IN_FLIGHT: Final = 2
# What cuBLAS, kernels and buffers take beside weights and the arena; on a small device at most a fourth of the rest.
WORKSPACE_BYTES: Final = 512 * 2**20
WORKSPACE_DIVISOR: Final = 4
# File names that `export/device_graph.py` gives; the backends do not import the exporter.
WEIGHTS: Final = "weights.bin"
EXIT_GRAPH: Final = "exit_{}.onnx"
# Memory is reserved for this many tokens at least: probes and lone long inputs are not cut by the scheduler's budget.
MIN_RESERVED_TOKENS: Final = 8192


class DeviceBackend:
    """Runs one graph, and those of its early exits, on a device, for all workers.

    Args:
        path: A graph as `export/device_graph.py` makes it, the graphs of its exits beside it, or one that others made.
        thread: The device's thread.
        open_session: Opens graphs on the device.
        options: Sizes of batches.
        layout: Packed for graphs that Nestvec exports, padded for others.

    Raises:
        FormatError: The graph cannot be opened, or is not one for a device.
        ModelMemoryError: It does not fit.
        ProviderError: The device cannot be used.
        BackendError: It fails on its first runs.
    """

    def __init__(
        self,
        path: Path,
        thread: DeviceThread,
        open_session: OpenSession,
        options: DeviceOptions,
        layout: Layout = Layout.PACKED,
    ) -> None:
        self._path, self._thread, self._options = path, thread, options
        self._open_session = open_session
        self._owner = f"{path}#{id(self)}"
        self._turns = Semaphore(MAX_BATCHES_IN_FLIGHT)
        self._staging = deque(StagingBuffers(thread) for _ in range(MAX_BATCHES_IN_FLIGHT))
        # By number of the exit; 0 is the whole graph.
        self._sessions: dict[int, DeviceSession] = {}
        self._graphs: dict[Shape, CudaGraph] = {}
        self._adapter: GraphAdapter
        self._estimate: MemoryEstimate
        self._weight_bytes = _weight_bytes(path)
        self._reserve_and_set_up(layout)
        self.info = BackendInfo(
            layout,
            thread.device.kind,
            hidden_size=self._adapter.hidden_size,
            gives_tokens=self._adapter.gives_tokens,
            layers=self._adapter.layers,
            pooling=self._adapter.pooling,
            max_cost=self._estimate.max_tokens,
        )

    @property
    def captured_shapes(self) -> tuple[Shape, ...]:
        """Shapes that have a CUDA graph, rising."""
        return tuple(self._graphs)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch of these lengths, (B,), int64, in token equivalents, as the graph's adapter does."""
        return self._adapter.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch and wait for it; gives vectors where they are all that is wanted, else token states.

        Raises:
            BackendError: The runtime failed.
            BackendMemoryError: The batch does not fit into memory.
            BackendLostError: The device is gone.
        """
        layer = batch.exits[-1] if batch.exits and batch.exits[-1] < self.info.layers else 0
        captured = None if layer else self._adapter.captured_shape(batch.lengths, self._graphs)
        shape = captured or self._adapter.uncaptured_shape(batch.lengths)
        if not self._estimate.holds(shape):
            raise BackendMemoryError("this batch does not fit into the GPU's memory")
        graph = None if captured is None else self._graphs[captured]
        output = self._adapter.output_slice(batch, shape, layer)
        # Before taking a turn: another model may be loading, for which an exit's graph waits.
        session = self._sessions.get(layer) or self._open_exit(layer)
        run = _Run(batch, shape, self._adapter.feeds(batch, shape), output, session, graph)
        with self._turns:
            staging = self._staging.pop()
            try:
                return self._run(run, staging)
            finally:
                self._staging.append(staging)

    def close(self) -> None:
        """Free sessions and memory; no `run` may follow."""
        self._thread.run(self._close)
        self._thread.reservations.release(self._owner)

    def _reserve_and_set_up(self, layout: Layout) -> None:
        """Open the graph with all memory that is left reserved, then release what it will not use.

        How much memory a graph needs shows only when it runs.
        """
        options, reservations = self._options, self._thread.reservations
        with self._thread.opening:
            workspace = min(WORKSPACE_BYTES, reservations.free_bytes // WORKSPACE_DIVISOR)
            needed = self._weight_bytes + workspace
            reserved = reservations.reserve(self._owner, needed, reservations.free_bytes)
            try:
                captured_bytes = self._set_up(reserved - workspace, layout)
            except Exception:
                self.close()
                raise
            max_tokens = max(options.max_batch_tokens, options.max_tokens, MIN_RESERVED_TOKENS)
            batch_bytes = self._estimate.bytes_for(max_tokens)
            limit_bytes = min(self._estimate.limit_bytes - captured_bytes, batch_bytes)
            self._estimate = replace(self._estimate, limit_bytes=limit_bytes)
            wanted = min(reserved, needed + captured_bytes + batch_bytes)
            reservations.release(self._owner)
            reservations.reserve(self._owner, 0, wanted)

    def _set_up(self, limit_bytes: int, layout: Layout) -> int:
        """Open the graph in this thread, measure what a batch takes, and capture CUDA graphs.

        The device's thread runs other models' batches meanwhile, and one batch of these runs between two of those.

        Returns:
            Bytes of the inputs and outputs of CUDA graphs.
        """
        options = self._options
        self._thread.device.select()
        session = self._sessions[0] = self._open(limit_bytes)
        kind = PackedAdapter if layout is Layout.PACKED else PaddedAdapter
        adapter: GraphAdapter = kind.of(
            session.inputs, session.outputs, session.metadata, options.max_tokens
        )
        self._adapter = adapter
        self._bindings = DeviceBindings(self._thread, adapter)
        longest = min(options.max_tokens, options.max_batch_tokens)

        free_bytes: list[int] = []

        def taken_bytes(inputs: int) -> int:
            free_bytes.append(self._thread.device.memory()[0])
            shape = Shape(inputs * longest, inputs, longest)
            run_dummy(session, self._thread, adapter, shape)
            # What a run that failed took is still in the arena; what inputs and outputs lay in has been freed.
            arena_bytes = free_bytes[0] - self._thread.device.memory()[0]
            return arena_bytes + bound_bytes(session, adapter, shape)

        # One job: nobody else's batch runs between the two looks at the memory.
        self._estimate = estimate_memory(
            lambda inputs: self._thread.run(lambda: taken_bytes(inputs)),
            max(limit_bytes - self._weight_bytes, 0),
            longest,
            options.max_batch_tokens,
            is_padded=adapter.is_padded,
            has_pooling_matrix=bool(adapter.pooling),
            page_bytes=adapter.page_bytes,
        )
        max_captured_tokens = min(options.captured_tokens, options.max_batch_tokens)
        shapes = adapter.capture_shapes(max_captured_tokens, options.max_tokens)
        capturer = GraphCapturer(session, self._thread, adapter)
        self._graphs = capturer.capture(shapes, self._estimate.spare_bytes)
        return max((bound_bytes(session, adapter, shape) for shape in self._graphs), default=0)

    def _open(self, limit_bytes: int) -> DeviceSession:
        """Open the whole graph, able to capture if the options ask for it and all its nodes run on the device."""
        if self._options.captured_tokens:
            try:
                return self._open_session(self._path, memory_limit_bytes=limit_bytes, captures=True)
            except FormatError as error:
                log.info("no captured launches for %s: %s", self._path.parent.name, error.message)
        return self._open_session(self._path, memory_limit_bytes=limit_bytes, captures=False)

    def _run(self, run: "_Run", staging: StagingBuffers) -> RawOutput:
        """Make the arrays in the worker's thread; the device's thread begins copies and launches and waits for none."""
        device, output, session = self._thread.device, run.output, run.session
        staged = staging.fill(session, self._adapter, run.shape, run.feeds)
        tensor = session.outputs[output.name]
        value_bytes, columns = SIZES[tensor.dtype], tensor.shape[-1] or self._adapter.hidden_size
        host = staging.output(output.rows * output.columns * value_bytes)

        def begin() -> Any:  # noqa: ANN401 - each runtime has its own kind of event
            if run.graph is not None:
                bindings = run.graph.bindings
                inputs, outputs = run.graph.inputs, run.graph.outputs
            else:
                bindings = self._bindings
                inputs = bindings.bind_inputs(session, staged.layout, run.shape, run.feeds.pages)
                outputs = bindings.bind_outputs(session, [output.name], run.shape)
            bound = begin_copy_in(bindings, inputs, staged)
            session.run(bound, list(outputs.values()), run.graph_number)
            device.copy_out(
                host,
                outputs[output.name].address,
                rows=output.rows,
                width=output.columns * value_bytes,
                pitch=columns * value_bytes,
            )
            return device.record()

        self._thread.wait(self._thread.run(begin))
        values: FloatArray = (
            host.view(tensor.dtype).reshape(output.rows, output.columns).astype(np.float32)
        )
        return self._adapter.raw_output(run.batch, run.shape, values)

    def _open_exit(self, layer: int) -> DeviceSession:
        """Open an exit's graph, as it is asked for the first time, beside the batches of others."""
        with self._thread.opening:
            if layer in self._sessions:
                return self._sessions[layer]
            path = self._path.with_name(EXIT_GRAPH.format(layer))
            share = self._weight_bytes * layer // max(self.info.layers, 1)
            self._thread.device.select()
            try:
                self._thread.reservations.reserve(self._owner, share, share)
                session = self._open_session(path, memory_limit_bytes=0, captures=False)
            except ModelMemoryError as error:
                raise BackendMemoryError("an early exit's graph does not fit as well") from error
            self._sessions[layer] = session
            return session

    def _close(self) -> None:
        for session in self._sessions.values():
            session.close()
        for graph in self._graphs.values():
            graph.bindings.release()
        if hasattr(self, "_bindings"):
            self._bindings.release()


def _weight_bytes(path: Path) -> int:
    """Return the size of a graph's weights: our own lie in one file, those of others anywhere in the graph's folder."""
    weights = path.with_name(WEIGHTS)
    files: Iterable[Path] = [weights] if weights.is_file() else path.parent.glob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


@dataclass(frozen=True, slots=True)
class _Run:
    """A batch that is about to run.

    Attributes:
        batch: The batch.
        shape: Sizes of the run.
        feeds: What the graph is fed.
        output: What is copied to the host.
        session: The graph, or that of the exit.
        graph: The CUDA graph to launch; None for a plain run.
    """

    batch: Batch
    shape: Shape
    feeds: Feeds
    output: OutputSlice
    session: DeviceSession
    graph: CudaGraph | None

    @property
    def graph_number(self) -> int | None:
        """The session's number for the CUDA graph; None for a plain run."""
        return None if self.graph is None else self.graph.number
