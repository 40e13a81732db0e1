"""Scenes of the rehearsal: what happens on a device beside a batch that goes well, each in a process of its own.

A scene is a function that raises AssertionError where something is wrong; variables decide which devices it finds.
"""

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nestvec.engine.backend import Backend, BackendOptions, DeviceOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.errors import ModelMemoryError, ProviderError
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from onnx import TensorProto, helper, numpy_helper

from benchmarks.models import Sizes, write_model
from tests.backends.cuda.fake_device import FakeCuda, run_on_fake
from tests.backends.cuda.test_graphs import FEWER_HEADS, wide
from tests.export.families.harness import load

MODULE = "tests.backends.cuda.rehearsal"
MIB = 2**20
OPTIONS = DeviceOptions(40, 1024, captured_tokens=256)
# So many batches, and how much more memory the process may have afterwards: less than a byte in five hundred of what
# one batch copies.
RUNS = 2000
MAX_GROWTH_BYTES = 2 * MIB


def batch_of(lengths: list[int], layout: Layout = Layout.PACKED) -> Any:
    """Return a batch of inputs of the first token, whose vectors are wanted."""
    return collate([Item(np.ones(n, np.int32)) for n in lengths], layout, pools=True)


def opened(
    graph: Path,
    options: DeviceOptions = OPTIONS,
    *,
    layout: Layout = Layout.PACKED,
    device_id: int = 0,
) -> Any:
    """Open a graph on a fake device."""
    from nestvec.backends.cuda.open import open_on_gpu

    backend_options = BackendOptions(provider="cuda", device=options, device_id=device_id)
    return open_on_gpu(graph, layout, backend_options)


def exported(folder: Path, name: str = "bert", options: DeviceExportOptions | None = None) -> Path:
    """Export a family's tiny model for a device."""
    family = wide(name, **FEWER_HEADS[name]) if name in FEWER_HEADS else load(name)
    family.write(folder)
    graph = folder / "model.onnx"
    export_device_graph(folder, family.config, graph, options or DeviceExportOptions())
    return graph


def copy_problems(graph: Path, cuda: FakeCuda) -> list[str]:
    """Run a graph, plain and captured, and return what is wrong with its copies, in words."""
    names = ("copies_in", "copies_out", "copies_while_capturing", "unsafe_while_capturing")
    before = {name: cuda.count(name) for name in names}
    backend = opened(graph)
    problems = [
        f"{cuda.count(name) - before[name]} {name.replace('_', ' ')}"
        for name in names[2:]
        if cuda.count(name) > before[name]
    ]
    for kind, lengths in (("plain", [40] * 10), ("captured", [9])):
        backend.run(batch_of(lengths))
        before = {name: cuda.count(name) for name in names}
        backend.run(batch_of(lengths))
        copies = [cuda.count(name) - before[name] for name in names[:2]]
        if copies != [1, 1]:
            problems.append(f"{copies[0]} copies in and {copies[1]} out in a {kind} run")
    backend.close()
    return problems


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def check_memory_is_flat(backend: Backend, batch: Any, cuda: FakeCuda) -> None:
    """Run a batch often: neither page-locked memory nor that of the process may grow."""
    for _ in range(200):
        backend.run(batch)
    pinned, resident = cuda.count("pinned_bytes"), resident_bytes()
    for _ in range(RUNS):
        backend.run(batch)
    grown = cuda.count("pinned_bytes") - pinned
    assert not grown, f"{grown} bytes of page-locked memory more after {RUNS} batches"
    grown = resident_bytes() - resident
    assert grown < MAX_GROWTH_BYTES, f"{grown / MIB:.1f} MiB more after {RUNS} batches"


def memory_of_many_batches(cuda: FakeCuda, folder: Path) -> None:
    """DeBERTa's products of positions must not leave page-locked memory behind."""
    backend = opened(exported(folder, "deberta-v2"))
    check_memory_is_flat(backend, batch_of([30, 7, 12, 40] * 3), cuda)
    backend.close()


