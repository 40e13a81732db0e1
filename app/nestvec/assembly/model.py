"""Settings to engine objects: which model, fetched and opened how, and the service over all of them."""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.assembly.execution import (
    build_options,
    execution,
    options_of,
)
from nestvec.backends.latency import LoneBackend
from nestvec.backends.open import chosen_provider, open_backend
from nestvec.config.settings import Settings
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.core.ports import Core, NullRecorder, Recorder
from nestvec.engine.models.served_model import Pin, ServedModel, check_pins
from nestvec.engine.types import Layout, Observer
from nestvec.engine.vectors.quantization import Rounding
from nestvec.errors import ModelError, UnsuitedError
from nestvec.model_store.artefacts.execution_settings import (
    Tuned,
)
from nestvec.model_store.artefacts.maps import read_maps
from nestvec.model_store.artefacts.probes import PROBE_TEXTS, check_probes, compute_vectors
from nestvec.model_store.artefacts.quality_results import read_quality
from nestvec.model_store.package import Package, prepare
from nestvec.model_store.sources.fetch import SourceOptions
from nestvec.observability.logs import get_logger
from nestvec.system.malloc import keep_freed_memory

log = get_logger(__name__)

OPENAI_NAMES: Final = (
    "text-embedding-ada-002",
    "text-embedding-3-small",
    "text-embedding-3-large",
)
PACKAGE_CARDS: Final = Path(__file__).parent.parent / "cards"  # in an installed wheel
CHECKOUT_CARDS: Final = Path(__file__).parents[3] / "models"


def source_options(settings: Settings) -> SourceOptions:
    """Where models come from."""
    own = (settings.models_dir,) if settings.models_dir else ()
    return SourceOptions(
        cache_dir=settings.cache_dir,
        card_dirs=(*own, PACKAGE_CARDS, CHECKOUT_CARDS),
        revision=settings.model_revision,
        is_offline=settings.offline,
    )


def prepare_model(
    settings: Settings, *, refresh: bool = False, task: str | None = None, runs_here: bool = False
) -> Package:
    """Fetch and export the model of the settings, with the adapter of a task merged in.

    Args:
        settings: Of the model.
        refresh: Ask the source again.
        task: Whose adapter is merged in; None for none.
        runs_here: Whether this process runs it: what stands behind the graph is then opened beside it.

    Raises:
        ModelError: Anything wrong with it.
    """
    adapter = None if task is None else settings.adapters[task].expanduser()
    provider = chosen_provider(settings.provider, settings.device_id)
    *wanted, last = build_options(settings, provider)
    make = partial(
        prepare,
        settings.model,
        dataclasses.replace(source_options(settings), adapter=adapter),
        partial(_open_as_set, settings),
        max_tokens=settings.max_input_tokens,
        refresh=refresh,
        heads_on=provider if runs_here else "cpu",
    )
    for build in wanted:
        try:
            return make(wanted=build)
        except UnsuitedError as error:
            log.info("precision_unsuited", precision=build.precision, reason=error.message)
    return make(wanted=last)


def _open_as_set(
    settings: Settings, path: Path, layout: Layout, options: BackendOptions
) -> Backend:
    """Open a graph on the GPU of the settings, if it is for one."""
    own = dataclasses.replace(
        options, device_id=settings.device_id, memory_share=settings.gpu_memory_utilization
    )
    return open_backend(path, layout, own)


def open_tuned(settings: Settings, package: Package, tuned: Tuned) -> Backend:
    """Open a package as it is to run: with a second, wide session for lone texts where that is wanted.

    Raises:
        ModelError: The graph cannot be opened.
    """
    options = options_of(settings, package, tuned)
    backend = open_backend(package.graph, package.layout, options)
    if backend.provider != "cpu" or tuned.lone_threads <= tuned.intra_op_threads:
        return backend
    wide = dataclasses.replace(
        options, intra_op_threads=tuned.lone_threads, parallel_runs=1, spins=True
    )
    return LoneBackend(backend, open_backend(package.graph, package.layout, wide))


