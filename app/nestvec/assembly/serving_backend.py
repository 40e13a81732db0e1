"""Opens the backend that serves a package: with a wide session for lone texts, and packed weights from a file."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from nestvec.assembly.execution import backend_options_for, maps_weights, provider_for
from nestvec.backends.latency import LatencyBackend
from nestvec.backends.open import open_backend
from nestvec.backends.two_towers import TwoTowerBackend
from nestvec.config.settings import Settings
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.core.prefix_backend import PrefixBackend
from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.types import Layout
from nestvec.errors import BackendMemoryError, ModelError, ModelMemoryError, NestvecError
from nestvec.model_store.artefacts.execution_settings import MAX_LONE_BYTES, ExecutionSettings
from nestvec.model_store.artefacts.packed_weights import (
    PackedGraph,
    PackingKey,
    find_packed_graph,
    write_packed_graph,
)
from nestvec.model_store.package import Package
from nestvec.model_store.preparation import PreparationListener, Step
from nestvec.observability.logs import get_logger
from nestvec.system.cpus import cpu_model
from nestvec.system.malloc import give_back_freed_memory

log = get_logger(__name__)

# Below, a run that reads its weights unpacked is slower on two threads than a packed one on one: 40 tokens 40%.
UNPACKED_MIN_TOKENS: Final = 256


def open_checked(
    settings: Settings,
    package: Package,
    tuned: ExecutionSettings,
    check: Callable[[Backend], float],
    shown: PreparationListener,
) -> tuple[Backend, float]:
    """Open a package's backend as it will run, and check it; packed weights that are wrong are not used.

    Args:
        settings: Settings of the model.
        package: The model.
        tuned: How it is run.
        check: Runs the probes; returns the seconds that a token took.
        shown: Told which step it is at.

    Returns:
        The backend, and what `check` returned.

    Raises:
        ModelError: The graph cannot be opened, or its vectors are wrong.
    """

    def open_and_check(graph: Path | None) -> tuple[Backend, float]:
        with shown.step(Step.OPEN):
            backend = open_for_serving(settings, package, tuned, graph)
        # Opening packs weights to look them up, even where they are mapped.
        give_back_freed_memory()
        try:
            with shown.step(Step.CHECK_PROBES):
                return backend, check(backend)
        except BackendMemoryError as error:
            backend.close()
            raise ModelMemoryError(
                "no memory to run the probes: unload models, or see what else uses the GPU"
            ) from error
        except NestvecError:
            backend.close()
            raise

    packed = packed_graph_for(settings, package, shown)
    if packed is None:
        return open_and_check(None)
    try:
        opened = open_and_check(packed.graph)
    except NestvecError as error:
        packed.discard()
        log.error("packed_weights_discarded", folder=str(packed.graph.parent), reason=error.message)  # noqa: TRY400 - the reason is whole
        return open_and_check(None)
    try:
        packed.keep()
    except ModelError as error:
        log.warning("packed_weights_not_kept", reason=error.message)
    return opened


def open_for_serving(
    settings: Settings, package: Package, tuned: ExecutionSettings, packed: Path | None
) -> Backend:
    """Open a package's backend, with one beside it for pictures where the model takes them.

    Args:
        settings: Settings of the model.
        package: The model.
        tuned: How it is run.
        packed: A copy of its graph with packed weights, which both sessions map; None for the graph itself.

    Raises:
        ModelError: A graph cannot be opened.
    """
    options = backend_options_for(settings, package, tuned)
    texts = _open_graph(settings, package, tuned, options, packed)
    if package.picture_graph is None:
        return texts
    # Its graph is the same in every precision of the texts'.
    options = dataclasses.replace(options, computes_bf16=False)
    try:
        if tuned.lone_threads <= tuned.intra_op_threads or options.provider != "cpu":
            pictures = open_backend(package.picture_graph, Layout.PACKED, options)
        else:
            both = options, _wide(options, tuned)
            pictures = LatencyBackend(*_open_both(package.picture_graph, Layout.PACKED, both))
    except ModelError:
        texts.close()
        raise
    if isinstance(package.spec.pictures, PrefixTower):
        return PrefixBackend(texts, pictures)
    return TwoTowerBackend(texts, pictures)


def _open_graph(
    settings: Settings,
    package: Package,
    tuned: ExecutionSettings,
    options: BackendOptions,
    packed: Path | None,
) -> Backend:
    """Open a package's own graph: with a second, wide session for lone texts where settings want one.

    Raises:
        ModelError: The graph cannot be opened.
    """
    graph = packed or package.graph
    if options.provider != "cpu" or tuned.lone_threads <= tuned.intra_op_threads:
        return open_backend(graph, package.layout, options)
    wide = _wide(options, tuned)
    min_tokens = 0
    is_large = package.graph_bytes > MAX_LONE_BYTES
    if packed is None and is_large and maps_weights(package) and not settings.lone_threads:
        # A large model's weights are not packed into memory once more unasked.
        wide, min_tokens = dataclasses.replace(wide, packs_weights=False), UNPACKED_MIN_TOKENS
    return LatencyBackend(*_open_both(graph, package.layout, (options, wide)), min_tokens)


def _wide(options: BackendOptions, tuned: ExecutionSettings) -> BackendOptions:
    """Return how to open a graph for what runs alone."""
    return dataclasses.replace(
        options, intra_op_threads=tuned.lone_threads, parallel_runs=1, spins=True
    )


def _open_both(
    graph: Path, layout: Layout, options: tuple[BackendOptions, BackendOptions]
) -> tuple[Backend, Backend]:
    """Open a graph twice, at the same time: each takes a core for a second and more.

    Raises:
        ModelError: It cannot be opened.
    """
    with ThreadPoolExecutor(len(options), "open") as threads:
        first, second = (threads.submit(open_backend, graph, layout, each) for each in options)
    try:
        return first.result(), second.result()
    except ModelError:
        for opened in (first, second):
            if opened.exception() is None:
                opened.result().close()
        raise


def packed_graph_for(
    settings: Settings, package: Package, shown: PreparationListener
) -> PackedGraph | None:
    """Return the copy of a package's graph with packed weights, which is written where it is missing.

    Returns:
        The copy, to be kept or discarded; None where the model has none: it is small, runs otherwise, or there is no
        room for it.
    """
    if (
        not settings.packed_weights_cache
        or not maps_weights(package)
        or package.graph_bytes <= MAX_LONE_BYTES
        or provider_for(settings, package) != "cpu"
    ):
        return None
    # Imported here: `--help` has no use for a runtime.
    from nestvec.backends.onnx import packing_runtime, save_packed

    key = PackingKey(cpu_model(), packing_runtime())
    packed = find_packed_graph(package.artefact, key)
    if packed is not None:
        return packed
    # What preparing the model has freed is as much as its weights, and packing takes as much again.
    give_back_freed_memory()
    try:
        with shown.step(Step.PACK_WEIGHTS):
            return write_packed_graph(
                package.artefact,
                key,
                package.graph_bytes,
                lambda path: save_packed(package.graph, path),
            )
    except ModelError as error:
        log.warning("packed_weights_not_kept", reason=error.message)
        return None