def foreign_graph(path: Path) -> Path:
    """Write a graph as others make them, with a product whose batches have strides of no pattern, as DeBERTa's have."""
    heads, width, rows = 4, 16, 32
    random = np.random.default_rng(0)

    def constant(name: str, *sizes: int) -> onnx.TensorProto:
        values = random.standard_normal(sizes).astype(np.float32)
        return numpy_helper.from_array(values, name)

    split = numpy_helper.from_array(np.array([0, 0, heads, width], np.int64), "split")
    merged = numpy_helper.from_array(np.array([0, 0, heads * rows], np.int64), "merged")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Reshape", ["embedded", "split"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["heads"], perm=[0, 2, 1, 3]),
        helper.make_node("MatMul", ["heads", "positions"], ["scores"]),
        helper.make_node("Transpose", ["scores"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "merged"], ["last_hidden_state"]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "S"])],
        [
            helper.make_tensor_value_info(
                "last_hidden_state", TensorProto.FLOAT, ["B", "S", heads * rows]
            )
        ],
        [
            constant("table", 100, heads * width),
            constant("positions", 1, heads, width, rows),
            split,
            merged,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(path))
    return path


def memory_of_foreign_graphs(cuda: FakeCuda, folder: Path) -> None:
    """Graphs that others made may do what leaves memory behind: it is freed now and then, and they are not captured."""
    backend = opened(foreign_graph(folder / "model.onnx"), layout=Layout.PADDED)
    assert backend.captured_shapes == (), "a graph that others made was captured"
    check_memory_is_flat(backend, batch_of([30, 7, 12, 40] * 3, Layout.PADDED), cuda)
    backend.close()


def short_memory_at_opening(cuda: FakeCuda, folder: Path) -> None:
    """A card that is full just now is the machine's fault: other models are unloaded, and the graph is not refused."""
    graph = exported(folder)
    opened(graph).close()
    for mib in (0, 1, 4, 9, 12):
        cuda.limit(mib * MIB)
        try:
            opened(graph).close()
        except ModelMemoryError:
            continue
        finally:
            cuda.limit(-1)
        assert mib > 8, f"{mib} MiB are less than a handle of cuBLAS takes"
    opened(graph).close()


def second_of_two_cards(cuda: FakeCuda, folder: Path) -> None:
    """An engine of the second card makes no context on the first, whichever of its threads calls CUDA."""
    backend = opened(exported(folder), device_id=1)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: backend.run(batch_of([40] * 10)), range(12)))
    backend.close()
    assert cuda.count("contexts") == 0b10, f"contexts on cards {cuda.count('contexts'):#b}"


def loading_beside_serving(cuda: FakeCuda, folder: Path) -> None:
    """While a large model's weights are copied, which takes minutes, batches of another go on."""
    first = opened(exported(folder / "first"))
    graph = exported(folder / "second")
    batch = batch_of([40] * 10)
    first.run(batch)
    cuda.hold_copies(4096)
    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(opened, graph)
        while not cuda.count("held_copies"):
            time.sleep(0.01)
        served = pool.submit(lambda: [first.run(batch_of([9])) for _ in range(20)])
        try:
            assert len(served.result(20)) == 20
        finally:
            cuda.release_copies()
        second = loading.result(60)
    assert second.captured_shapes
    assert cuda.count("unsafe_while_capturing") == 0
    for backend in (first, second):
        backend.run(batch)
        backend.close()


def serving_beside_captures(cuda: FakeCuda, folder: Path) -> None:
    """Batches of one model and captures of another never meet, and page-locked memory that is dropped waits too."""
    from nestvec.backends.cuda.open import device_thread_for

    backend = opened(exported(folder / "first"))
    thread = device_thread_for(0, 0.9)
    arrays = [thread.pinned(1000) for _ in range(3000)]
    stop = threading.Event()

    def serve() -> int:
        runs = 0
        while not stop.is_set():
            backend.run(batch_of([40] * (1 + runs % 10)))
            runs += 1
        return runs

    def drop() -> int:
        while arrays and not stop.wait(0.0002):
            arrays.pop()
        return len(arrays)

    with ThreadPoolExecutor(3) as pool:
        serving = [pool.submit(serve) for _ in range(2)]
        dropping = pool.submit(drop)
        for number in range(4):
            opened(exported(folder / str(number))).close()
        stop.set()
        assert all(runs.result(20) for runs in serving)
        assert dropping.result(20) < 3000
    backend.close()
    assert cuda.count("unsafe_while_capturing") == 0


