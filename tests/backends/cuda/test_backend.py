"""The device backend on the host's memory: what it copies, in which thread, and how it shares memory."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.device_thread import MemoryReservations
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.backends.cuda.session import DeviceSession
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.core.batch_runner import raw_vectors, run_items
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import ItemOptions, Layout, OutputKind
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import BackendMemoryError, FormatError, ModelMemoryError
from nestvec.export.architectures import export_graph
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.export.graph.builder import FloatType
from typing_extensions import override

from tests.backends.cuda.emulation import emulate
from tests.backends.cuda.host_device import HostDevice, host_thread, open_emulated, opener
from tests.export.families.harness import load
from tests.support.fakes import item

OPTIONS = DeviceOptions(40, 256, captured_tokens=64)
FP32 = DeviceExportOptions(FloatType.FP32)
ITEMS = [item(*range(1, n)) for n in (5, 2, 30, 9)]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A tiny BERT's device graph in float32."""
    return exported(tmp_path, FP32)


def exported(folder: Path, export_options: DeviceExportOptions) -> Path:
    """Export a tiny BERT's device graph into a folder."""
    family = load("bert")
    family.write(folder)
    export_device_graph(folder, family.config, folder / "model.onnx", export_options)
    return folder / "model.onnx"


def all_with(**options: Any) -> list[ItemOptions]:
    """Return the same options for each of `ITEMS`."""
    return [ItemOptions(**options)] * len(ITEMS)


def reference(folder: Path) -> OnnxBackend:
    """Open the same model's graph for the CPU."""
    path = folder / "cpu" / "model.onnx"
    path.parent.mkdir()
    export_graph(folder, load("bert").config, path)
    return OnnxBackend(path, Layout.PACKED, BackendOptions(provider="cpu"))


def test_vectors_pooled_on_the_device_equal_the_hosts(graph: Path) -> None:
    """Inputs alone, together, padded to a captured size or too large for any give the CPU's vectors."""
    backend, cpu = open_emulated(graph, OPTIONS), reference(graph.parent)
    assert backend.info.pooling == "mean"
    assert Shape(64, 8, 40) in backend.captured_shapes or not backend.captured_shapes
    for items in (ITEMS, ITEMS[:1], ITEMS * 6, [replace(ITEMS[2], skip_tokens=7)]):
        vectors = raw_vectors(backend, items, Pooler("mean"))
        expected = raw_vectors(cpu, items, Pooler("mean"))
        np.testing.assert_allclose(vectors, expected, atol=2e-5)
    backend.close()


def test_token_states_leave_it_only_where_they_are_asked_for(graph: Path) -> None:
    """Vectors are B rows, states T; only the wanted columns of a vector are copied, in float16 where that will do."""
    device = HostDevice()
    backend = open_emulated(graph, OPTIONS, host_thread(device))

    def copied(pooler: Pooler | None = None, **options: Any) -> int:
        device.copied_out.clear()
        run_items(backend, ITEMS, pooler or Pooler("mean"), all_with(**options))
        return sum(device.copied_out)

    width = backend.info.hidden_size
    assert copied() == len(ITEMS) * width * 4
    assert copied(columns=8) == len(ITEMS) * 8 * 4
    assert copied(columns=8, is_half=True) == len(ITEMS) * 8 * 2
    tokens = sum(each.tokens for each in ITEMS)
    assert copied(kind=OutputKind.TOKENS) == tokens * width * 4
    assert copied(Pooler("cls")) == tokens * width * 4, "the graph does not have this pooling"
    backend.close()


def test_each_item_of_a_batch_gets_the_columns_that_it_wants(graph: Path) -> None:
    """The batch is cut to the most columns that any item wants, each row then to its own."""
    backend = open_emulated(graph, OPTIONS)
    options = [ItemOptions(columns=4), ItemOptions(columns=8)]
    output = run_items(backend, ITEMS[:2], Pooler("mean"), options)
    whole = run_items(backend, ITEMS[:2], Pooler("mean"))
    assert [row.shape for row in output.rows] == [(1, 4), (1, 8)]
    for cut, full in zip(output.rows, whole.rows, strict=True):
        np.testing.assert_allclose(cut, full[:, : cut.shape[1]], atol=1e-5)
    backend.close()


