"""`nestvec doctor`: checks whether this machine is fit to serve, and where the model really runs."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

import click

from nestvec.assembly.execution import backend_options_for, default_settings_for, provider_for
from nestvec.assembly.package import prepare_model
from nestvec.assembly.sources import source_options
from nestvec.assembly.usage import usage_of_month
from nestvec.backends.providers import resolve_provider
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.errors import FormatError, NestvecError, StoreError
from nestvec.keys.key_file_watch import problems_at_start
from nestvec.keys.records import KeyFile
from nestvec.model_store.artefacts.term_counts import load_term_table
from nestvec.model_store.package import Package
from nestvec.model_store.preparation import SilentListener
from nestvec.observability.logs import configure_logs
from nestvec.tools.diagnostics.checks import (
    Check,
    Health,
    check_folder,
    check_gpu,
    check_machine,
    check_software,
)
from nestvec.tools.diagnostics.device_run import run_in_subprocess
from nestvec.tools.diagnostics.surroundings import (
    check_container,
    check_data_lock,
    check_extras,
    check_model,
    check_network,
    check_port,
)

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
    *(
        "model",
        "model_revision",
        "models_dir",
        "cache_dir",
        "data_dir",
        "keys_file",
        "host",
        "port",
        "allow_unauthenticated",
        "offline",
        "log_level",
    ),
    *("precision", "provider", "device_id", "gpu_memory_utilization", "gpu_captured_tokens"),
)
def command(settings: Settings, *, runs: bool, as_json: bool) -> None:
    """Check drivers, libraries, folders, port, memory, network and limits; exits with 1 where something would not work.

    With --run the model is opened as `nestvec serve` would, checked against its stored vectors, and on a GPU every
    node's provider and each attention's kernel are told.
    """
    configure_logs(level=settings.log_level, style="auto")
    checks = list(_checks(settings, runs=runs))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        for check in checks:
            click.echo(f"{MARKS[check.health]}  {check.name:<15} {check.says}")
            if check.advice:
                click.echo(f"{'':<22}{check.advice}")
    if any(check.health is Health.FAILED for check in checks):
        sys.exit(1)


def _checks(settings: Settings, *, runs: bool) -> Iterator[Check]:
    """Check everything, one thing after the other."""
    yield from check_software()
    yield from check_machine()
    yield check_folder("cache_dir", settings.cache_dir)
    yield check_folder("data_dir", settings.data_dir)
    yield check_port(settings.host, settings.port)
    yield check_data_lock(settings.data_dir)
    yield check_container()
    yield from check_model(settings.model, source_options(settings))
    yield check_network(is_offline=settings.offline, environment=os.environ)
    yield check_extras()
    yield from _keys(settings)
    yield from check_gpu(settings.device_id, is_asked_for=settings.provider == "cuda")
    try:
        provider = resolve_provider(settings.provider, settings.device_id)
        yield Check(
            "provider", Health.OK, f"models will run on {provider} (asked for {settings.provider})"
        )
        if runs:
            yield from _model(settings)
    except NestvecError as error:
        yield Check("provider" if not runs else "model", Health.FAILED, error.message)


def _keys(settings: Settings) -> Iterator[Check]:
    """Check that the keys can be read, and what they have used."""
    is_named = settings.keys_file is not None
    problems = problems_at_start(settings.keys_path, is_named=is_named, data_dir=settings.data_dir)
    if problems:
        yield Check("keys", Health.FAILED, "; ".join(problems))
    else:
        records = KeyFile.read(settings.keys_path).records.values()
        good = sum(record.revoked_s is None for record in records)
        says = f"{good} good in {settings.keys_path}" if records else "none in a file"
        yield Check("keys", Health.OK, says)
    try:
        usage_of_month(settings, time.strftime("%Y-%m", time.gmtime()))
    except StoreError as error:
        yield Check("usage", Health.FAILED, error.message)


def _term_counts(settings: Settings, package: Package) -> Iterator[Check]:
    """Check the counts of terms beside the model's artefact, where there are any."""
    source = settings.text.form().space_of(package.spec.space)
    try:
        table = load_term_table(package.artefact, package.spec.vocabulary_size, source)
    except FormatError as error:
        advice = "the model is served without them: count again (nestvec model fit --idf)"
        yield Check("term counts", Health.WARNING, error.message, advice)
        return
    if table is not None:
        says = f"of {table.documents} texts, space {table.space}"
        yield Check("term counts", Health.OK, says)


def _model(settings: Settings) -> Iterator[Check]:
    """Check the model by opening it as it would be served.

    Raises:
        NestvecError: It cannot be served.
    """
    from nestvec.assembly.model import probe
    from nestvec.assembly.serving_backend import open_checked

    package = prepare_model(settings, runs_here=True)
    provider = provider_for(settings, package)
    defaults = default_settings_for(package, provider)
    backend, _ = open_checked(
        settings, package, defaults, lambda backend: probe(package, backend), SilentListener()
    )
    says = f"{package.spec.name} in {package.spec.precision} on {backend.info.provider}: vectors are right"
    backend.close()
    yield Check("model", Health.OK, says)
    yield from _term_counts(settings, package)
    if backend_options_for(settings, package, defaults).device is None:
        return
    run = run_in_subprocess(
        package.graph, package.native_max_tokens, settings.device_id, os.environ
    )
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
    for used, count in sorted(run.attention_kernels.items(), key=str):
        yield Check(
            "attention", Health.OK, f"{used.op} in {used.dtype}: {used.kernel} ({count} runs)"
        )