def unsupported_card(cuda: FakeCuda, folder: Path) -> None:
    """A card without kernels is named, with those that there are; `auto` goes to the CPU."""
    del cuda, folder
    from nestvec.backends.providers import resolve_provider

    assert resolve_provider("auto", 0) == "cpu"
    with pytest.raises(ProviderError, match=r"7\.0.* 9\.0"):
        resolve_provider("cuda", 0)


def part_of_a_card(cuda: FakeCuda, folder: Path) -> None:
    """A MIG device is known to NVML by another name, and tells little."""
    from nestvec.system.cuda_driver import read_driver
    from nestvec.system.nvml import Nvml

    gpu = read_driver().gpus[0]
    assert "MIG" in gpu.name
    state = Nvml().state(gpu.uuid)
    assert state.memory_total_bytes == gpu.memory_bytes
    assert state.utilization is None
    backend = opened(exported(folder))
    backend.run(batch_of([40] * 10))
    backend.close()
    del cuda


def memory_that_is_accounted_for(cuda: FakeCuda, folder: Path) -> None:
    """What a model takes is what it has reserved, also with captured sizes, and pages of many short inputs."""
    del cuda
    from nestvec.backends.cuda.open import device_thread_for

    sizes = Sizes("paged", 1024, 1, 16, 3072, 2048, kv_heads=8, head_width=128, family="qwen3")
    model = write_model(sizes, folder / "model")
    config = json.loads((model / "config.json").read_text())
    graph = folder / "model.onnx"
    export_device_graph(model, config, graph, DeviceExportOptions(pooling="last_token"))
    thread = device_thread_for(0, 0.9)
    free = thread.device.memory()[0]
    backend = opened(graph, DeviceOptions(2048, 16384, captured_tokens=4096))
    for lengths in ([8] * 2048, [2048] * 8, [8] * 2048):
        backend.run(batch_of(lengths))
    used = free - thread.run(thread.device.memory)[0]
    reserved = thread.reservations.limit_bytes - thread.reservations.free_bytes
    workspace = 512 * MIB
    assert backend.captured_shapes
    assert used < reserved - workspace + 64 * MIB, (
        f"{used / MIB:.0f} MiB are used, {(reserved - workspace) / MIB:.0f} MiB are reserved"
    )
    backend.close()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nestvec-scene-") as folder:
        yield Path(folder)


SLOW_LAUNCHES = {"FAKE_CUDA_LAUNCH_US": "20"}
Scene = Callable[[FakeCuda, Path], None]
SCENES: dict[str, tuple[Scene, dict[str, str]]] = {
    "memory-of-many-batches": (memory_of_many_batches, {}),
    "memory-of-foreign-graphs": (memory_of_foreign_graphs, {}),
    "memory-that-is-accounted-for": (memory_that_is_accounted_for, SLOW_LAUNCHES),
    "short-memory-at-opening": (short_memory_at_opening, {}),
    "second-of-two-cards": (second_of_two_cards, {"FAKE_CUDA_CAPABILITIES": "90,90"}),
    "loading-beside-serving": (loading_beside_serving, SLOW_LAUNCHES),
    "serving-beside-captures": (serving_beside_captures, SLOW_LAUNCHES),
    "unsupported-card": (unsupported_card, {"FAKE_CUDA_CAPABILITIES": "70"}),
    "part-of-a-card": (part_of_a_card, {"FAKE_CUDA_MIG": "1", "FAKE_CUDA_MEMORY_MB": "9856"}),
}


def play(name: str, library: Path) -> bool:
    """Play a scene in a process of its own, and print how it went; returns whether it failed."""
    _, variables = SCENES[name]
    completed = run_on_fake(library, [MODULE, "--scene", name], **variables)
    last = (completed.stderr.strip().splitlines() or ["nothing was said"])[-1]
    verdict = f"FAILED  {last}" if completed.returncode else "ok"
    print(f"{name:<34}{verdict}", flush=True)
    return completed.returncode != 0


def play_here(name: str) -> None:
    """Play a scene in this process, into which the library was preloaded."""
    scene, _ = SCENES[name]
    cuda = FakeCuda()
    with _folder() as folder:
        scene(cuda, folder)
