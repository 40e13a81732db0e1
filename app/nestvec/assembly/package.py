"""Settings to packages: where models come from, and the artefact that this machine can run."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Final

from nestvec.assembly.execution import build_options
from nestvec.assembly.preparation import ShownPreparation
from nestvec.backends.open import open_backend
from nestvec.backends.providers import resolve_provider
from nestvec.config.settings import Settings
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.types import Layout
from nestvec.errors import ModelError, UnsuitedError
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.sources.fetch import SourceOptions, check_source
from nestvec.observability.logs import get_logger

log = get_logger(__name__)

# Model cards lie in the package in an installed wheel, at the root of a checkout.
PACKAGE_CARDS: Final = Path(__file__).parent.parent / "cards"
CHECKOUT_CARDS: Final = Path(__file__).parents[3] / "models"


def source_options(settings: Settings) -> SourceOptions:
    """Return where models come from: the user's own cards go before those of the project."""
    own_cards = (settings.models_dir,) if settings.models_dir else ()
    return SourceOptions(
        cache_dir=settings.cache_dir,
        card_dirs=(*own_cards, PACKAGE_CARDS, CHECKOUT_CARDS),
        revision=settings.model_revision,
        is_offline=settings.offline,
        reads_pickles=settings.read_pickles,
        picture_model=settings.picture_model,
    )


def check_sources(settings: Settings) -> None:
    """Refuse settings none of whose models can be had, before anything is fetched or listens.

    One of several that cannot leaves the others serving, and is logged when it is loaded.

    Raises:
        SourceError: No model's name stands for one, or none is there where the network must not be used.
        FormatError: A card cannot be read.
    """
    failure: ModelError | None = None
    for of_model in settings.per_model().values():
        try:
            check_source(of_model.model, source_options(of_model))
        except ModelError as error:
            failure = failure or error
        else:
            return
    if failure is not None:
        raise failure


def prepare_model(
    settings: Settings, *, refresh: bool = False, task: str | None = None, runs_here: bool = False
) -> Package:
    """Fetch and export the model of the settings, in the first precision that suits it.

    Args:
        settings: Settings of the model.
        refresh: Whether to ask the source again.
        task: The task whose adapter is merged in; None for none.
        runs_here: Whether this process runs the model, so that its head goes to the same provider.

    Raises:
        ModelError: The model cannot be fetched, exported, or run in any of the precisions.
    """
    adapter = None if task is None else settings.adapters[task].expanduser()
    provider = resolve_provider(settings.provider, settings.device_id)
    *preferred, last = build_options(settings, provider)
    load = partial(
        load_package,
        settings.model,
        dataclasses.replace(source_options(settings), adapter=adapter),
        partial(_open_on_device, settings),
        max_tokens=settings.max_input_tokens,
        refresh=refresh,
        head_provider=provider if runs_here else "cpu",
        listener=ShownPreparation(settings.served_model_name or settings.model),
    )
    for build in preferred:
        try:
            return load(build=build)
        except UnsuitedError as error:
            log.info("precision_unsuited", precision=build.precision, reason=error.message)
    return load(build=last)


def _open_on_device(
    settings: Settings, path: Path, layout: Layout, options: BackendOptions
) -> Backend:
    """Open a graph, on the GPU of the settings if its options are for one."""
    on_device = dataclasses.replace(
        options, device_id=settings.device_id, memory_share=settings.gpu_memory_utilization
    )
    return open_backend(path, layout, on_device)


def package_for(settings: Settings, task: str | None, *, runs_here: bool = False) -> Package:
    """Return a model's package; with a task's adapter merged in, it has no names but its slot's.

    Args:
        settings: Settings of the model, or of its slot for the task.
        task: The task whose adapter is merged in; None for none.
        runs_here: Whether this process runs the model.

    Raises:
        ModelError: The model cannot be fetched, exported, or run in any of the precisions.
    """
    package = prepare_model(settings, task=task, runs_here=runs_here)
    if task is None:
        return package
    name = settings.served_model_name or package.spec.name
    return dataclasses.replace(
        package, spec=dataclasses.replace(package.spec, name=name), aliases=()
    )
