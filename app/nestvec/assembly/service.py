"""Settings to the service: the pool of models, and the service over it.

With an engine process and HTTP processes, the engine process has the pool alone, and each HTTP process has a service
over models whose cores are remote.
"""

import asyncio
from typing import Final

from nestvec.assembly.model import open_model, served_model
from nestvec.assembly.package import package_for
from nestvec.assembly.recipes import add_recipes
from nestvec.assembly.registry import build_registry
from nestvec.config.settings import Settings
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.cache.vector_file import VectorFile
from nestvec.engine.core.batching.shared_cores import SharedCores
from nestvec.engine.core.ports import CrashGuard
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelSlot, SlotState
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.observer import NullObserver, Observer
from nestvec.engine.pictures.decoding import PictureBounds
from nestvec.engine.pictures.warming import warm_up
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import Truncation
from nestvec.errors import ModelError
from nestvec.ipc.remote_core import EngineConnection, RemoteCore
from nestvec.observability.logs import get_logger
from nestvec.system.cpus import usable_cpus
from nestvec.system.malloc import bound_arenas, give_back_freed_memory

log = get_logger(__name__)

# An engine process that has to export a model first takes minutes.
START_TIMEOUT_S: Final = 600.0


def build_local_service(settings: Settings, observer: Observer) -> EmbeddingService:
    """Return a service whose models run in this process; blocks until the first of them is loaded.

    `ModelPool.load` brings the others.

    Args:
        settings: Settings of the server.
        observer: Told what happens to calls and models.

    Raises:
        ModelError: No model can be served.
    """
    pool = build_pool(settings, observer)
    add_recipes(pool, settings)
    return _service(settings, observer, pool)


def build_corpus_service(settings: Settings, recipe: str = "") -> EmbeddingService:
    """Return a service for whole files of texts, by one model or recipe; blocks until it is loaded.

    Args:
        settings: Settings of the server; what bounds callers of a server is left out.
        recipe: The recipe of the settings whose vectors are wanted; "" for the model.

    Raises:
        ModelError: The model cannot be served.
    """
    engine = settings.for_offline_tools()
    if recipe:
        kept = {name: getattr(settings, name) for name in ("models", "adapters")}
        recipes = {recipe: settings.recipes[recipe]}
        engine = engine.model_copy(update={**kept, "recipes": recipes})
    return build_local_service(engine, NullObserver())


def build_pool(
    settings: Settings, observer: Observer, crash_guard: CrashGuard | None = None
) -> ModelPool:
    """Return the pool of models that run in this process, the first of them loaded.

    Args:
        settings: Settings of the server.
        observer: Told what happens to each model.
        crash_guard: Notes what runs, where that outlives the process.

    Raises:
        ModelError: No model can be served.
    """
    if settings.models:
        bound_arenas(usable_cpus() + 2)
    cores = SharedCores()
    models = build_registry(
        settings, lambda of_model, task: open_model(of_model, observer, task, crash_guard, cores)
    )
    pool = ModelPool(models, settings.max_models_bytes, on_change=note_change)
    load_first(pool, settings)
    return pool


def build_http_service(
    settings: Settings,
    observer: Observer,
    engines: EngineConnection,
    loop: asyncio.AbstractEventLoop,
) -> EmbeddingService:
    """Return a service whose models run in engine processes; blocks until the first of them is loaded there.

    Args:
        settings: Settings of the server.
        observer: Told what happens to calls.
        engines: Connection to the engine processes.
        loop: The event loop of that connection, which runs in another thread.

    Raises:
        ModelError: No model can be served.
    """
    asyncio.run_coroutine_threadsafe(engines.wait_until_up(START_TIMEOUT_S), loop).result()

    def open_remote(of_model: Settings, task: str | None) -> ServedModel:
        name = of_model.served_model_name or of_model.model
        loading = asyncio.run_coroutine_threadsafe(engines.load(name), loop)
        info, max_batch_tokens = loading.result()
        package = package_for(of_model, task)
        core = RemoteCore(engines, name, package.pooler, info, max_batch_tokens, observer)
        if package.spec.pictures is not None:
            warm_up()
        return served_model(of_model, package, core)

    models = build_registry(settings, open_remote)
    pool = ModelPool(models, on_change=note_change)
    load_first(pool, settings)
    add_recipes(pool, settings)
    return _service(settings, observer, pool)


def _service(settings: Settings, observer: Observer, pool: ModelPool) -> EmbeddingService:
    """Return the service over a pool, limited as the settings say."""
    return EmbeddingService(
        pool.models,
        pool=pool,
        cache=open_cache(settings),
        limits=ServiceLimits(
            max_inputs=settings.max_inputs_per_request,
            max_tokens=settings.max_tokens_per_request,
            truncate=Truncation(settings.truncate),
            interactive_inputs=settings.interactive_inputs,
            allows_empty=settings.allow_empty_inputs,
            max_token_vectors=settings.max_token_vectors_per_request,
            allows_untrained_layers=settings.allow_untrained_layers,
            pictures=PictureBounds(
                max_bytes=settings.max_picture_bytes,
                max_pixels=settings.max_picture_pixels,
                max_pictures=settings.max_pictures_per_request,
                max_call_pixels=settings.max_picture_pixels_per_request,
            ),
        ),
        observer=observer,
        threads=settings.front_threads or usable_cpus(),
        max_waiting_chars=settings.max_front_characters,
    )


def open_cache(settings: Settings) -> VectorCache | None:
    """Return the vector cache of the settings; None where it is off."""
    if not settings.vector_cache_bytes:
        return None
    store = None
    if settings.vector_cache_file is not None:
        store = VectorFile(settings.vector_cache_file, settings.vector_cache_file_bytes)
    return VectorCache(settings.vector_cache_bytes, settings.vector_cache_dtype, store)


def note_change(slot: ModelSlot) -> None:
    """Log that a model was unloaded, or why it could not be loaded."""
    if slot.state is SlotState.FAILED and slot.error is not None:
        log.error("model_failed", model=slot.name, code=slot.error.code, reason=slot.error.message)
    elif slot.state is SlotState.UNLOADED:
        give_back_freed_memory()
        log.info("model_unloaded", model=slot.name)


def load_first(pool: ModelPool, settings: Settings) -> None:
    """Load the first model that can be loaded.

    Raises:
        ModelError: None can; this is the first one's error.
    """
    failure: ModelError | None = None
    for slot in pool.models.all():
        if not slot.loads_at_start:
            continue
        try:
            pool.open_now(slot)
        except ModelError as error:
            failure = failure or error
            if settings.models:
                note_change(slot)
        else:
            return
    if failure is not None:
        raise failure