def test_one_thread_gives_the_device_its_work_and_workers_only_wait(graph: Path) -> None:
    """CUDA graphs belong to a thread; results are the same however many workers run batches at once."""
    device = HostDevice()
    backend = open_emulated(graph, OPTIONS, host_thread(device))
    expected = raw_vectors(backend, ITEMS, Pooler("mean"))
    device.threads.clear()
    barrier = threading.Barrier(4)

    def run(_: int) -> bool:
        barrier.wait(10)
        results = [raw_vectors(backend, ITEMS, Pooler("mean")) for _ in range(20)]
        return all(np.array_equal(vectors, expected) for vectors in results)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))
    assert len(device.threads) == 1
    assert next(iter(device.threads)).startswith("nestvec-device")
    backend.close()


def test_inputs_are_one_copy(graph: Path) -> None:
    """The inputs of a batch lie side by side in page-locked memory, so that one copy brings them all."""
    device = HostDevice()
    backend = open_emulated(graph, OPTIONS, host_thread(device))
    device.copied_in.clear()
    raw_vectors(backend, ITEMS, Pooler("mean"))
    assert len(device.copied_in) == 1
    backend.close()


def test_memory_per_token_is_measured_and_larger_batches_are_refused_before_they_run(
    graph: Path,
) -> None:
    """The core then splits them; what the model does not need is free for other models."""

    class Hungry(HostDevice):
        @override
        def wait(self, event: object) -> None:
            """Grow the arena, as a run does."""
            super().wait(event)
            self.taken = max(self.taken, 240 * 1_000_000)

    device = Hungry(total=2**30)
    thread = host_thread(device, limit_bytes=700_000_000)
    backend = open_emulated(graph, replace(OPTIONS, captured_tokens=0), thread)
    # 240 tokens took 240 MB; with a quarter to spare three quarters of 700 MB hold about 420.
    assert 300 < backend.info.max_cost < 500
    with pytest.raises(BackendMemoryError):
        backend.run(collate([item(*range(30))] * 20, Layout.PACKED))
    backend.close()
    assert thread.reservations.free_bytes == 700_000_000


def test_a_model_leaves_memory_that_it_will_not_use_to_others(graph: Path) -> None:
    """While it opens it reserves all that is left, as how much it needs shows only when it runs."""
    thread = host_thread(HostDevice(total=2**40), limit_bytes=2**38)
    first = open_emulated(graph, OPTIONS, thread)
    left = thread.reservations.free_bytes
    assert 2**37 < left < 2**38
    second = open_emulated(graph, OPTIONS, thread)
    assert thread.reservations.free_bytes < left
    second.close()
    assert thread.reservations.free_bytes == left
    first.close()


def test_a_model_that_does_not_fit_says_so_and_leaves_nothing_behind(graph: Path) -> None:
    """The error says what the model needs and what there is."""
    thread = host_thread(limit_bytes=1000)
    with pytest.raises(ModelMemoryError, match="gpu_memory_utilization"):
        open_emulated(graph, OPTIONS, thread)
    assert thread.reservations.free_bytes == 1000


def test_a_graph_that_is_not_for_a_device_is_refused(graph: Path) -> None:
    """A graph for the CPU takes inputs that the device backend cannot feed."""
    reference(graph.parent)
    thread = host_thread()
    with pytest.raises(FormatError, match="nothing can feed"):
        DeviceBackend(graph.parent / "cpu" / "model.onnx", thread, opener(thread), OPTIONS)
    assert thread.reservations.free_bytes == thread.reservations.limit_bytes


