"""Composition root: settings to objects to the ASGI application. The only place that wires."""

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, disable_created_metrics

from app import __version__
from app.api import batches, dispatch, files, operations
from app.api.auth import Authenticator
from app.api.batch_lines import BatchLines
from app.api.context import RequestContext
from app.api.dialects import OPENAPI_TAGS
from app.api.documentation import documented_api
from app.api.error_handlers import install_error_handlers
from app.api.state import ApiOptions, ApiState, Phase
from app.api.token_input import TokenDecoder
from app.engine.backend import Backend, BackendOptions
from app.engine.core import CoreOptions, EngineCore
from app.engine.lone import LoneBackend
from app.engine.quantise import Rounding
from app.engine.registry import Models, Pin, ServedModel, check_pins
from app.engine.service import EmbeddingService, ServiceLimits
from app.engine.types import Layout, Observer, Truncation
from app.errors import NestvecError, StoreError
from app.export.architectures import GRAPH_VERSION, STATIC_TYPE
from app.hardware import cpu_model, l2_cache_bytes, usable_cpus
from app.jobs.runner import JobRunner
from app.jobs.store import JobStore
from app.jobs.types import JobLimits
from app.logs import get_logger
from app.memory import keep_freed_memory
from app.metrics import Metrics
from app.packages.build import probed
from app.packages.calibrate import Calibrated, calibrate
from app.packages.precision import BuildOptions, Precision
from app.packages.prepare import Package, prepare
from app.packages.probes import PROBE_TEXTS, check_probes, compute_vectors
from app.packages.sources import SourceOptions
from app.packages.tuned import Tuned, built_in, read_tuned
from app.settings import Settings
from app.tuning.report import TuningReport
from app.tuning.run import TuningRun, backend_options

log = get_logger(__name__)

OPENAI_NAMES: Final = (
    "text-embedding-ada-002",
    "text-embedding-3-small",
    "text-embedding-3-large",
)
PACKAGE_CARDS: Final = Path(__file__).parent / "cards"  # in an installed wheel
CHECKOUT_CARDS: Final = Path(__file__).parent.parent / "models"
Load = Callable[[Settings, Observer], EmbeddingService]
GPU_WORKERS: Final = 2
GPU_BATCH_TOKENS: Final = 8192


def source_options(settings: Settings) -> SourceOptions:
    """Where models come from."""
    own = (settings.models_dir,) if settings.models_dir else ()
    return SourceOptions(
        cache_dir=settings.cache_dir,
        card_dirs=(*own, PACKAGE_CARDS, CHECKOUT_CARDS),
        revision=settings.model_revision,
        is_offline=settings.offline,
    )


def build_options(settings: Settings) -> BuildOptions:
    """Which artefact the settings ask for."""
    asked = settings.precision
    return BuildOptions(
        precision=Precision.FP32 if asked == "auto" else Precision(asked),
        calibration=settings.calibration_file,
        halves_weights=settings.weight_storage == "fp16",
    )


