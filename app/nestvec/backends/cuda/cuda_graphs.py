"""CUDA graphs of small sizes: the launches of a run are captured once and then started as one.

That pays where starting kernels takes longer than computing them, which depends on the card and the model: so sizes are
timed, and those kept that are faster as CUDA graphs even for the smallest batch that is padded to them.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nestvec.backends.cuda.binding import (
    BlockLayout,
    DeviceBindings,
    StagingBuffers,
    begin_copy_in,
    bound_bytes,
)
from nestvec.backends.cuda.device_thread import DeviceThread
from nestvec.backends.cuda.layout.graph_adapter import GraphAdapter
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.backends.cuda.session import BoundTensor, DeviceSession
from nestvec.errors import BackendError, BackendLostError, BackendMemoryError

log = logging.getLogger(__name__)

# The first run captures the graph, the second shows that it can be launched again.
CAPTURE_RUNS: Final = 2
# Runs of each size that is timed: the first loads its kernels, the fastest counts.
TIMED_RUNS: Final = 4
# Where a plain run takes so many times as long as one of the smallest size, most of it is computing: launching sooner
# gains little, and padding costs.
MAX_GROWTH: Final = 2.0


@dataclass(frozen=True, slots=True)
class CudaGraph:
    """A captured run of one shape; its memory never moves.

    Attributes:
        number: The session's number for it, from 1.
        inputs: Memory from which it reads, by input.
        outputs: Memory to which it writes, by output.
        bindings: Owner of that memory. All graphs of a session share it, as runs follow one another on one stream.
    """

    number: int
    inputs: dict[str, BoundTensor]
    outputs: dict[str, BoundTensor]
    bindings: DeviceBindings


def launch_bound(shapes: Sequence[Shape], seconds: Callable[[Shape], float]) -> list[Shape]:
    """Return the leading shapes whose plain runs take about as long as the smallest one's: they wait for launches.

    Args:
        shapes: Shapes, rising.
        seconds: Times a plain run.
    """
    found: list[Shape] = []
    least = math.inf
    for shape in shapes:
        took = seconds(shape)
        if took > MAX_GROWTH * least:
            # Once more, as something else may have run meanwhile.
            took = min(took, seconds(shape))
        if took > MAX_GROWTH * least:
            break
        least = min(least, took)
        found.append(shape)
    return found


@dataclass(slots=True)
class GraphCapturer:
    """Captures those of a graph's small shapes that are faster so; other batches may run between any two of them.

    The caller holds `DeviceThread.opening`, and is not in the device's thread.

    Attributes:
        session: The graph.
        thread: The device's thread.
        adapter: Knows the graph's inputs and outputs.
    """

    session: DeviceSession
    thread: DeviceThread
    adapter: GraphAdapter
    _bindings: DeviceBindings = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no memory."""
        self._bindings = DeviceBindings(self.thread, self.adapter)

    def capture(self, shapes: Sequence[Shape], room_bytes: int) -> dict[Shape, CudaGraph]:
        """Capture shapes.

        Args:
            shapes: Shapes, rising.
            room_bytes: What inputs and outputs of all of them together may take.

        Returns:
            CUDA graphs by shape, rising; none where the runtime cannot capture, and fewer where memory runs out.

        Raises:
            BackendLostError: The device is gone.
        """
        graphs: dict[Shape, CudaGraph] = {}
        if not self.session.captures or self.adapter.waits_for_host:
            return graphs
        try:
            self._capture_all(self._candidates(shapes, room_bytes), graphs)
        except BackendLostError:
            raise
        except BackendMemoryError:
            log.info("no memory for more than %d captured sizes", len(graphs))
        except BackendError as error:
            log.warning("captured launches are off: %s", error.__cause__ or error)
            graphs.clear()
        if not graphs:
            self.thread.run(self._bindings.release)
        log.info("%d sizes are captured, of %d", len(graphs), len(shapes))
        return graphs

    @property
    def _is_timed(self) -> bool:
        """Whether times mean anything: only a real device has launches to save."""
        return self.thread.device.kind == "cuda"

    def _candidates(self, shapes: Sequence[Shape], room_bytes: int) -> list[Shape]:
        fitting = [s for s in shapes if bound_bytes(self.session, self.adapter, s) <= room_bytes]
        return launch_bound(fitting, self._seconds) if self._is_timed else fitting

    def _capture_all(self, shapes: Sequence[Shape], graphs: dict[Shape, CudaGraph]) -> None:
        """Capture shapes, rising, until one is slower than a plain run of the smallest batch that it would be for."""
        for shape in reversed(shapes):
            # The largest first: none of the buffers grows, and so moves, after it.
            self.thread.run(partial(self._bind, 0, shape))
        tokens = 1
        for number, shape in enumerate(shapes, start=1):
            graph = self.thread.run(partial(self._capture_one, number, shape))
            if self._is_timed and not self._pays(shape, graph, tokens):
                return
            graphs[shape] = graph
            tokens = shape.tokens + 1

    def _pays(self, shape: Shape, graph: CudaGraph, tokens: int) -> bool:
        """Return whether a batch of so many tokens is not slower padded to a captured shape than run as it is."""
        longest = min(tokens, shape.longest)
        plain = Shape(tokens, -(-tokens // longest), longest)
        # Twice, as something else may have run meanwhile.
        return any(self._seconds(shape, graph) <= self._seconds(plain) for _ in range(2))

    def _bind(self, number: int, shape: Shape) -> CudaGraph:
        session, adapter, bindings = self.session, self.adapter, self._bindings
        outputs = bindings.bind_outputs(session, adapter.outputs, shape)
        layout = BlockLayout.of(session, adapter, shape)
        inputs = bindings.bind_inputs(session, layout, shape, adapter.max_pages(shape))
        return CudaGraph(number, inputs, outputs, bindings)

    def _capture_one(self, number: int, shape: Shape) -> CudaGraph:
        graph = self._bind(number, shape)
        with self.thread.exclusive():
            run_dummy(self.session, self.thread, self.adapter, shape, graph, runs=CAPTURE_RUNS)
        return graph

    def _seconds(self, shape: Shape, graph: CudaGraph | None = None) -> float:
        return self.thread.run(
            lambda: run_dummy(
                self.session, self.thread, self.adapter, shape, graph, runs=TIMED_RUNS
            )
        )


def run_dummy(
    session: DeviceSession,
    thread: DeviceThread,
    adapter: GraphAdapter,
    shape: Shape,
    graph: CudaGraph | None = None,
    *,
    runs: int = 1,
) -> float:
    """Run a full batch of meaningless inputs and wait for it; must be called in the device's thread.

    Args:
        session: The graph.
        thread: The device's thread.
        adapter: Knows the graph's inputs and outputs.
        shape: Sizes of the run.
        graph: The CUDA graph to capture or to launch; None for a plain run.
        runs: How often to run.

    Returns:
        Seconds of the fastest run.

    Raises:
        BackendError: The runtime failed.
    """
    feeds = adapter.dummy_feeds(shape)
    staged = StagingBuffers(thread).fill(session, adapter, shape, feeds)
    own = DeviceBindings(thread, adapter)
    fastest_s = math.inf
    try:
        for _ in range(runs):
            started_s = time.perf_counter()
            if graph is not None:
                bound = begin_copy_in(graph.bindings, graph.inputs, staged)
                session.run(bound, list(graph.outputs.values()), graph.number)
            else:
                inputs = own.bind_inputs(session, staged.layout, shape, feeds.pages)
                bound = begin_copy_in(own, inputs, staged)
                outputs = own.bind_outputs(session, adapter.outputs, shape)
                session.run(bound, list(outputs.values()))
            thread.device.wait(thread.device.record())
            fastest_s = min(fastest_s, time.perf_counter() - started_s)
    finally:
        own.release()
    return fastest_s
