"""`nestvec embed IN OUT`: turns files of texts into a file of vectors."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from nestvec.assembly.service import build_local_service
from nestvec.cli.flags import settings_flags
from nestvec.config.settings import Settings
from nestvec.corpus.embedders import EngineEmbedder, TextOptions, VectorSource
from nestvec.corpus.readers import STREAMABLE, Columns
from nestvec.corpus.run import CorpusJob, CorpusSummary, count_records, embed_corpus
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.corpus.sources import STDIO, find_sources
from nestvec.engine.dtypes import OFFERED, OutputDtype
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import Truncation
from nestvec.observability.logs import configure_logs


@click.command("embed")
@click.argument("sources", nargs=-1, required=True)
@click.argument("target")
@click.option(
    "--stdin-format",
    type=click.Choice([kind.removeprefix(".") for kind in STREAMABLE]),
    default="txt",
    show_default=True,
    help="What standard input holds.",
)
@click.option("--text-column", default="text", show_default=True, help="Column with the text.")
@click.option(
    "--id-column", help="Column with the id; default: 'id' if there is one, else numbers."
)
@click.option("--dimensions", type=click.IntRange(min=1), help="Keep so many values a vector.")
@click.option(
    "--truncate",
    type=click.Choice([t.value for t in Truncation]),
    default=Truncation.END.value,
    show_default=True,
    help="What to do with texts longer than the model takes.",
)
@click.option("--prompt-name", help="One of the model's own prompts.")
@click.option("--layers", type=click.IntRange(min=1), help="Stop after so many layers.")
@click.option("--map", "map_name", help="Send vectors through a map of the model's.")
@click.option(
    "--output-dtype",
    type=click.Choice([dtype.value for dtype in OFFERED]),
    default=OutputDtype.FLOAT32.value,
    show_default=True,
    help="What values are stored as; int8 and uint8 by calibrated ranges, binary and ubinary keep signs, eight a byte.",
)
@click.option("--url", help="Let a running server embed them; its model is what it serves.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with that server's API key.",
)
@click.option("--with-text", is_flag=True, help="Keep the texts beside the vectors.")
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "provider", "device_id"),
    *("precision", "calibration_file", "weight_storage"),
    *("max_batch_tokens", "worker_threads", "front_threads", "log_level"),
)
def command(  # noqa: PLR0913 - one argument a flag, as click passes them
    settings: Settings,
    *,
    sources: tuple[str, ...],
    target: str,
    stdin_format: str,
    text_column: str,
    id_column: str | None,
    dimensions: int | None,
    truncate: str,
    prompt_name: str | None,
    layers: int | None,
    map_name: str | None,
    output_dtype: str,
    url: str | None,
    key_file: Path | None,
    with_text: bool,
) -> None:
    """Embed SOURCES (.txt, .jsonl, .csv, .parquet, .arrow, quoted globs, or - for stdin) into TARGET.

    TARGET (.parquet, .arrow, .npy, .jsonl, or - for JSONL to stdout) appears once it is whole. Interrupted, even
    killed, the same command goes on where it stopped. Parquet and Arrow carry the model and its space fingerprint as
    metadata, the others have it in a .meta.json beside them.
    """
    configure_logs(level=settings.log_level, style="auto")
    job = CorpusJob(
        sources=find_sources(sources, stdin_format),
        target=None if target == STDIO else Path(target),
        columns=Columns(text_column, id_column),
        options=TextOptions(
            dimensions=dimensions,
            output_dtype=OutputDtype(output_dtype),
            truncate=Truncation(truncate),
            prompt_name=prompt_name,
            layers=layers,
            map_name=map_name,
        ),
        with_text=with_text,
    )
    total = count_records(job)
    key = key_file.read_text("utf-8").strip() if key_file else ""
    try:
        summary, took_s = _embed_with_bar(job, total, settings, url, key)
    except KeyboardInterrupt:
        if job.can_resume:
            click.echo("interrupted; the same command goes on from here", err=True)
        raise click.Abort from None
    resumed = f" ({summary.resumed} by an earlier run)" if summary.resumed else ""
    click.echo(
        f"{target}: {summary.texts} vectors{resumed} from {summary.tokens} tokens in {took_s:.1f} s, "
        f"{summary.truncated} texts truncated",
        err=job.target is None,
    )


@dataclass(slots=True)
class _Progress:
    """A bar that shows how many texts are done, and how many tokens a second.

    Attributes:
        bar: Shows it.
        started_s: Since when the rate is measured, monotonic time.
        tokens: Tokens since then.
    """

    bar: "tqdm[Any]"
    started_s: float = field(default_factory=time.monotonic)
    tokens: int = 0

    def advance(self, texts: int, tokens: int) -> None:
        """Count texts that are done; without tokens they were done by an earlier run, and are no part of the rate."""
        self.tokens += tokens
        if tokens:
            rate = self.tokens / max(1e-9, time.monotonic() - self.started_s)
            self.bar.set_postfix_str(f"{rate:,.0f} tok/s", refresh=False)
            self.bar.update(texts)
        else:
            self.bar.initial = self.bar.n = texts


def _embed_with_bar(
    job: CorpusJob, total: int | None, settings: Settings, url: str | None, key: str
) -> tuple[CorpusSummary, float]:
    """Embed a corpus; gives the summary, and how many seconds that took without the loading of the model."""
    with tqdm(total=total, unit="text", smoothing=0.05) as bar:
        progress = _Progress(bar)

        async def work() -> CorpusSummary:
            async with _open_embedder(settings, url, key) as embedder:
                # Loading the model is no part of the rate.
                progress.started_s = time.monotonic()
                return await embed_corpus(embedder, job, progress.advance)

        summary = asyncio.run(work())
    return summary, time.monotonic() - progress.started_s


@asynccontextmanager
async def _open_embedder(
    settings: Settings, url: str | None, key: str
) -> AsyncIterator[VectorSource]:
    """Open the engine in this process, or a running server where there is a URL."""
    if url is not None:
        server = ServerEmbedder(url, key=key, model="")
        try:
            yield server
        finally:
            await server.close()
    else:
        service = build_local_service(settings.for_offline_tools(), NullObserver())
        try:
            yield EngineEmbedder(service)
        finally:
            service.close()
