"""The device backend on the host's memory: what it copies, in which thread, and what it makes of memory."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.device_thread import Ledger
from nestvec.backends.cuda.shapes import Shape
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.core.batch_runner import raw_vectors, run_items
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Item, Layout, OutputKind
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import BackendMemoryError, FormatError, ModelMemoryError
from nestvec.export.architectures import export_graph
from nestvec.export.device_graph import DeviceRecipe, export_device_graph
from nestvec.export.graph.builder import FloatType
from typing_extensions import override

from tests.backends.cuda.host_device import HostDevice, host_line, open_emulated, opener
from tests.export.families.harness import load
from tests.support.fakes import item

OPTIONS = DeviceOptions(40, 256, captured_tokens=64)
FP32 = DeviceRecipe(FloatType.FP32)
ITEMS = [item(*range(1, n)) for n in (5, 2, 30, 9)]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A tiny BERT's, in float32."""
    return exported(tmp_path, FP32)


def exported(folder: Path, recipe: DeviceRecipe) -> Path:
    """A tiny BERT's graph."""
    family = load("bert")
    family.write(folder)
    export_device_graph(folder, family.config, folder / "model.onnx", recipe)
    return folder / "model.onnx"


def reference(folder: Path) -> OnnxBackend:
    """The same on the CPU."""
    path = folder / "cpu" / "model.onnx"
    path.parent.mkdir()
    export_graph(folder, load("bert").config, path)
    return OnnxBackend(path, Layout.PACKED, BackendOptions(provider="cpu"))


def test_vectors_are_pooled_there_and_equal_the_hosts(graph: Path) -> None:
    """Alone, together, filled up to a captured size or too large for any."""
    backend, cpu = open_emulated(graph, OPTIONS), reference(graph.parent)
    assert backend.pooling == "mean"
    assert Shape(64, 8, 40) in backend.captured or not backend.captured
    for items in (ITEMS, ITEMS[:1], ITEMS * 6, [replace(ITEMS[2], skip_tokens=7)]):
        found = raw_vectors(backend, items, Outputs("mean"))
        expected = raw_vectors(cpu, items, Outputs("mean"))
        np.testing.assert_allclose(found, expected, atol=2e-5)
    backend.close()


def test_token_states_leave_it_only_where_they_are_asked_for(graph: Path) -> None:
    """Vectors are B rows, states T; a vector cut to few columns is copied cut, in halves where that will do."""
    device = HostDevice()
    backend = open_emulated(graph, OPTIONS, host_line(device))

    def copied(items: list[Item], outputs: Outputs | None = None) -> int:
        device.copied_out.clear()
        run_items(backend, items, outputs or Outputs("mean"))
        return sum(device.copied_out)

    width = backend.hidden_size
    assert copied(ITEMS) == len(ITEMS) * width * 4
    assert copied([replace(one, columns=8) for one in ITEMS]) == len(ITEMS) * 8 * 4
    assert copied([replace(one, columns=8, is_half=True) for one in ITEMS]) == len(ITEMS) * 8 * 2
    tokens = sum(one.tokens for one in ITEMS)
    assert copied([replace(one, kind=OutputKind.TOKENS) for one in ITEMS]) == tokens * width * 4
    assert copied(ITEMS, Outputs("cls")) == tokens * width * 4, "a pooling that it does not have"
    backend.close()


def test_items_of_a_batch_each_get_the_columns_that_they_want(graph: Path) -> None:
    """The batch is cut to the most; each row then to its own."""
    backend = open_emulated(graph, OPTIONS)
    parts = run_items(
        backend, [replace(ITEMS[0], columns=4), replace(ITEMS[1], columns=8)], Outputs("mean")
    )
    whole = run_items(backend, ITEMS[:2], Outputs("mean"))
    assert [row.shape for row in parts.rows] == [(1, 4), (1, 8)]
    for cut, full in zip(parts.rows, whole.rows, strict=True):
        np.testing.assert_allclose(cut, full[:, : cut.shape[1]], atol=1e-5)
    backend.close()


def test_all_work_is_given_to_the_device_by_one_thread_and_workers_only_wait(graph: Path) -> None:
    """Captured graphs belong to a thread; results are the same whoever asks at the same time."""
    device = HostDevice()
    backend = open_emulated(graph, OPTIONS, host_line(device))
    expected = raw_vectors(backend, ITEMS, Outputs("mean"))
    device.threads.clear()
    barrier = threading.Barrier(4)

    def run(_: int) -> bool:
        barrier.wait(10)
        found = [raw_vectors(backend, ITEMS, Outputs("mean")) for _ in range(20)]
        return all(np.array_equal(one, expected) for one in found)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))
    assert len(device.threads) == 1
    assert next(iter(device.threads)).startswith("nestvec-device")
    backend.close()


def test_inputs_are_one_copy(graph: Path) -> None:
    """Side by side in page-locked memory."""
    device = HostDevice()
    backend = open_emulated(graph, OPTIONS, host_line(device))
    device.copied_in.clear()
    raw_vectors(backend, ITEMS, Outputs("mean"))
    assert len(device.copied_in) == 1
    backend.close()


