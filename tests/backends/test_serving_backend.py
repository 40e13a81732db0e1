"""The backend that serves a model: which sessions it has, what they map, and that they give the same vectors."""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nestvec.assembly import serving_backend
from nestvec.assembly.model import probe
from nestvec.assembly.serving_backend import (
    UNPACKED_MIN_TOKENS,
    open_checked,
    open_for_serving,
    packed_graph_for,
)
from nestvec.backends import onnx
from nestvec.backends.latency import LatencyBackend
from nestvec.backends.onnx import OnnxBackend
from nestvec.backends.open import open_backend
from nestvec.config.loading import load_settings
from nestvec.config.settings import Settings
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import FloatArray, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.execution_settings import ExecutionSettings
from nestvec.model_store.artefacts.packed_weights import RESERVE_BYTES
from nestvec.model_store.package import Package
from nestvec.model_store.preparation import SilentListener
from structlog.testing import capture_logs

from tests.support.fakes import item

TUNED = ExecutionSettings(256, 2, 1, 128, 2)
SHOWN = SilentListener()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a server that has packed weights."""
    return load_settings({"cache_dir": tmp_path})


@pytest.fixture
def package(tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """The tiny BERT with an artefact of the test's own, as if it were a large model."""
    monkeypatch.setattr(serving_backend, "MAX_LONE_BYTES", 0)
    artefact = shutil.copytree(tiny_package.artefact, tmp_path / "artefact")
    return dataclasses.replace(tiny_package, artefact=artefact)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The graphs whose packed copies have been written."""
    graphs: list[Path] = []
    save = onnx.save_packed

    def noting(graph: Path, packed: Path) -> None:
        graphs.append(graph)
        save(graph, packed)

    monkeypatch.setattr(onnx, "save_packed", noting)
    return graphs


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, BackendOptions]]:
    """The graphs that are opened, and how."""
    openings: list[tuple[Path, BackendOptions]] = []

    def noting(path: Path, layout: Layout, options: BackendOptions) -> Backend:
        openings.append((path, options))
        return open_backend(path, layout, options)

    monkeypatch.setattr(serving_backend, "open_backend", noting)
    return openings


def vectors(backend: Backend, *, is_lone: bool = False) -> FloatArray:
    """Return vectors of texts of several lengths, each run on its own."""
    random = np.random.default_rng(0)
    items = [item(*random.integers(5, 100, count)) for count in (1, 7, 30)]
    return np.concatenate(
        [raw_vectors(backend, [each], Pooler("mean"), is_lone=is_lone) for each in items]
    )


def expected(package: Package) -> FloatArray:
    """Return the vectors by a session that packs weights into its own memory."""
    backend = OnnxBackend(package.graph, package.layout, BackendOptions())
    try:
        return vectors(backend)
    finally:
        backend.close()


def open_one(settings: Settings, package: Package) -> Backend:
    """Open the package's backend as serving does."""
    backend, _ = open_checked(settings, package, TUNED, lambda it: probe(package, it), SHOWN)
    return backend


def packed_graph(settings: Settings, package: Package) -> Path | None:
    """Return the file of the package's packed copy, which is written where it is missing."""
    packed = packed_graph_for(settings, package, SHOWN)
    return packed.keep() if packed else None


def weights_of(package: Package) -> Path:
    """Return the weights of the only packed copy."""
    (weights,) = package.artefact.glob("packed-*/weights.bin")
    return weights


def test_both_sessions_map_one_copy_and_give_the_same_bits(
    settings: Settings,
    package: Package,
    saved: list[Path],
    opened: list[tuple[Path, BackendOptions]],
) -> None:
    """It is written once, at the first start; what it gives is what the graph itself gives."""
    for _ in range(2):
        backend = open_one(settings, package)
        assert isinstance(backend, LatencyBackend)
        assert backend.wide_min_tokens == 0
        for is_lone in (True, False):
            np.testing.assert_array_equal(vectors(backend, is_lone=is_lone), expected(package))
        backend.close()
    assert saved == [package.graph]
    copy = weights_of(package).parent / "model.onnx"
    first, second = opened[:2], opened[2:]
    assert {path for path, _ in second} == {copy}
    # The first start opens what it has just written, before it has its name.
    assert len({path for path, _ in first}) == 1
    assert not first[0][0].exists()
    for both in (first, second):  # in any order
        assert sorted(options.intra_op_threads for _, options in both) == [1, 2]
    assert all(options.packs_weights for _, options in opened)


