"""Settings to what is served: a slot for each model, the pool that keeps them, and the service over all of them.

Where front and core are processes of their own, the core's has the pool alone, and each front's has models whose cores
are behind the link.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from nestvec.assembly.model import OPENAI_NAMES, open_model, package_of, pins_of, served_model
from nestvec.config.settings import Settings
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.cache.vector_file import VectorFile
from nestvec.engine.core.ports import Recorder
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import Models, Slot, SlotState
from nestvec.engine.models.served_model import ServedModel, check_pins
from nestvec.engine.service import EmbeddingService, ServiceLimits
from nestvec.engine.types import Observer, Truncation
from nestvec.errors import ModelError
from nestvec.ipc.engine_client import Connection, RemoteCore
from nestvec.observability.logs import get_logger
from nestvec.system.cpus import usable_cpus
from nestvec.system.malloc import bound_arenas, give_back_freed_memory

log = get_logger(__name__)


Open = Callable[
    [Settings, str | None], ServedModel
]  # a model's settings, and the task of an adapter
START_S: Final = 600.0  # a core that exports a model first takes minutes


def build_engine(settings: Settings, observer: Observer) -> EmbeddingService:
    """Load, probe and warm what is to be there from the start; blocks for as long as that takes.

    With several models the first that can be served is loaded here; `ModelPool.load` brings the others.

    Raises:
        ModelError: No model can be served.
    """
    return build_service(settings, observer, build_pool(settings, observer))


def build_pool(
    settings: Settings, observer: Observer, recorder: Recorder | None = None
) -> ModelPool:
    """The models themselves, the first of them loaded; all that a core's process has.

    Args:
        settings: All of them.
        observer: Told what happens to each model.
        recorder: Notes what runs, where that outlives the process.

    Raises:
        ModelError: No model can be served.
    """
    if settings.models:
        bound_arenas(usable_cpus() + 2)
    models = build_slots(settings, lambda own, task: open_model(own, observer, task, recorder))
    pool = ModelPool(models, settings.max_models_bytes, on_change=note_change)
    load_first(pool, settings)
    return pool


def build_front(
    settings: Settings, observer: Observer, link: Connection, loop: asyncio.AbstractEventLoop
) -> EmbeddingService:
    """The front half over models whose cores are behind a link; blocks until the first of them is loaded there.

    Args:
        settings: All of them.
        observer: Told what happens to calls.
        link: To the core's process.
        loop: On which the link lives.

    Raises:
        ModelError: No model can be served.
    """
    waiting = asyncio.run_coroutine_threadsafe(link.until_up(START_S), loop)
    waiting.result()

    def open_remote(own: Settings, task: str | None) -> ServedModel:
        name = own.served_model_name or own.model
        asked = asyncio.run_coroutine_threadsafe(link.load(name), loop)
        traits = asked.result()
        package = package_of(own, task)
        return served_model(own, package, RemoteCore(link, name, package.outputs, traits))

    models = build_slots(settings, open_remote)
    pool = ModelPool(models, on_change=note_change)
    load_first(pool, settings)
    return build_service(settings, observer, pool)


def build_service(settings: Settings, observer: Observer, pool: ModelPool) -> EmbeddingService:
    """The service over a pool."""
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
        ),
        observer=observer,
        threads=settings.front_threads or usable_cpus(),
    )


def build_slots(settings: Settings, open_one: Open) -> Models:
    """A place for each model, and for each of its adapters."""
    models = Models(accepts_any=settings.accept_any_model)
    for name, own in settings.of_models().items():
        slot = models.add(_slot(settings, name, own, open_one))
        for task in own.adapters:
            slot.adapters[task] = _adapter_slot(slot, own, task, open_one)
    for slot in models.all():
        for adapted in slot.adapters.values():
            models.add(adapted)
    return models


def rename_models(models: Models, before: Settings, after: Settings) -> None:
    """Answer to the aliases of other settings from now on; nothing else of them is looked at.

    Raises:
        ConfigError: A name stands for what its model does not have; nothing has changed then.
    """
    own = after.of_models()
    slots = [slot for slot in models.all() if not slot.is_adapter]
    changes = []
    for slot, (name, old) in zip(slots, before.of_models().items(), strict=True):
        new = own.get(name, old)
        pins = pins_of(new)
        if slot.spec is not None:
            check_pins(pins, slot.spec)
        changes.append(
            (slot, [*old.model_aliases, *old.aliases], [*new.model_aliases, *new.aliases], pins)
        )
    for slot, gone, come, pins in changes:
        slot.rename(gone, come, pins)


def open_cache(settings: Settings) -> VectorCache | None:
    """Where vectors are kept; None for nowhere."""
    if not settings.vector_cache_bytes:
        return None
    store = None
    if settings.vector_cache_file is not None:
        store = VectorFile(settings.vector_cache_file, settings.vector_cache_file_bytes)
    return VectorCache(settings.vector_cache_bytes, settings.vector_cache_dtype, store)


def note_change(slot: Slot) -> None:
    """Say that a model went, or why it could not come."""
    if slot.state is SlotState.FAILED and slot.error is not None:
        log.error("model_failed", model=slot.name, code=slot.error.code, reason=slot.error.message)
    elif slot.state is SlotState.UNLOADED:
        give_back_freed_memory()
        log.info("model_unloaded", model=slot.name)


def _slot(settings: Settings, name: str, own: Settings, open_one: Open) -> Slot:
    """A model's place, under every name that is known before it is loaded."""
    first = own.served_model_name or own.model
    openai = OPENAI_NAMES if own.openai_aliases else ()
    source = () if Path(own.model).expanduser().is_absolute() else (own.model,)
    names = (first, *source, *own.model_aliases, *own.aliases, *openai)
    return Slot(
        names=tuple(dict.fromkeys(names)),
        pins=pins_of(own),
        open=partial(open_one, own, None),
        is_kept=not name or settings.models[name].keep,
        loads_at_start=not name or settings.models[name].load == "start",
    )


def _adapter_slot(base: Slot, own: Settings, task: str, open_one: Open) -> Slot:
    """The place of a model with an adapter: loaded on first use, under its base's name and the task."""
    name = f"{base.name}:{task}"
    settings = own.model_copy(
        update={
            "served_model_name": name,
            "model_aliases": [],
            "aliases": {},
            "openai_aliases": False,
        }
    )
    return Slot(names=(name,), open=partial(open_one, settings, task), is_adapter=True)


def load_first(pool: ModelPool, settings: Settings) -> None:
    """Load the first model that can be; where none can, the first one's error is the server's."""
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
