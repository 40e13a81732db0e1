"""`nestvec embed IN… OUT`: turns texts and documents into a file of vectors, or puts them into a vector store."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from nestvec.assembly.service import build_corpus_service
from nestvec.cli.corpus.embed_flags import corpus_flags, corpus_job
from nestvec.cli.corpus.ray_flags import RayCommand, ray_flags, ray_options
from nestvec.cli.flags import settings_flags
from nestvec.cli.server_flags import (
    ServerAddress,
    check_one_model,
    check_recipe,
    server_flags,
)
from nestvec.config.settings import Settings
from nestvec.corpus.embedders import CorpusEmbedder, EngineEmbedder
from nestvec.corpus.job import CorpusJob, CorpusSummary
from nestvec.corpus.manifest import describe_run, read_sign_key, write_manifest
from nestvec.corpus.reading.sources import left_out
from nestvec.corpus.run import embed_corpus, scan_job
from nestvec.corpus.scan import CorpusScan
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.corpus.stores.registry import find_store
from nestvec.observability.logs import configure_logs


@click.command("embed", cls=RayCommand)
@click.argument("sources", nargs=-1, required=True)
@click.argument("target")
@corpus_flags
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what gave which vectors: model, space, settings, hashes of inputs and output; see nestvec verify.",
)
@click.option(
    "--recipe", metavar="NAME", help="Embed by a recipe of the settings (docs/vectors/recipes.md)."
)
@click.option(
    "--sign-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Sign the manifest with this Ed25519 key (PEM, without a password).",
)
@server_flags(help_of_url="Let a running server embed them.")
@ray_options
@settings_flags(
    *("model", "model_revision", "models_dir", "cache_dir", "offline", "provider", "device_id"),
    "picture_model",
    *("precision", "calibration_file", "weight_storage"),
    *("max_batch_tokens", "worker_threads", "front_threads", "log_level"),
)
def command(  # noqa: PLR0913 - one argument a flag, as click passes them
    settings: Settings,
    *,
    sources: tuple[str, ...],
    target: str,
    server: ServerAddress,
    manifest_path: Path | None,
    recipe: str | None,
    sign_key: Path | None,
    **flags: Any,  # noqa: ANN401 - those of `corpus_flags`
) -> None:
    """Embed SOURCES into TARGET.

    SOURCES are files (.txt .jsonl .csv .parquet .arrow, each also as .gz but the last two; .md .rst .html .docx .pdf),
    pictures (.png .jpg .webp .gif .bmp; those of folders with --pictures), folders of them, quoted globs, or - for
    standard input. A line of a .txt file is a text, and so is the whole of a document; --per and --chunk cut otherwise.

    TARGET is a file (.parquet .arrow .npy .jsonl, .bulk.jsonl for Elasticsearch's _bulk), which appears once it is
    whole; - for JSONL to standard output; or the address of a vector store (docs/stores.md). Interrupted, even killed,
    the same command goes on where it stopped. Parquet and Arrow carry the model and its space fingerprint as metadata,
    the others have it in a .meta.json beside them.
    """
    configure_logs(level=settings.log_level, style="auto")
    check_one_model(server, settings)
    check_recipe(recipe, server, settings)
    if (ray := ray_flags(flags)) is not None:
        from nestvec.cli.corpus.embed_ray import embed_by_ray

        embed_by_ray(sources, target, settings, ray, {**flags, "recipe": recipe})
        return
    if sign_key is not None and manifest_path is None:
        raise click.UsageError("--sign-key signs a manifest: name its file by --manifest")
    # Before any work, as it may be no key.
    key = None if sign_key is None else read_sign_key(sign_key)
    if not server.url:
        # Part of the model here: vectors of records written otherwise are of another space.
        template = flags["template"] or settings.text.template
        text = settings.text.model_copy(update={"template": template})
        settings = settings.model_copy(update={"text": text})
        flags = {**flags, "template": template}
    job = corpus_job(sources, target, flags)
    found = scan_job(job)
    if endings := left_out(sources, with_pictures=flags["pictures"]):
        kinds = ", ".join(
            f"{number} {ending or 'without ending'}" for ending, number in endings.most_common(5)
        )
        click.echo(f"left out, as nothing reads them: {kinds}", err=True)
    progress = _Progress(tqdm(total=found.records, unit="text", smoothing=0.05))
    try:
        with progress.bar:
            summary = asyncio.run(_embed(job, found, settings, server, recipe or "", progress))
    except KeyboardInterrupt:
        click.echo(_what_is_kept(job, progress, found), err=True)
        raise click.Abort from None
    click.echo(
        _report(target, job, summary, time.monotonic() - progress.started_s),
        err=target == "-",
    )
    if manifest_path is not None:
        write_manifest(manifest_path, _describe(target, job, summary), key)


def _describe(target: str, job: CorpusJob, summary: CorpusSummary) -> dict[str, Any]:
    """Return a run's manifest; a store is asked what it holds."""
    kind = find_store(job.store) if job.store else None
    if kind is None:
        return describe_run(target, job, summary, None)
    reader = kind.read(job.store)
    try:
        return describe_run(target, job, summary, reader.stored())
    finally:
        reader.close()


@dataclass(slots=True)
class _Progress:
    """A bar that shows how many texts are done, and how many tokens a second.

    Attributes:
        bar: Shows it.
        started_s: Since when the rate is measured, monotonic time.
        tokens: Tokens since then.
        kept: Number of texts that an interruption does not lose.
    """

    bar: "tqdm[Any]"
    started_s: float = field(default_factory=time.monotonic)
    tokens: int = 0
    kept: int = 0

    def advance(self, texts: int, tokens: int) -> None:
        """Count texts that are done; without tokens they were done by an earlier run, and are no part of the rate."""
        self.tokens += tokens
        if tokens:
            rate = self.tokens / max(1e-9, time.monotonic() - self.started_s)
            self.bar.set_postfix_str(f"{rate:,.0f} tok/s", refresh=False)
            self.bar.update(texts)
        else:
            self.bar.initial += texts
            self.bar.n += texts
            self.bar.refresh()

    def commit(self, texts: int) -> None:
        """Note how many texts are safe."""
        self.kept = texts


async def _embed(
    job: CorpusJob,
    found: CorpusScan,
    settings: Settings,
    server: ServerAddress,
    recipe: str,
    progress: _Progress,
) -> CorpusSummary:
    """Embed a corpus, by the engine or by a server."""
    async with open_source(settings, server, recipe) as source:
        # Loading the model is no part of the rate.
        progress.started_s = time.monotonic()
        return await embed_corpus(
            source, job, progress.advance, on_commit=progress.commit, found=found
        )


def _what_is_kept(job: CorpusJob, progress: _Progress, found: CorpusScan) -> str:
    """Say what an interruption left."""
    if not job.can_resume or not progress.kept:
        return "interrupted: nothing is kept"
    of_all = "" if found.records is None else f" of {found.records}"
    return (
        f"interrupted: {progress.kept}{of_all} texts are kept; the same command goes on from here"
    )


def _report(target: str, job: CorpusJob, summary: CorpusSummary, took_s: float) -> str:
    """Say what a run did."""
    made = f"{summary.rows} vectors"
    if summary.resumed:
        made += f" ({summary.resumed} texts by an earlier run)"
    parts = [f"{made} from {summary.tokens} tokens in {took_s:.1f} s"]
    if job.chunking is not None:
        parts.append(f"{summary.texts} documents")
    if job.is_incremental:
        parts.append(f"{summary.unchanged} texts unchanged")
    if summary.doubled:
        parts.append(f"{summary.doubled} texts came before")
    parts.append(f"{summary.truncated} texts truncated")
    return f"{target}: {', '.join(parts)}"


@asynccontextmanager
async def open_source(
    settings: Settings, address: ServerAddress, recipe: str = ""
) -> AsyncIterator[CorpusEmbedder]:
    """Open the engine in this process, or a running server where there is a URL.

    Args:
        settings: Settings of the engine.
        address: Where the server is, and which of its models is meant.
        recipe: The recipe of the settings whose vectors are wanted; "" for the first model's.
    """
    if address.url:
        async with ServerEmbedder(address.url, key=address.key, model=address.model) as server:
            yield server
    else:
        service = build_corpus_service(settings, recipe)
        try:
            yield EngineEmbedder(service, recipe)
        finally:
            service.close()
