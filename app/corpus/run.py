"""Embeds a file: reads ahead, keeps the engine busy, writes in order, holds little in memory."""

import asyncio
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from app.corpus.readers import Columns, Record, read_records
from app.corpus.writers import Writer, check_ending, open_writer
from app.engine.service import EmbeddingService
from app.engine.types import EmbedCall, EmbedResult, Priority, Truncation
from app.errors import ArtefactError, FormatError, InputError

# Enough texts for length-sorted batches; three chunks in flight keep the workers fed while one is written.
CHUNK_TEXTS: Final = 1024
CHUNKS_IN_FLIGHT: Final = 3


@dataclass(frozen=True, slots=True)
class CorpusJob:
    """What to embed, and how.

    Attributes:
        source: A .txt, .jsonl, .csv or .parquet file.
        target: A .parquet, .npy or .jsonl file; replaced once the new one is whole.
        with_text: Keep the texts beside the vectors.
    """

    source: Path
    target: Path
    columns: Columns = field(default_factory=Columns)
    dimensions: int | None = None
    truncate: Truncation = Truncation.END
    prompt_name: str | None = None
    with_text: bool = False


@dataclass(slots=True)
class Summary:
    """What was done."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0


Progress = Callable[[int, int], None]


def count_records(job: CorpusJob) -> int:
    """Read through the file once: how many texts, and is each readable.

    Raises:
        FormatError: It is not.
    """
    check_ending(job.target)
    return sum(1 for _ in read_records(job.source, job.columns))


async def embed_corpus(service: EmbeddingService, job: CorpusJob, progress: Progress) -> Summary:
    """Embed all texts of a file.

    Args:
        service: The engine.
        job: What to embed.
        progress: Called with texts and tokens done since the last call.

    Raises:
        FormatError: A record cannot be read; names the line.
        InputError: A text cannot be embedded; names the line.
        ArtefactError: The target cannot be written; nothing is left half written under its name.
    """
    spec = service.models.resolve("").spec
    metadata = {
        "nestvec.model": spec.name,
        "nestvec.space": spec.space,
        "nestvec.dimensions": str(job.dimensions or spec.hidden_size),
        "nestvec.source": spec.source,
    }
    try:
        with tempfile.TemporaryDirectory(dir=job.target.parent, prefix=".embed-") as scratch:
            draft = Path(scratch) / job.target.name
            writer = open_writer(draft, metadata, with_text=job.with_text)
            try:
                summary = await _pump(service, job, writer, progress)
            finally:
                writer.close()
            _publish(Path(scratch), job.target.parent)
    except OSError as error:
        raise ArtefactError(f"{job.target}: cannot be written ({error.strerror})") from error
    return summary


async def _pump(
    service: EmbeddingService, job: CorpusJob, writer: Writer, progress: Progress
) -> Summary:
    """Keep some chunks in flight and write them in order."""
    summary = Summary()
    chunks = _chunks(read_records(job.source, job.columns))
    flying: deque[tuple[list[Record], asyncio.Task[EmbedResult]]] = deque()
    try:
        while True:
            while len(flying) < CHUNKS_IN_FLIGHT and (chunk := next(chunks, None)):
                flying.append((chunk, asyncio.create_task(_embed_chunk(service, job, chunk))))
            if not flying:
                return summary
            records, task = flying[0]
            result = await task
            flying.popleft()
            await asyncio.to_thread(writer.write, records, result.vectors)
            summary.texts += len(records)
            summary.tokens += sum(result.input_tokens)
            summary.truncated += sum(result.is_truncated)
            progress(len(records), sum(result.input_tokens))
    finally:
        for _, task in flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in flying), return_exceptions=True)


async def _embed_chunk(
    service: EmbeddingService, job: CorpusJob, chunk: list[Record]
) -> EmbedResult:
    call = EmbedCall(
        inputs=[record.text for record in chunk],
        dimensions=job.dimensions,
        truncate=job.truncate,
        prompt_name=job.prompt_name,
        priority=Priority.BULK,
    )
    try:
        return await service.embed(call)
    except InputError as error:
        if error.input_index is None:
            raise
        line = chunk[error.input_index].where
        raise FormatError(f"{job.source}:{line}: {error.message}") from error


def _publish(scratch: Path, folder: Path) -> None:
    """Move finished files to where they belong."""
    for file in sorted(scratch.iterdir()):
        file.replace(folder / file.name)


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, CHUNK_TEXTS)):
        yield chunk
