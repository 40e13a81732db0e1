"""Composition root of the HTTP side: settings to the ASGI application; `assembly/` does the same for the engine."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, disable_created_metrics

from nestvec import __version__
from nestvec.api import dispatch
from nestvec.api.dialect_table import OPENAPI_TAGS
from nestvec.api.error_handlers import install_error_handlers
from nestvec.api.http.answer_memory import AnswerMemory
from nestvec.api.http.body_memory import BodyMemoryBudget
from nestvec.api.http.documentation import documented_api
from nestvec.api.middleware import OPERATIONS, with_middleware
from nestvec.api.reports.report_jobs import ReportJobs
from nestvec.api.request_context import RequestContextMiddleware
from nestvec.api.routes import admin, cards, console, operations, reports, usage
from nestvec.api.state import ApiOptions, ApiState, Phase
from nestvec.api.token_input import TokenDecoder
from nestvec.assembly.drift import build_drift_watch, read_reference
from nestvec.assembly.keys import SharedKeyFiles, build_keyring
from nestvec.assembly.registry import rename_models
from nestvec.assembly.service import build_local_service
from nestvec.assembly.sources import source_options
from nestvec.config.loading import reload_settings
from nestvec.config.memory_bounds import memory_bounds
from nestvec.config.settings import Settings
from nestvec.engine.models.loader_thread import LoaderThread
from nestvec.engine.models.model_registry import ModelSlot, SlotState
from nestvec.engine.observer import Observer
from nestvec.engine.service import EmbeddingService
from nestvec.errors import ConfigError, ModelUnavailableError, NestvecError, StoreError
from nestvec.jobs.types import JobLimits
from nestvec.observability.logs import get_logger
from nestvec.observability.metrics import Metrics
from nestvec.observability.tracing.batch_spans import BatchSpans
from nestvec.observability.tracing.environment import start_recorder
from nestvec.system.json_bodies import JsonLimits
from nestvec.system.private_files import tighten

# Files and batches are imported where they are switched on: they bring SQLAlchemy.
if TYPE_CHECKING:
    from nestvec.jobs.store import JobStore

log = get_logger(__name__)

# How often a database that could not be reached at the start is tried again.
STORE_RETRY_S: Final = 5.0

Load = Callable[[Settings, Observer], EmbeddingService]


async def _begin_nothing(_: ApiState) -> None:
    """Begin nothing."""


@dataclass(frozen=True, slots=True)
class ProcessRole:
    """Where an application runs: alone, or as one of several.

    Attributes:
        role: The name of its process in metrics.
        runs_jobs: Whether it runs the batches; another process only notes them.
        shares_data: Whether other processes use the data folder too; the process that starts them holds its lock.
        begin: Called on the event loop before anything is loaded.
        load: Builds the engine, and blocks meanwhile.
        shared_keys: What all processes share about keys; None: there is one process.
        operations_port: The port for operators' routes only; 0: they are on the common port.
    """

    role: str = "server"
    runs_jobs: bool = True
    shares_data: bool = False
    begin: Callable[[ApiState], Awaitable[None]] = _begin_nothing
    load: Load = build_local_service
    shared_keys: SharedKeyFiles | None = None
    operations_port: int = 0


ALONE: Final = ProcessRole()
FASTAPI_TELEMETRY: Final = ("tracing", "metrics", "logs", "operation_spans", "auto_configure")
# Answers under way may take so many times what bodies may.
ANSWERS_PER_BODIES: Final = 2


def build_app(
    settings: Settings,
    *,
    process_role: ProcessRole = ALONE,
    on_ready: Callable[[ApiState], None] | None = None,
) -> RequestContextMiddleware:
    """Build the ASGI application, whose engine loads in the background once the server starts.

    Args:
        settings: All settings of the server.
        process_role: Whether it runs alone or as one of several processes.
        on_ready: Called with the state once the engine is ready or has failed.

    Raises:
        ConfigError: The store's URLs are of no known kind, or their extras are not installed, or that for traces, which
            OpenTelemetry's variables ask for.
    """
    if settings.files_api:
        from nestvec.jobs.store import check_store_urls

        check_store_urls(settings.database_url.get_secret_value(), settings.files_url)
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library has not typed this one
    state = _state(settings, process_role)
    current = settings

    def reload() -> None:
        nonlocal current
        current = _reloaded(current, state)

    state.on_reload = reload
    options: dict[str, Any] = {
        "title": "Nestvec",
        "version": __version__,
        "summary": "Self-hosted embeddings in every client's dialect: batched, Matryoshka dimensions.",
        "openapi_tags": OPENAPI_TAGS,
        "lifespan": partial(_lifespan, settings, state, process_role, on_ready),
        "redirect_slashes": False,
        # Its own would export query strings and the messages of exceptions, which may quote callers.
        "telemetry": dict.fromkeys(FASTAPI_TELEMETRY, False),
    }
    app = (
        FastAPI(openapi_url=None, **options)
        if settings.protect_operations
        else documented_api(**options)
    )
    app.state.api = state
    _route(app, settings)
    wrapped = with_middleware(
        app,
        hosts=settings.trusted_hosts,
        origins=settings.cors_origins,
        operations_port=process_role.operations_port,
        is_local_while=(lambda: state.keys.is_open) if settings.is_loopback else None,
    )
    root_path = settings.root_path.strip("/")
    return RequestContextMiddleware(wrapped, state, root_path=f"/{root_path}" if root_path else "")


@asynccontextmanager
async def _lifespan(
    settings: Settings,
    state: ApiState,
    process_role: ProcessRole,
    on_ready: Callable[[ApiState], None] | None,
    _: FastAPI,
) -> AsyncIterator[None]:
    """Start and stop what serves requests: usage, batches, the engine."""
    await asyncio.to_thread(tighten, settings.data_dir)
    await asyncio.to_thread(state.keys.usage.start)
    others: list[asyncio.Task[None]] = []
    await _open_jobs(settings, state, process_role, others)
    await process_role.begin(state)
    loading = asyncio.create_task(_load(settings, state, process_role.load, others))
    if on_ready is not None:
        loading.add_done_callback(lambda _: on_ready(state))
    yield
    for task in (loading, *others):
        task.cancel()
    await state.close()


def _state(settings: Settings, process_role: ProcessRole) -> ApiState:
    """Build the state that all routes share."""
    metrics = Metrics(
        CollectorRegistry(), process_role.role, runs_models=not process_role.shares_data
    )
    bounds = memory_bounds(settings)
    body_memory = BodyMemoryBudget(bounds.in_flight_bytes)
    # Bodies are made of what callers send, answers of what is made of it.
    answer_memory = AnswerMemory(ANSWERS_PER_BODIES * body_memory.max_bytes)
    recorder = start_recorder(process_role.role, metrics.spans)
    if recorder is not None:
        metrics.engine.record_batch = BatchSpans(recorder).record
    metrics.http.watch_body_bytes(lambda: body_memory.held_bytes, body_memory.max_bytes)
    metrics.http.connections_limit.set(bounds.connections)
    return ApiState(
        options=ApiOptions(
            max_body_bytes=settings.max_body_bytes,
            request_timeout_s=settings.request_timeout_s,
            reject_unknown_fields=settings.reject_unknown_fields,
            protect_operations=settings.protect_operations,
            emulates_tei_1_8=settings.tei_compat == "1.8",
            has_console=settings.console,
            card_dirs=source_options(settings).card_dirs,
            access_log_sample_ratio=settings.access_log_sample_ratio,
            slow_request_s=settings.slow_request_ms / 1000,
            jobs=JobLimits(
                max_file_bytes=settings.max_file_bytes,
                max_stored_bytes=settings.max_stored_bytes,
                max_unfinished_batches=settings.max_unfinished_batches,
                max_batch_bytes=settings.max_batch_bytes,
                max_lines=settings.max_batch_requests,
                max_inputs=settings.max_batch_requests,
                max_line_bytes=settings.max_body_bytes,
                json=JsonLimits(settings.max_json_depth),
            ),
            json=JsonLimits(settings.max_json_depth),
        ),
        keys=build_keyring(settings, metrics.keys, process_role.shared_keys),
        tokens=TokenDecoder(
            settings.token_input, settings.cl100k_file, is_offline=settings.offline
        ),
        metrics=metrics,
        body_memory=body_memory,
        answer_memory=answer_memory,
        recorder=recorder,
        reports=ReportJobs.of_folder(settings.data_dir / "reports"),
    )


def _route(app: FastAPI, settings: Settings) -> None:
    """Add every route that the settings ask for, and what answers errors."""
    routers = dispatch.all_routers()
    if settings.files_api:
        from nestvec.api.batch import batches, files

        routers += [files.router, batches.router]
    if settings.admin_api:
        routers.append(admin.router)
    if settings.console:
        routers.append(console.router)
    routers += [cards.router, reports.router, usage.router, operations.router]
    # As they are: `include_router` makes each route anew when the first request comes, which waits for it, to add
    # prefixes and dependencies that none of these has.
    for router in routers:
        app.router.routes.extend(router.routes)
    install_error_handlers(app, hidden=OPERATIONS)


def _reloaded(settings: Settings, state: ApiState) -> Settings:
    """Take over keys and aliases from the settings as they are now; a mistake in them leaves everything as it was."""
    try:
        new_settings = reload_settings(settings)
        if state.has_service:
            rename_models(state.service.models, settings, new_settings)
        state.keys.set_settings_keys(new_settings.secrets, new_settings.admin_secrets)
    except ConfigError as error:
        log.error("reload_failed", problems=error.problems)  # noqa: TRY400 - the reason is whole
        return settings
    log.info("reloaded")
    return new_settings


async def _open_jobs(
    settings: Settings, state: ApiState, process_role: ProcessRole, others: list[asyncio.Task[None]]
) -> None:
    """Open the store; a server without one still embeds, and logs why it does no more.

    One whose database is on another machine goes on trying to reach it.
    """
    if not settings.files_api:
        return
    from nestvec.jobs.store import JobStore

    database_url = settings.database_url.get_secret_value()
    earlier_ids = state.keys.earlier_ids(settings.secrets)

    def open_store() -> JobStore:
        store = JobStore(
            settings.data_dir,
            time.time,
            database_url=database_url,
            files_url=settings.files_url,
            is_shared=process_role.shares_data,
            lease_s=settings.batch_lease_s,
        )
        store.take_over(earlier_ids)
        return store

    try:
        store = await asyncio.to_thread(open_store)
    except StoreError as error:
        log.warning("jobs_off", reason=error.message)
        state.metrics.jobs.store_answers(is_up=False)
        if database_url:
            others.append(asyncio.create_task(_open_jobs_later(open_store, state, process_role)))
        return
    _offer_jobs(store, state, process_role)


async def _open_jobs_later(
    open_store: "Callable[[], JobStore]", state: ApiState, process_role: ProcessRole
) -> None:
    """Try to open the store until that works."""
    while True:
        await asyncio.sleep(STORE_RETRY_S)
        with contextlib.suppress(StoreError):
            _offer_jobs(await asyncio.to_thread(open_store), state, process_role)
            state.metrics.jobs.store_answers(is_up=True)
            log.info("jobs_on")
            return


def _offer_jobs(store: "JobStore", state: ApiState, process_role: ProcessRole) -> None:
    """Serve files and batches from now on, and run these where that is this process's part."""
    from nestvec.api.batch.batch_lines import BatchLines
    from nestvec.jobs.runner import JobRunner

    jobs = JobRunner(
        store,
        BatchLines(state),
        state.options.jobs,
        runs=process_role.runs_jobs,
        observer=state.metrics.jobs,
    )
    state.offer_jobs(jobs)
    if state.has_service:
        jobs.start()


