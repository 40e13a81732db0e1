"""Settings to packages: the artefact of a model that this machine can run."""

import dataclasses
from functools import partial
from pathlib import Path

from nestvec.assembly.execution import build_options
from nestvec.assembly.preparation import ShownPreparation
from nestvec.assembly.sources import source_options
from nestvec.backends.open import open_backend
from nestvec.backends.providers import resolve_provider
from nestvec.config.settings import Settings
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.types import Layout
from nestvec.errors import UnsuitedError
from nestvec.model_store.package import Package, load_package
from nestvec.observability.logs import get_logger

log = get_logger(__name__)


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
