"""CUDA graphs of small sizes: the launches of a run are captured once and then started as one."""

import logging
from dataclasses import dataclass
from typing import Final

from nestvec.backends.cuda.binding import (
    BlockLayout,
    DeviceBindings,
    StagingBuffers,
    begin_copy_in,
)
from nestvec.backends.cuda.device_thread import DeviceThread
from nestvec.backends.cuda.layout.graph_adapter import GraphAdapter
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.backends.cuda.session import BoundTensor, DeviceSession
from nestvec.errors import BackendError, BackendLostError, BackendMemoryError

log = logging.getLogger(__name__)

# The first run captures the graph, the second shows that it can be launched again.
CAPTURE_RUNS: Final = 2


@dataclass(frozen=True, slots=True)
class CudaGraph:
    """A captured run of one shape, with memory of its own that never moves.

    Attributes:
        number: The session's number for it, from 1.
        inputs: Memory from which it reads, by input.
        outputs: Memory to which it writes, by output.
        bindings: Owner of that memory.
    """

    number: int
    inputs: dict[str, BoundTensor]
    outputs: dict[str, BoundTensor]
    bindings: DeviceBindings


def capture_graphs(
    session: DeviceSession,
    thread: DeviceThread,
    adapter: GraphAdapter,
    *,
    max_tokens: int,
    longest: int,
) -> dict[Shape, CudaGraph]:
    """Capture a graph's small shapes; must be called in the device's thread.

    Args:
        session: The graph.
        thread: The device's thread.
        adapter: Knows the graph's inputs and outputs.
        max_tokens: Number of tokens of the largest shape.
        longest: Most tokens of an input.

    Returns:
        CUDA graphs by shape, rising; none where the runtime cannot capture, and fewer where memory runs out.

    Raises:
        BackendLostError: The device is gone.
    """
    graphs: dict[Shape, CudaGraph] = {}
    if not session.captures or adapter.waits_for_host:
        return graphs
    try:
        for number, shape in enumerate(adapter.capture_shapes(max_tokens, longest), start=1):
            bindings = DeviceBindings(thread, adapter)
            outputs = bindings.bind_outputs(session, adapter.outputs, shape)
            layout = BlockLayout.of(session, adapter, shape)
            inputs = bindings.bind_inputs(session, layout, shape, adapter.max_pages(shape))
            graph = CudaGraph(number, inputs, outputs, bindings)
            with thread.exclusive():
                for _ in range(CAPTURE_RUNS):
                    run_dummy(session, thread, adapter, shape, graph)
            graphs[shape] = graph
    except BackendLostError:
        raise
    except BackendMemoryError:
        log.info("no memory for more than %d captured sizes", len(graphs))
    except BackendError as error:
        log.warning("captured launches are off: %s", error.__cause__ or error)
        for graph in graphs.values():
            graph.bindings.release()
        return {}
    return graphs


def run_dummy(
    session: DeviceSession,
    thread: DeviceThread,
    adapter: GraphAdapter,
    shape: Shape,
    graph: CudaGraph | None = None,
) -> None:
    """Run a full batch of meaningless inputs and wait for it; must be called in the device's thread.

    Args:
        session: The graph.
        thread: The device's thread.
        adapter: Knows the graph's inputs and outputs.
        shape: Sizes of the run.
        graph: The CUDA graph to capture or to launch; None for a plain run.

    Raises:
        BackendError: The runtime failed.
    """
    feeds = adapter.dummy_feeds(shape)
    staged = StagingBuffers(thread).fill(session, adapter, shape, feeds)
    if graph is not None:
        bound = begin_copy_in(graph.bindings, graph.inputs, staged)
        session.run(bound, list(graph.outputs.values()), graph.number)
        thread.device.wait(thread.device.record())
        return
    bindings = DeviceBindings(thread, adapter)
    try:
        inputs = bindings.bind_inputs(session, staged.layout, shape, feeds.pages)
        bound = begin_copy_in(bindings, inputs, staged)
        outputs = bindings.bind_outputs(session, adapter.outputs, shape)
        session.run(bound, list(outputs.values()))
        thread.device.wait(thread.device.record())
    finally:
        bindings.release()
