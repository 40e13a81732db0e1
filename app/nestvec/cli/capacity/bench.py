"""`nestvec bench`: measures a running server under load, the engine in this process, or what a plan needs."""

import asyncio
from pathlib import Path

import click
import numpy as np

from nestvec.assembly.package import prepare_model
from nestvec.assembly.service import build_local_service
from nestvec.backends.open import open_backend
from nestvec.cli.flags import settings_flags
from nestvec.cli.server_flags import ServerAddress, server_flags
from nestvec.config.settings import Settings
from nestvec.engine.observer import NullObserver
from nestvec.observability.logs import configure_logs
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.engine import measure_engine
from nestvec.tools.bench.load_generator import (
    LoadResult,
    closed_load,
    embedding_requests,
    open_load,
)
from nestvec.tools.bench.roofline import flops_per_token, peak_gemm_flops_per_s, peak_rss_bytes
from nestvec.tools.bench.texts import WORKLOADS, workload_texts
from nestvec.tools.commands import measure_coefficients


@click.command("bench")
@click.argument("target_url", metavar="[URL]", required=False)
@click.option("--engine", is_flag=True, help="Measure the engine in this process instead.")
@click.option(
    "--coefficients",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    metavar="FILE",
    help="Measure what `nestvec plan` needs, with a server of its own on this machine, and write it.",
)
@click.option("--load", type=click.Choice(WORKLOADS), default="mixed", show_default=True)
@click.option("--texts-per-request", type=click.IntRange(1), default=1, show_default=True)
@click.option("--connections", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--rate",
    "rate_per_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Send so many requests a second whatever happens (open loop), instead of keeping connections busy.",
)
@click.option("--duration-s", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
@server_flags(help_of_url="The server, where URL is left out.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Of --engine.")
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "provider", "device_id"),
    *("precision", "calibration_file", "weight_storage", "max_batch_tokens", "worker_threads"),
    *("intra_op_threads", "plain_attention_tokens", "front_threads", "log_level"),
)
def command(  # noqa: PLR0913 - one argument a flag, as click passes them
    settings: Settings,
    *,
    server: ServerAddress,
    target_url: str | None,
    engine: bool,
    coefficients: Path | None,
    load: str,
    texts_per_request: int,
    connections: int,
    rate_per_s: float | None,
    duration_s: float,
    rounds: int,
) -> None:
    """Load on the server at URL (http://host:port), --engine, or --coefficients.

    Over HTTP it asks for OpenAI embeddings in base64, texts made unique. The client takes CPU too: run it on
    another machine where that matters.
    """
    configure_logs(
        level="warning" if settings.log_level == "info" else settings.log_level, style="auto"
    )
    measures_here = engine or coefficients is not None
    url = target_url or ("" if measures_here else server.url)
    if measures_here == bool(url) or (engine and coefficients is not None):
        raise click.UsageError("give either a URL, --engine, or --coefficients FILE")
    if coefficients is not None:
        _write_coefficients(settings, coefficients)
        return
    if not url:
        click.echo(_engine_table(settings, rounds))
        return
    headers = {"authorization": f"Bearer {server.key}"} if server.key else {}
    try:
        target = Target.parse(url.rstrip("/").removesuffix("/v1") + "/v1/embeddings", headers)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    requests = embedding_requests(
        workload_texts(load, None, seed=0), texts_per_request, server.model
    )
    if rate_per_s is None:
        work = closed_load(target, requests, connections=connections, duration_s=duration_s)
    else:
        work = open_load(target, requests, rate_per_s=rate_per_s, duration_s=duration_s)
    result = asyncio.run(work)
    click.echo(load_table(result))
    if not result.latencies_s:
        raise click.ClickException("no request was answered with 200")


def _write_coefficients(settings: Settings, path: Path) -> None:
    """Measure what a plan needs of this machine, and write it to a file."""
    try:
        with path.open("a"):
            pass  # before minutes of measuring
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error
    found = measure_coefficients(settings)
    path.write_text(found.json_text(), "utf-8")
    batch, front = found.batch, found.front
    click.echo(
        f"{found.machine}; {found.model}, {found.precision}\n"
        f"a batch        {1e3 * batch.fixed_s:.2f} ms, and {1e6 * batch.token_s:.1f} us a token\n"
        f"all workers    {found.slowdown:.2f} times as long while all {found.workers} are busy, "
        f"{1.0 + found.idle_slowdown:.2f} times on a machine that was idle\n"
        f"between them   {1e3 * found.dispatch_s:.2f} ms from when a worker is free until it runs the next\n"
        f"a request      {1e3 * front.request_s:.2f} ms, and {1e6 * front.text_s:.0f} us a text beside its batches\n"
        f"written to     {path}: nestvec plan --coefficients {path} --qps … --tokens … --p99 …"
    )


def load_table(result: LoadResult) -> str:
    """What a load on a server has measured, as plain text."""
    answered, seconds = len(result.latencies_s), max(result.duration_s, 1e-9)
    statuses = ", ".join(
        f"{count} x {status or 'no answer'}" for status, count in result.statuses.items()
    )
    latencies = ", ".join(
        f"p{share:g} {result.percentile_s(share) * 1000:.1f} ms" for share in (50, 90, 99, 100)
    )
    return (
        f"requests   {answered} answered in {seconds:.1f} s ({answered / seconds:,.1f}/s); {statuses}\n"
        f"texts/s    {result.texts / seconds:,.1f}\n"
        f"tokens/s   {result.tokens / seconds:,.0f}\n"
        f"latency    {latencies}"
    )


def _engine_table(settings: Settings, rounds: int) -> str:
    """Measure the engine, and tell which share of the machine's limit it reaches."""
    settings = settings.for_offline_tools()
    package = prepare_model(settings)
    service = build_local_service(settings, NullObserver())
    try:
        figures = asyncio.run(measure_engine(service, rounds))
    finally:
        service.close()
    rss_mb = peak_rss_bytes() / 2**20
    limit = peak_gemm_flops_per_s(open_backend, usable_cpus())
    config = package.folder.config
    lines = [
        f"{cpu_model()}; {usable_cpus()} CPUs; {package.spec.name}, {package.spec.precision}",
        f"float32 products reach {limit / 1e9:,.0f} GFLOPS here",
        "",
        f"{'load':<12}{'texts/s':>9}{'tokens/s':>10}  share of that",
    ]
    for figure in figures.workloads:
        flops = flops_per_token(package.graph, config, package.spec.hidden_size, figure.mean_length)
        share = figure.tokens_per_s * flops / limit
        texts_per_s = figure.texts / min(figure.seconds)
        lines.append(
            f"{figure.workload:<12}{texts_per_s:>9,.1f}{figure.tokens_per_s:>10,.0f}  {share:.0%}"
        )
    p50_s, p99_s = np.percentile(figures.query_s, (50, 99))
    lines += [
        "",
        f"single short query: p50 {p50_s * 1000:.2f} ms, p99 {p99_s * 1000:.2f} ms",
        f"peak memory: {rss_mb:,.0f} MB",
    ]
    return "\n".join(lines)