def change_runtime(_package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another version of the runtime be installed."""
    monkeypatch.setattr(onnx, "packing_runtime", lambda: "onnxruntime 99")


def change_machine(_package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cache be on another machine."""
    monkeypatch.setattr(serving_backend, "cpu_model", lambda: "another CPU")


def truncate(package: Package, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the packed weights short."""
    weights = weights_of(package)
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize("change", [change_runtime, change_machine, truncate])
def test_a_copy_that_does_not_fit_is_written_anew(
    settings: Settings,
    package: Package,
    saved: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Package, pytest.MonkeyPatch], None],
) -> None:
    """It is never opened."""
    first = packed_graph(settings, package)
    change(package, monkeypatch)
    backend = open_one(settings, package)
    np.testing.assert_array_equal(vectors(backend), expected(package))
    backend.close()
    assert len(saved) == 2
    assert first is not None
    assert (packed_graph(settings, package) == first) == (change is truncate)


def test_a_copy_with_wrong_vectors_is_discarded(
    settings: Settings, package: Package, saved: list[Path]
) -> None:
    """The graph itself is served, and the log says so; the next start writes the copy again."""
    assert packed_graph(settings, package) is not None
    weights = weights_of(package)
    content = np.fromfile(weights, np.uint8)
    content[:] = np.random.default_rng(0).integers(56, 62, content.shape)
    content.tofile(weights)
    with capture_logs() as logs:
        backend = open_one(settings, package)
    np.testing.assert_array_equal(vectors(backend), expected(package))
    backend.close()
    assert not weights.exists()
    assert ("packed_weights_discarded", "error") in {(e["event"], e["log_level"]) for e in logs}
    open_one(settings, package).close()
    assert len(saved) == 2
    assert weights.exists()


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full."""
    usage = shutil.disk_usage("/")._replace(free=RESERVE_BYTES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cache be read-only."""

    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)


def runtime_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runtime fail to write the copy."""

    def fail(graph: Path, packed: Path) -> None:
        packed.write_bytes(b"half")
        raise FormatError(f"{graph}: cannot be written")

    monkeypatch.setattr(onnx, "save_packed", fail)


@pytest.mark.parametrize("trouble", [no_room, read_only, runtime_fails, None])
def test_without_a_copy_only_long_texts_run_wide(
    settings: Settings,
    package: Package,
    opened: list[tuple[Path, BackendOptions]],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[pytest.MonkeyPatch], None] | None,
) -> None:
    """The wide session then reads the weights as they lie in the artefact's file: no second copy in memory."""
    if trouble is None:
        settings = settings.model_copy(update={"packed_weights_cache": False})
    else:
        trouble(monkeypatch)
    backend = open_one(settings, package)
    assert isinstance(backend, LatencyBackend)
    assert backend.wide_min_tokens == UNPACKED_MIN_TOKENS
    assert {options.intra_op_threads: options.packs_weights for _, options in opened} == {
        1: True,
        2: False,
    }
    np.testing.assert_allclose(vectors(backend.wide), expected(package), atol=1e-5)
    np.testing.assert_array_equal(vectors(backend.narrow), expected(package))
    backend.close()
    assert list(package.artefact.glob("*packed*")) == []


def test_lone_threads_that_are_asked_for_are_worth_a_copy_in_memory(
    settings: Settings, package: Package
) -> None:
    """As ever: the operator has chosen."""
    update = {"packed_weights_cache": False, "lone_threads": 2}
    backend = open_for_serving(settings.model_copy(update=update), package, TUNED, None)
    assert isinstance(backend, LatencyBackend)
    assert backend.wide_min_tokens == 0
    backend.close()


def test_a_small_model_is_packed_in_memory(
    settings: Settings, package: Package, monkeypatch: pytest.MonkeyPatch, saved: list[Path]
) -> None:
    """Its second copy is small, and no disk is used for it."""
    monkeypatch.setattr(serving_backend, "MAX_LONE_BYTES", 1 << 30)
    backend = open_one(settings, package)
    assert isinstance(backend, LatencyBackend)
    assert backend.wide_min_tokens == 0
    np.testing.assert_array_equal(vectors(backend, is_lone=True), expected(package))
    backend.close()
    assert saved == []


@pytest.mark.parametrize("failing_threads", [1, 2])
def test_of_two_sessions_none_stays_open_alone(
    settings: Settings, package: Package, monkeypatch: pytest.MonkeyPatch, failing_threads: int
) -> None:
    """Both are opened at once; if one cannot be, the other frees its memory."""
    closed: list[int] = []

    def opening(path: Path, layout: Layout, options: BackendOptions) -> Backend:
        if options.intra_op_threads == failing_threads:
            raise FormatError("cannot be opened")
        backend = open_backend(path, layout, options)
        close = backend.close

        def note(_: Backend) -> None:
            closed.append(options.intra_op_threads)
            close()

        monkeypatch.setattr(type(backend), "close", note)
        return backend

    monkeypatch.setattr(serving_backend, "open_backend", opening)
    with pytest.raises(FormatError, match="cannot be opened"):
        open_for_serving(settings, package, TUNED, None)
    assert closed == [3 - failing_threads]


def test_weights_that_are_not_mapped_are_not_copied(settings: Settings, package: Package) -> None:
    """Whoever halves a model's weights to save disk does not want four times as much."""
    halved = dataclasses.replace(package.build, halves_weights=True)
    assert packed_graph_for(settings, dataclasses.replace(package, build=halved), SHOWN) is None
