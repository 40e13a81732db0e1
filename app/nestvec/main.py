"""Composition root: settings to the ASGI application; `assembly.py` does the same for the engine."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, disable_created_metrics

from nestvec import __version__
from nestvec.api import dispatch
from nestvec.api.batch import batches, files
from nestvec.api.batch.batch_lines import BatchLines
from nestvec.api.dialect_table import OPENAPI_TAGS
from nestvec.api.error_handlers import install_error_handlers
from nestvec.api.http.body import BodyRoom
from nestvec.api.http.documentation import documented_api
from nestvec.api.middleware import with_gates
from nestvec.api.request_context import RequestContext
from nestvec.api.routes import admin, operations
from nestvec.api.state import ApiOptions, ApiState, Phase
from nestvec.api.token_input import TokenDecoder
from nestvec.assembly.service import build_engine, rename_models
from nestvec.config.loading import reread
from nestvec.config.settings import Settings
from nestvec.engine.models.loader_thread import Loader
from nestvec.engine.models.model_registry import Slot, SlotState
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import Observer
from nestvec.errors import ConfigError, ModelUnavailableError, NestvecError, StoreError
from nestvec.jobs.runner import SWEEP_S, JobRunner
from nestvec.jobs.store import JobStore
from nestvec.jobs.types import JobLimits
from nestvec.keys.buckets import Buckets
from nestvec.keys.keyring import Keyring
from nestvec.keys.usage import DEFAULT_NAME as USAGE_NAME
from nestvec.keys.usage import Usage
from nestvec.observability.logs import get_logger
from nestvec.observability.metrics import Metrics
from nestvec.system.json_bodies import JsonLimits

log = get_logger(__name__)

Load = Callable[[Settings, Observer], EmbeddingService]


async def _begin_nothing(_: ApiState) -> None:
    """Nothing to begin."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an application runs: alone, or as one of several.

    Attributes:
        role: Of its process, in metrics.
        runs_jobs: Whether it runs the batches; others only note them.
        shares_data: Whether other processes use the data folder too; whoever starts them holds its lock.
        begin: Called on the event loop before anything is loaded.
        load: Builds the engine; blocks while it does.
        buckets: A file in which all processes count against the rates of keys.
        operations_port: The port of their own on which operators' routes are; 0: on the common one.
    """

    role: str = "server"
    runs_jobs: bool = True
    shares_data: bool = False
    begin: Callable[[ApiState], Awaitable[None]] = _begin_nothing
    load: Load = build_engine
    buckets: Path | None = None
    operations_port: int = 0


ALONE: Final = Placement()


def build_app(
    settings: Settings,
    *,
    placement: Placement = ALONE,
    on_ready: Callable[[ApiState], None] | None = None,
) -> RequestContext:
    """The ASGI application; its engine loads in the background once the server starts.

    Args:
        settings: All of them.
        placement: Where it runs.
        on_ready: Called with the state once the engine is ready or has failed.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library has not typed this one
    state = _state(settings, placement)
    current = settings

    def reload() -> None:
        nonlocal current
        current = _reloaded(current, state)

    state.on_reload = reload

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.keys.usage.start()
        await _open_jobs(settings, state, placement)
        await placement.begin(state)
        others: list[asyncio.Task[None]] = []
        loading = asyncio.create_task(_load(settings, state, placement.load, others))
        if on_ready is not None:
            loading.add_done_callback(lambda _: on_ready(state))
        yield
        for task in (loading, *others):
            task.cancel()
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
    _route(app, settings)
    gated = with_gates(
        app,
        hosts=settings.trusted_hosts,
        origins=settings.cors_origins,
        operations_port=placement.operations_port,
        root_path=settings.root_path.rstrip("/"),
    )
    return RequestContext(gated, state)


def _state(settings: Settings, placement: Placement) -> ApiState:
    """What every route needs."""
    metrics = Metrics(CollectorRegistry(), placement.role)
    room = BodyRoom(settings.max_in_flight_bytes)
    metrics.watch_bodies(lambda: room.held)
    return ApiState(
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
            json=JsonLimits(settings.max_json_depth),
        ),
        keys=_keyring(settings, placement),
        tokens=TokenDecoder(settings.token_input, settings.cl100k_file),
        metrics=metrics,
        bodies=room,
    )


def _route(app: FastAPI, settings: Settings) -> None:
    """Every path, and what answers errors."""
    for router in dispatch.all_routers():
        app.include_router(router)
    if settings.files_api:
        app.include_router(files.router)
        app.include_router(batches.router)
    if settings.admin_api:
        app.include_router(admin.router)
    app.include_router(operations.router)
    install_error_handlers(app)


def _keyring(settings: Settings, placement: Placement) -> Keyring:
    """Keys of the settings and of the file, with what they have used."""
    return Keyring(
        settings.secrets,
        settings.keys_path,
        buckets=Buckets(placement.buckets),
        usage=Usage(settings.data_dir / USAGE_NAME),
    )


def _reloaded(settings: Settings, state: ApiState) -> Settings:
    """Take over keys and aliases of the settings as they are now; a mistake in them leaves all as it was."""
    try:
        now = reread(settings)
        if state.has_service:
            rename_models(state.service.models, settings, now)
        state.keys.set_plain(now.secrets)
    except ConfigError as error:
        log.error("reload_failed", problems=error.problems)  # noqa: TRY400 - the reason is whole
        return settings
    log.info("reloaded")
    return now


async def _open_jobs(settings: Settings, state: ApiState, placement: Placement) -> None:
    """Open the data folder; a server without one still embeds, and says why it does no more."""
    if not settings.files_api:
        return
    try:
        store = await asyncio.to_thread(
            partial(JobStore, settings.data_dir, time.time, is_shared=placement.shares_data)
        )
    except StoreError as error:
        log.warning("jobs_off", reason=error.message)
        return
    state.offer_jobs(
        JobRunner(
            store,
            BatchLines(state),
            state.options.jobs,
            runs=placement.runs_jobs,
            # Others note batches in the store, and cannot wake us.
            look_s=1.0 if placement.shares_data else SWEEP_S,
        )
    )


async def _load(
    settings: Settings, state: ApiState, load: Load, others: list[asyncio.Task[None]]
) -> None:
    """Build the engine off the event loop, then be ready or failed; logs why. Further models come behind."""
    try:
        service = await Loader().run(lambda: load(settings, state.metrics))
    except NestvecError as error:
        log.error("model_failed", code=error.code, reason=error.message)  # noqa: TRY400 - the reason is whole
        state.set_phase(Phase.FAILED)
        return
    except Exception:
        log.exception("model_crashed")
        state.set_phase(Phase.FAILED)
        raise
    if service.fetcher.cache is not None:
        state.metrics.cache_opened(service.fetcher.cache)
    tell = service.pool.on_change

    def note(slot: Slot) -> None:
        state.metrics.model_changed(slot)
        tell(slot)

    service.pool.on_change = note
    for slot in service.models.all():
        state.metrics.model_changed(slot)
    state.become_ready(service)
    others.append(asyncio.create_task(_load_others(service)))


async def _load_others(service: EmbeddingService) -> None:
    """The models that are to be there from the start; one that is broken leaves the others serving."""
    for slot in service.models.all():
        if slot.state is SlotState.UNLOADED and slot.loads_at_start:
            with contextlib.suppress(ModelUnavailableError):  # the log says why
                await service.pool.load(slot)