async def _load(
    settings: Settings, state: ApiState, load: Load, others: list[asyncio.Task[None]]
) -> None:
    """Build the engine off the event loop, then be ready, or failed with the reason logged; then load other models."""
    try:
        reference = await asyncio.to_thread(read_reference, settings)
        service = await LoaderThread().run(lambda: load(settings, state.metrics.engine))
    except NestvecError as error:
        log.error("model_failed", code=error.code, reason=error.message)  # noqa: TRY400 - the reason is whole
        state.set_phase(Phase.FAILED)
        return
    except Exception:
        log.exception("model_crashed")
        state.set_phase(Phase.FAILED)
        raise
    state.metrics.front.watch(service.front)
    state.metrics.queues.watch(service.models.loaded)
    if service.read_through.cache is not None:
        state.metrics.cache.watch(service.read_through.cache)
    notify_engine = service.pool.on_change

    def on_change(slot: ModelSlot) -> None:
        state.metrics.model_changed(slot)
        notify_engine(slot)

    service.pool.on_change = on_change
    for slot in service.models.all():
        state.metrics.model_changed(slot)
    state.become_ready(service)
    others.append(asyncio.create_task(_load_others(service)))
    if reference:
        drift = build_drift_watch(settings, reference, service, state.metrics.drift)
        others.append(asyncio.create_task(drift.run()))


async def _load_others(service: EmbeddingService) -> None:
    """Load the other models that are to be there from the start; a broken one leaves the others serving."""
    for slot in service.models.all():
        if slot.state is SlotState.UNLOADED and slot.loads_at_start:
            with contextlib.suppress(ModelUnavailableError):  # the log says why
                await service.pool.load(slot)