def test_what_a_token_takes_is_measured_and_larger_batches_are_refused_before_they_run(
    graph: Path,
) -> None:
    """The core then splits them; the ledger has what is left for other models."""

    class Hungry(HostDevice):
        @override
        def wait(self, event: object) -> None:
            """A run has grown the arena."""
            super().wait(event)
            self.taken = max(self.taken, 240 * 1_000_000)

    device = Hungry(whole=2**30)
    line = host_line(device, limit=700_000_000)
    backend = open_emulated(graph, replace(OPTIONS, captured_tokens=0), line)
    # 240 tokens took 240 MB; with a quarter to spare three quarters of 700 MB hold about 420.
    assert 300 < backend.max_cost < 500
    with pytest.raises(BackendMemoryError):
        backend.run(collate([item(*range(30))] * 20, Layout.PACKED))
    backend.close()
    assert line.ledger.left == 700_000_000


def test_a_model_leaves_to_others_what_it_will_not_use(graph: Path) -> None:
    """It takes all that is left while it opens, as how much it needs shows when it runs."""
    line = host_line(HostDevice(whole=2**40), limit=2**38)
    first = open_emulated(graph, OPTIONS, line)
    left = line.ledger.left
    assert 2**37 < left < 2**38
    second = open_emulated(graph, OPTIONS, line)
    assert line.ledger.left < left
    second.close()
    assert line.ledger.left == left
    first.close()


def test_a_model_that_does_not_fit_says_so_and_leaves_nothing_behind(graph: Path) -> None:
    """By what it needs and what there is."""
    line = host_line(limit=1000)
    with pytest.raises(ModelMemoryError, match="gpu_memory_utilization"):
        open_emulated(graph, OPTIONS, line)
    assert line.ledger.left == 1000


def test_a_graph_that_is_none_for_a_device_is_refused(graph: Path) -> None:
    """By what it lacks."""
    reference(graph.parent)
    line = host_line()
    with pytest.raises(FormatError, match="nothing can feed"):
        DeviceBackend(graph.parent / "cpu" / "model.onnx", line, opener(line), OPTIONS)
    assert line.ledger.left == line.ledger.limit


def test_exits_are_opened_when_they_are_asked_for(tmp_path: Path) -> None:
    """And pooled as the whole is."""
    path = exported(tmp_path, replace(FP32, has_exits=True))
    backend = open_emulated(path, OPTIONS)
    early = [replace(one, exits=(1,)) for one in ITEMS]
    found = raw_vectors(backend, early, Outputs("mean"))
    both = raw_vectors(backend, [replace(one, exits=(1, 2)) for one in ITEMS], Outputs("mean"))
    whole = raw_vectors(backend, ITEMS, Outputs("mean"))
    np.testing.assert_allclose(both[0::2], found, atol=1e-6)
    np.testing.assert_allclose(both[1::2], whole, atol=1e-6)
    backend.close()


def test_an_exit_for_which_there_is_no_memory_is_short_memory(tmp_path: Path) -> None:
    """Not a fault of the input."""
    line = host_line()
    backend = open_emulated(exported(tmp_path, replace(FP32, has_exits=True)), OPTIONS, line)
    line.ledger.take("another model", 0, line.ledger.left)
    with pytest.raises(BackendMemoryError):
        backend.run(collate([replace(ITEMS[0], exits=(1,))], Layout.PACKED))
    backend.close()


def test_a_ledger_shares_memory_and_takes_it_back() -> None:
    """The least or an error; what was wanted, or what is left."""
    ledger = Ledger(100)
    assert ledger.take("one", 10, 60) == 60
    assert ledger.take("two", 10, 60) == 40
    with pytest.raises(ModelMemoryError):
        ledger.take("three", 1, 1)
    ledger.give_back("one")
    assert ledger.left == 60


def test_a_line_is_one_thread_that_selects_its_device_first() -> None:
    """Work asked for in that thread runs at once; errors come to whoever asked."""
    device = HostDevice()
    line = host_line(device)
    first = line.do(lambda: threading.current_thread().name)
    assert line.do(lambda: line.do(lambda: threading.current_thread().name)) == first
    assert device.selected == [first]
    with pytest.raises(ZeroDivisionError):
        line.do(lambda: 1 / 0)
    line.pinned(10)
    assert device.threads == {first}
    line.close()


def test_while_a_launch_is_captured_nobody_waits_on_the_device() -> None:
    """Those who do are let finish, those who come wait; CUDA's capture is broken by any call of another thread."""

    class Slow(HostDevice):
        @override
        def wait(self, event: object) -> None:
            """Until the test says so."""
            inside.release()
            assert gate.wait(10)

    inside, gate, quiet_began = threading.Semaphore(0), threading.Event(), threading.Event()
    line = host_line(Slow())
    with ThreadPoolExecutor(3) as pool:
        early = pool.submit(line.wait, object())
        assert inside.acquire(timeout=10)

        def capture() -> None:
            with line.quiet():
                quiet_began.set()
                assert hold.wait(10)

        hold = threading.Event()
        capturing = pool.submit(line.do, capture)
        assert not quiet_began.wait(0.05), "somebody still waits"
        gate.set()
        early.result(10)
        assert quiet_began.wait(10)
        late = pool.submit(line.wait, object())
        assert not inside.acquire(timeout=0.05), "nobody begins to wait meanwhile"
        hold.set()
        capturing.result(10)
        late.result(10)
    line.close()