def test_an_exits_graph_is_opened_when_it_is_first_asked_for(tmp_path: Path) -> None:
    """Its vectors are pooled as those of the whole graph are."""
    path = exported(tmp_path, replace(FP32, has_exits=True))
    backend = open_emulated(path, OPTIONS)
    early = raw_vectors(backend, ITEMS, Pooler("mean"), all_with(exits=(1,)))
    both = raw_vectors(backend, ITEMS, Pooler("mean"), all_with(exits=(1, 2)))
    whole = raw_vectors(backend, ITEMS, Pooler("mean"))
    np.testing.assert_allclose(both[0::2], early, atol=1e-6)
    np.testing.assert_allclose(both[1::2], whole, atol=1e-6)
    backend.close()


def test_an_exit_for_which_there_is_no_memory_is_short_memory(tmp_path: Path) -> None:
    """The batch is split or tried again; the input is not at fault."""
    thread = host_thread()
    backend = open_emulated(exported(tmp_path, replace(FP32, has_exits=True)), OPTIONS, thread)
    thread.reservations.reserve("another model", 0, thread.reservations.free_bytes)
    with pytest.raises(BackendMemoryError):
        backend.run(collate(ITEMS, Layout.PACKED, all_with(exits=(1,))))
    backend.close()


def test_batches_go_on_while_another_model_is_opened(graph: Path) -> None:
    """Opening a large model takes minutes; only measuring and captures are jobs of the device's thread."""
    thread = host_thread()
    serving = open_emulated(graph, OPTIONS, thread)
    reached, gate = threading.Event(), threading.Event()
    path = emulate(graph)

    def open_slowly(path: Path, *, memory_limit_bytes: int, captures: bool) -> DeviceSession:
        reached.set()
        assert gate.wait(30)
        return opener(thread)(path, memory_limit_bytes=memory_limit_bytes, captures=captures)

    with ThreadPoolExecutor(2) as pool:
        opening = pool.submit(DeviceBackend, path, thread, open_slowly, OPTIONS)
        assert reached.wait(30)
        try:
            pool.submit(raw_vectors, serving, ITEMS, Pooler("mean")).result(20)
        finally:
            gate.set()
        opening.result(30).close()
    serving.close()
    shutil.rmtree(path.parent)


def test_reservations_share_memory_and_release_it() -> None:
    """An owner gets what it wants or what is left, and an error if that is less than its minimum."""
    reservations = MemoryReservations(100)
    assert reservations.reserve("one", 10, 60) == 60
    assert reservations.reserve("two", 10, 60) == 40
    with pytest.raises(ModelMemoryError):
        reservations.reserve("three", 1, 1)
    reservations.release("one")
    assert reservations.free_bytes == 60


def test_a_device_thread_is_one_thread_that_selects_its_device_first() -> None:
    """Work given from within that thread runs at once; errors are raised where the work was given."""
    device = HostDevice()
    thread = host_thread(device)
    first = thread.run(lambda: threading.current_thread().name)
    assert thread.run(lambda: thread.run(lambda: threading.current_thread().name)) == first
    assert device.selected == [first]
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 / 0)
    thread.pinned(10)
    assert device.threads == {first}
    thread.close()


def test_while_a_run_is_captured_no_other_thread_waits_on_the_device() -> None:
    """Threads that wait already finish first and others are held back: any CUDA call of theirs breaks the capture."""

    class Slow(HostDevice):
        @override
        def wait(self, event: object) -> None:
            """Wait until the test opens the gate."""
            inside.release()
            assert gate.wait(10)

    inside, gate, exclusive_began = threading.Semaphore(0), threading.Event(), threading.Event()
    thread = host_thread(Slow())
    with ThreadPoolExecutor(3) as pool:
        early = pool.submit(thread.wait, object())
        assert inside.acquire(timeout=10)

        def capture() -> None:
            with thread.exclusive():
                exclusive_began.set()
                assert hold.wait(10)

        hold = threading.Event()
        capturing = pool.submit(thread.run, capture)
        assert not exclusive_began.wait(0.05), "a thread still waits"
        gate.set()
        early.result(10)
        assert exclusive_began.wait(10)
        late = pool.submit(thread.wait, object())
        assert not inside.acquire(timeout=0.05), "no thread begins to wait meanwhile"
        hold.set()
        capturing.result(10)
        late.result(10)
    thread.close()
