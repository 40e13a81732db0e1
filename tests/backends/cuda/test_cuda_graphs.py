"""Which sizes are captured as CUDA graphs, and in which memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nestvec.backends.cuda.binding import bound_bytes
from nestvec.backends.cuda.cuda_graphs import GraphCapturer, launch_bound
from nestvec.backends.cuda.layout.packed_adapter import PackedAdapter
from nestvec.backends.cuda.layout.shapes import buckets
from nestvec.backends.cuda.onnx_session import OnnxDeviceSession
from nestvec.backends.cuda.session import BoundTensor
from nestvec.errors import BackendError
from typing_extensions import override

from tests.backends.cuda.emulation import emulate
from tests.backends.cuda.host_device import HostDevice, host_thread, open_emulated
from tests.backends.cuda.test_backend import FP32, OPTIONS, exported

SHAPES = buckets(64, 40)


class Failing(OnnxDeviceSession):
    """A session that cannot capture from a number on."""

    failing_number = 99

    @override
    def run(
        self,
        inputs: Sequence[BoundTensor],
        outputs: Sequence[BoundTensor],
        graph_number: int | None = None,
    ) -> None:
        """Run, or fail as a runtime does that cannot capture."""
        if graph_number is not None and graph_number >= self.failing_number:
            raise BackendError("cannot capture")
        super().run(inputs, outputs, graph_number)


def capturer(folder: Path, device: HostDevice) -> GraphCapturer:
    """Open a tiny BERT's graph, whose launches may be captured."""
    path = emulate(exported(folder, FP32))
    session = Failing(path, device, memory_limit_bytes=0, captures=True)
    adapter = PackedAdapter.of(session.inputs, session.outputs, session.metadata, 40)
    return GraphCapturer(session, host_thread(device), adapter)


def test_sizes_are_captured_while_starting_kernels_takes_most_of_the_time() -> None:
    """From the first on whose plain run takes twice the time of the fastest, none is."""
    seconds = {shape: 1.0 + 0.5 * (shape.tokens >= 64) for shape in SHAPES}
    assert launch_bound(SHAPES, seconds.__getitem__) == SHAPES
    seconds[SHAPES[2]] = 2.1
    assert launch_bound(SHAPES, seconds.__getitem__) == SHAPES[:2]
    assert launch_bound([], seconds.__getitem__) == []


def test_all_sizes_lie_in_the_same_memory(tmp_path: Path) -> None:
    """Runs follow one another on one stream, so the largest size's memory is enough for all."""
    device = HostDevice()
    graphs = capturer(tmp_path, device)
    captured = graphs.capture(SHAPES, 10**9)
    assert list(captured) == SHAPES
    addresses = {
        next(bound.address for bound in graph.inputs.values() if not bound.is_on_host)
        for graph in captured.values()
    }
    assert len(addresses) == 1
    assert device.allocated == bound_bytes(graphs.session, graphs.adapter, SHAPES[-1])


def test_only_sizes_for_which_there_is_room_are_captured(tmp_path: Path) -> None:
    """What batches need comes first."""
    device = HostDevice()
    graphs = capturer(tmp_path, device)
    room = bound_bytes(graphs.session, graphs.adapter, SHAPES[1])
    assert list(graphs.capture(SHAPES, room)) == SHAPES[:2]
    assert device.allocated <= room


def test_a_capture_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither the memory of its own size nor that of others stays taken."""
    device = HostDevice()
    graphs = capturer(tmp_path, device)
    graphs.session.failing_number = 2  # type: ignore[attr-defined] # `Failing`
    assert graphs.capture(SHAPES, 10**9) == {}
    assert device.allocated == 0


def test_memory_of_captured_sizes_is_reserved(tmp_path: Path) -> None:
    """Another model is promised only what is really left."""
    path = exported(tmp_path, FP32)
    reserved: list[int] = []
    for captured_tokens in (0, 64):
        thread = host_thread(HostDevice(total=2**40), limit_bytes=2**38)
        backend = open_emulated(path, replace(OPTIONS, captured_tokens=captured_tokens), thread)
        reserved.append(thread.reservations.limit_bytes - thread.reservations.free_bytes)
        expected = tuple(SHAPES) if captured_tokens else ()
        assert backend.captured_shapes == expected
        backend.close()
    assert reserved[1] > reserved[0]