def open_backend(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """The one place that names backends; imported late, as `--help` has no use for them."""
    if options.computes_bf16:
        from app.engine.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(path, layout, options)
    from app.engine.onnx_backend import OnnxBackend

    return OnnxBackend(path, layout, options)


def prepare_model(settings: Settings, *, refresh: bool = False) -> Package:
    """Fetch and export the model of the settings.

    Raises:
        ModelError: Anything wrong with it.
    """
    return prepare(
        settings.model,
        source_options(settings),
        open_backend,
        wanted=build_options(settings),
        max_tokens=settings.max_input_tokens,
        refresh=refresh,
    )


def machine() -> str:
    """What tuning holds for: CPU, usable cores, and versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    cpus = usable_cpus()
    return f"{cpu_model()}; {cpus} CPUs; graph {GRAPH_VERSION}; {', '.join(found)}"


def execution(settings: Settings, package: Package) -> Tuned:
    """How to run: as set, else as tuned on such a machine, else as built in."""
    tuned = read_tuned(package.artefact, machine()) or built_in(
        usable_cpus(),
        l2_cache_bytes(),
        package.graph_bytes,
        has_layers=package.spec.architecture != STATIC_TYPE,
    )
    plain = settings.plain_attention_tokens
    return Tuned(
        max_batch_tokens=settings.max_batch_tokens or tuned.max_batch_tokens,
        worker_threads=settings.worker_threads or tuned.worker_threads,
        intra_op_threads=settings.intra_op_threads or tuned.intra_op_threads,
        plain_attention_tokens=tuned.plain_attention_tokens if plain is None else plain,
        lone_threads=settings.lone_threads or tuned.lone_threads,
    )


def open_tuned(settings: Settings, package: Package, tuned: Tuned) -> Backend:
    """Open a package as it is to run: with a second, wide session for lone texts where that is wanted.

    Raises:
        ModelError: The graph cannot be opened.
    """
    options = dataclasses.replace(
        backend_options(package, tuned, provider=settings.provider), device_id=settings.device_id
    )
    backend = open_backend(package.graph, package.layout, options)
    if backend.provider != "cpu" or tuned.lone_threads <= tuned.intra_op_threads:
        return backend
    wide = dataclasses.replace(
        options, intra_op_threads=tuned.lone_threads, parallel_runs=1, spins=True
    )
    return LoneBackend(backend, open_backend(package.graph, package.layout, wide))


def tune_model(settings: Settings, *, limit_s: float, compares: bool) -> TuningReport:
    """Find how the model of the settings runs fastest on this machine, and keep it.

    Args:
        settings: Model and precision.
        limit_s: Time for the search.
        compares: Whether to export and time the other precisions too.

    Raises:
        ModelError: The model cannot be run, or the cache not be written.
    """
    package = prepare_model(settings)
    keep_freed_memory()
    cpus = usable_cpus()
    run = TuningRun(
        package=package,
        prepare=lambda precision: prepare_model(
            settings.model_copy(update={"precision": precision.value})
        ),
        open_backend=open_backend,
        machine=machine(),
        start=built_in(cpus, l2_cache_bytes(), package.graph_bytes),
        cpus=cpus,
        limit_s=limit_s,
        clock=time.perf_counter,
    )
    return run.run(list(Precision) if compares else [])


def calibrate_model(settings: Settings, texts: Path | None) -> Calibrated:
    """Set the ranges of a model's 8-bit vectors by texts of the user's own, or anew by the bundled ones.

    Raises:
        ModelError: The model cannot be run, the file cannot be read, or the cache not be written.
    """
    package = prepare_model(settings)
    return calibrate(package, texts, open_backend)


def build_engine(settings: Settings, observer: Observer) -> EmbeddingService:
    """Load, probe and warm the model; blocks for as long as that takes.

    Raises:
        ModelError: The model cannot be served.
    """
    started = time.monotonic()
    package = prepare_model(settings)
    tuned = execution(settings, package)
    backend = open_tuned(settings, package, tuned)
    if backend.provider != "cpu":
        # Not measured yet on a GPU: enough tokens to fill one, and one batch collates while another computes.
        tuned = dataclasses.replace(
            tuned,
            worker_threads=settings.worker_threads or GPU_WORKERS,
            max_batch_tokens=settings.max_batch_tokens or GPU_BATCH_TOKENS,
            lone_threads=1,
        )
    _probe(package, backend)
    keep_freed_memory()
    model = _serve(settings, package, backend, tuned, observer)
    models = Models(accepts_any=settings.accept_any_model)
    models.add(model)
    service = EmbeddingService(
        models,
        limits=ServiceLimits(
            max_inputs=settings.max_inputs_per_request,
            max_tokens=settings.max_tokens_per_request,
            truncate=Truncation(settings.truncate),
            interactive_inputs=settings.interactive_inputs,
            allows_empty=settings.allow_empty_inputs,
            max_token_vectors=settings.max_token_vectors_per_request,
        ),
        observer=observer,
        threads=settings.front_threads or usable_cpus(),
    )
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
    return service


def build_app(
    settings: Settings,
    *,
    load: Load = build_engine,
    on_ready: Callable[[ApiState], None] | None = None,
) -> RequestContext:
    """The ASGI application; its engine loads in the background once the server starts.

    Args:
        settings: All of them.
        load: Builds the engine; blocks while it does.
        on_ready: Called with the state once the engine is ready or has failed.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library has not typed this one
    metrics = Metrics(CollectorRegistry())
    state = ApiState(
        options=ApiOptions(
            max_body_bytes=settings.max_body_bytes,
            request_timeout_s=settings.request_timeout_s,
            reject_unknown_fields=settings.reject_unknown_fields,
            protect_operations=settings.protect_operations,
            emulates_tei_1_8=settings.tei_compat == "1.8",
            jobs=JobLimits(
                max_file_bytes=settings.max_file_bytes,
                max_stored_bytes=settings.max_stored_bytes,
                max_batch_bytes=settings.max_batch_bytes,
                max_lines=settings.max_batch_requests,
                max_inputs=settings.max_batch_requests,
                max_line_bytes=settings.max_body_bytes,
            ),
        ),
        auth=Authenticator(settings.secrets),
        tokens=TokenDecoder(settings.token_input, settings.cl100k_file),
        metrics=metrics,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _open_jobs(settings, state)
        loading = asyncio.create_task(_load(settings, state, load))
        if on_ready is not None:
            loading.add_done_callback(lambda _: on_ready(state))
        yield
        loading.cancel()
        await state.close()

    described: dict[str, Any] = {
        "title": "Nestvec",
        "version": __version__,
        "summary": "Self-hosted embeddings in every client's dialect: batched, Matryoshka dimensions.",
        "openapi_tags": OPENAPI_TAGS,
        "lifespan": lifespan,
        "redirect_slashes": False,
    }
    app = (
        FastAPI(openapi_url=None, **described)
        if settings.protect_operations
        else documented_api(**described)
    )
    app.state.api = state
    for router in dispatch.all_routers():
        app.include_router(router)
    app.include_router(files.router)
    app.include_router(batches.router)
    app.include_router(operations.router)
    install_error_handlers(app)
    return RequestContext(app, state)


def _serve(
    settings: Settings, package: Package, backend: Backend, tuned: Tuned, observer: Observer
) -> ServedModel:
    """Put spec, tokenizer and a running core together."""
    spec = dataclasses.replace(package.spec, name=settings.served_model_name or package.spec.name)
    pins = {name: Pin(p.prompt_name, p.dimensions) for name, p in settings.aliases.items()}
    check_pins(pins, spec)
    core = EngineCore(
        model=spec.name,
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
    )
    core.start()
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
    )


def _probe(package: Package, backend: Backend) -> None:
    """Compare the probes, together and each alone, with the stored vectors; warms the session up on the way.

    Raises:
        ProbeError: They differ.
    """
    # Probes were made with the model's own length, whatever the operator allows callers.
    tokenizer = package.open_tokenizer(package.native_max_tokens)
    outputs = probed(package.derived, package.artefact, open_backend)
    together = compute_vectors(backend, tokenizer, outputs, PROBE_TEXTS)
    check_probes(together, package.probes, backend.provider, package.build)
    alone = [compute_vectors(backend, tokenizer, outputs, [text]) for text in PROBE_TEXTS]
    check_probes(np.concatenate(alone), package.probes, backend.provider, package.build)


async def _open_jobs(settings: Settings, state: ApiState) -> None:
    """Open the data folder; a server without one still embeds, and says why it does no more."""
    try:
        store = await asyncio.to_thread(JobStore, settings.data_dir, time.time)
    except StoreError as error:
        log.warning("jobs_off", reason=error.message)
        return
    state.offer_jobs(JobRunner(store, BatchLines(state), state.options.jobs))


async def _load(settings: Settings, state: ApiState, load: Load) -> None:
    """Build the engine off the event loop, then be ready or failed; logs why."""
    try:
        service = await _in_daemon_thread(lambda: load(settings, state.metrics))
    except NestvecError as error:
        log.error("model_failed", code=error.code, reason=error.message)  # noqa: TRY400 - the reason is whole
        state.set_phase(Phase.FAILED)
        return
    except Exception:
        log.exception("model_crashed")
        state.set_phase(Phase.FAILED)
        raise
    for model in service.models.all():
        state.metrics.model_served(model)
    state.become_ready(service)


async def _in_daemon_thread(work: Callable[[], EmbeddingService]) -> EmbeddingService:
    """Run in a thread that a stopping process need not wait for: a first download takes minutes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[EmbeddingService] = loop.create_future()

    def settle(result: EmbeddingService | None, error: Exception | None) -> None:
        if future.done():
            return
        if result is not None:
            future.set_result(result)
        else:
            future.set_exception(error or RuntimeError("no engine"))

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="nestvec-load", daemon=True).start()
    return await future