def open_model(
    settings: Settings,
    observer: Observer,
    task: str | None = None,
    recorder: Recorder | None = None,
) -> ServedModel:
    """Load, probe and warm one model, or it with the adapter of a task; blocks for as long as that takes.

    Args:
        settings: Of the model.
        observer: Told what happens to it.
        task: Whose adapter is merged in; None for none.
        recorder: Notes what runs, where that outlives the process.

    Raises:
        ModelError: The model cannot be served.
    """
    started = time.monotonic()
    package = package_of(settings, task, runs_here=True)
    tuned = execution(settings, package)
    backend = open_tuned(settings, package, tuned)
    try:
        probe(package, backend)
    except ModelError:
        backend.close()
        raise
    keep_freed_memory()
    core = EngineCore(
        model=settings.served_model_name or package.spec.name,
        backend=backend,
        options=CoreOptions(
            workers=tuned.worker_threads,
            max_batch_tokens=tuned.max_batch_tokens,
            lookahead_items=settings.lookahead_items,
            max_queue_tokens=settings.max_queue_tokens,
            max_batch_s=settings.max_batch_ms / 1000,
            outputs=package.outputs,
        ),
        observer=observer,
        recorder=recorder or NullRecorder(),
    )
    model = served_model(settings, package, core)
    core.start()
    log.info(
        "model_ready",
        model=model.spec.name,
        provider=backend.provider,
        space=model.spec.space,
        dimensions=model.spec.hidden_size,
        max_tokens=model.spec.max_tokens,
        precision=model.spec.precision,
        max_batch_tokens=tuned.max_batch_tokens,
        worker_threads=tuned.worker_threads,
        lone_threads=tuned.lone_threads,
        exported=package.is_new,
        took_s=round(time.monotonic() - started, 2),
    )
    return model


def pins_of(settings: Settings) -> dict[str, Pin]:
    """What the settings' aliases stand for."""
    return {name: Pin(p.prompt_name, p.dimensions) for name, p in settings.aliases.items()}


def package_of(settings: Settings, task: str | None, *, runs_here: bool = False) -> Package:
    """A model's package, or it with the adapter of a task, whose other names are the base's.

    Raises:
        ModelError: Anything wrong with it.
    """
    package = prepare_model(settings, task=task, runs_here=runs_here)
    if task is None:
        return package
    name = settings.served_model_name or package.spec.name
    return dataclasses.replace(
        package, spec=dataclasses.replace(package.spec, name=name), aliases=()
    )


def served_model(settings: Settings, package: Package, core: Core) -> ServedModel:
    """Put spec, tokenizer and a core together.

    Raises:
        ModelError: The tokenizer cannot be read.
        ConfigError: A name stands for what the model does not have.
    """
    spec = dataclasses.replace(package.spec, name=settings.served_model_name or package.spec.name)
    pins = pins_of(settings)
    check_pins(pins, spec)
    own = (package.spec.name,) if settings.served_model_name else ()
    names = OPENAI_NAMES if settings.openai_aliases else ()
    return ServedModel(
        spec=spec,
        tokenizer=package.open_tokenizer(spec.max_tokens),
        core=core,
        aliases=(*own, *package.aliases, *settings.model_aliases, *names),
        pins=pins,
        quantiser=dataclasses.replace(
            package.quantiser, rounding=Rounding(settings.quantize_compat)
        ),
        graph_bytes=package.graph_bytes,
        maps=read_maps(package.artefact, spec.space),
        quality=read_quality(package.artefact),
    )


def probe(package: Package, backend: Backend) -> None:
    """Compare the probes, together and each alone, with the stored vectors; warms the session up on the way.

    Raises:
        ProbeError: They differ.
    """
    # Probes were made with the model's own length, whatever the operator allows callers.
    tokenizer = package.open_tokenizer(package.native_max_tokens)
    outputs = package.probe_outputs
    together = compute_vectors(backend, tokenizer, outputs, PROBE_TEXTS)
    check_probes(together, package.probes, backend.provider, package.build)
    alone = [compute_vectors(backend, tokenizer, outputs, [text]) for text in PROBE_TEXTS]
    check_probes(np.concatenate(alone), package.probes, backend.provider, package.build)
