"""`nestvec doctor`: is this machine fit to serve, and where does the model really run?"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import click

from nestvec.assembly.execution import options_of, provider_of, start_of
from nestvec.assembly.model import prepare_model
from nestvec.backends.open import chosen_provider
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.errors import NestvecError
from nestvec.observability.logs import configure_logs
from nestvec.tools.diagnostics.checks import Check, Health, folder, gpu, machine, software
from nestvec.tools.diagnostics.device_run import run_apart

MARKS: Final = {Health.OK: "ok  ", Health.WARNING: "warn", Health.FAILED: "FAIL"}


@click.command("doctor")
@click.option(
    "--run",
    "runs",
    is_flag=True,
    help="Also fetch, export and run the model, and tell where its nodes ran.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "data_dir", "offline", "log_level"),
    *("precision", "provider", "device_id", "gpu_memory_utilization", "gpu_captured_tokens"),
)
def command(settings: Settings, *, runs: bool, as_json: bool) -> None:
    """Check drivers, libraries, folders and limits; exits with 1 where something would not work.

    With --run the model is opened as `nestvec serve` would, checked against its stored vectors, and on a GPU every
    node's provider and each attention's kernel are told.
    """
    configure_logs(level=settings.log_level, style="auto")
    found = list(_checks(settings, runs=runs))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=1))
    else:
        for check in found:
            click.echo(f"{MARKS[check.health]}  {check.name:<15} {check.says}")
            if check.advice:
                click.echo(f"{'':<22}{check.advice}")
    if any(check.health is Health.FAILED for check in found):
        sys.exit(1)


def _checks(settings: Settings, *, runs: bool) -> Iterator[Check]:
    yield from software()
    yield from machine()
    yield folder("cache_dir", settings.cache_dir)
    yield folder("data_dir", settings.data_dir)
    yield from gpu(settings.device_id, is_asked_for=settings.provider == "cuda")
    try:
        provider = chosen_provider(settings.provider, settings.device_id)
        yield Check(
            "provider", Health.OK, f"models will run on {provider} (asked for {settings.provider})"
        )
        if runs:
            yield from _model(settings)
    except NestvecError as error:
        yield Check("provider" if not runs else "model", Health.FAILED, error.message)


def _model(settings: Settings) -> Iterator[Check]:
    """Open the model as it would be served.

    Raises:
        NestvecError: It cannot be.
    """
    from nestvec.assembly.model import open_tuned, probe

    package = prepare_model(settings, runs_here=True)
    provider = provider_of(settings, package)
    tuned = start_of(settings, package, provider)
    backend = open_tuned(settings, package, tuned)
    try:
        probe(package, backend)
        says = f"{package.spec.name} in {package.spec.precision} on {backend.provider}: vectors are right"
        yield Check("model", Health.OK, says)
    finally:
        backend.close()
    if options_of(settings, package, tuned).device is None:
        return
    run = run_apart(package.graph, package.native_max_tokens, settings.device_id, os.environ)
    nodes = {name: sum(ops.values()) for name, ops in run.placement.items()}
    placed = ", ".join(
        f"{count} on {name.removesuffix('ExecutionProvider')}" for name, count in nodes.items()
    )
    problems = run.problems
    yield Check(
        "nodes",
        Health.WARNING if problems else Health.OK,
        f"runs of nodes: {placed}; {run.captured} sizes captured",
        "; ".join(problems),
    )
    for route, count in sorted(run.routes.items(), key=str):
        yield Check(
            "attention", Health.OK, f"{route.op} in {route.dtype}: {route.kernel} ({count} runs)"
        )
