"""Embeds files: reads ahead, keeps the engine busy, writes in order; an interrupted run is gone on with."""

import asyncio
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from nestvec.corpus.draft import Draft, Progress
from nestvec.corpus.embedders import Embedded, Embedder, Model, TextOptions
from nestvec.corpus.readers import Columns, Record
from nestvec.corpus.sources import Source, read_sources
from nestvec.corpus.writers import Writer, WriterOptions, check_ending, open_writer, write_lines
from nestvec.engine.dtypes import OutputDtype
from nestvec.errors import ArtefactError, FormatError, InputError

# Enough texts for length-sorted batches; three chunks in flight keep the workers fed while one is written.
CHUNK_TEXTS: Final = 1024
CHUNKS_IN_FLIGHT: Final = 3


@dataclass(frozen=True, slots=True)
class CorpusJob:
    """What to embed, and how.

    Attributes:
        sources: Read one after the other.
        target: A .parquet, .npy or .jsonl file, replaced once the new one is whole; None writes JSONL to standard
            output as it comes.
        with_text: Keep the texts beside the vectors.
    """

    sources: Sequence[Source]
    target: Path | None
    columns: Columns = field(default_factory=Columns)
    options: TextOptions = field(default_factory=TextOptions)
    with_text: bool = False

    @property
    def can_resume(self) -> bool:
        """Whether a later run can read and write it again."""
        return self.target is not None and not any(source.is_stdin for source in self.sources)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the output holds.

    Attributes:
        resumed: Texts of it that an earlier run had done.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    resumed: int = 0


Watch = Callable[[int, int], None]


def count_records(job: CorpusJob) -> int | None:
    """Read through the files once: how many texts, and is each readable; None where that can be done only once.

    Raises:
        FormatError: One is not.
    """
    if job.target is not None:
        check_ending(job.target)
    if any(source.is_stdin for source in job.sources):
        return None
    return sum(1 for _ in read_sources(job.sources, job.columns))


async def embed_corpus(embedder: Embedder, job: CorpusJob, watch: Watch) -> Summary:
    """Embed all texts of a job.

    A run that was cut short leaves a draft beside the target; the next one of the same job goes on from there.

    Args:
        embedder: The engine, or a server.
        job: What to embed.
        watch: Called with texts and tokens done since the last call; first with what an earlier run had done.

    Raises:
        FormatError: A record cannot be read; names the line.
        InputError: A text cannot be embedded; names the line.
        ArtefactError: The target cannot be written; nothing is left half written under its name.
    """
    model = await embedder.model(job.options)
    dimensions = job.options.dimensions or model.hidden_size
    dtype = job.options.output_dtype
    if dimensions % dtype.values_per_item:
        raise InputError(
            f"{dtype} packs 8 values a byte; {dimensions} dimensions are no multiple of 8",
            param="dimensions",
        )
    if job.target is None:
        sink = _StdoutSink(with_text=job.with_text)
        return await _pump(embedder, job, sink, watch)
    try:
        draft = Draft(job.target, _identity(job, model))
        try:
            return await _into(draft, embedder, job, model, watch)
        except (FormatError, InputError):
            draft.discard()  # what is wrong with the job stays wrong
            raise
        finally:
            draft.close(keeps=job.can_resume)
    except OSError as error:
        raise ArtefactError(f"{job.target}: cannot be written ({error.strerror})") from error


async def _into(
    draft: Draft, embedder: Embedder, job: CorpusJob, model: Model, watch: Watch
) -> Summary:
    """Fill a draft and publish it."""
    dimensions = job.options.dimensions or model.hidden_size
    dtype = job.options.output_dtype
    metadata = {
        "nestvec.model": model.name,
        "nestvec.space": model.space,
        "nestvec.dimensions": str(dimensions),
        "nestvec.output_dtype": dtype.value,
        "nestvec.source": model.source,
    }
    if dtype in (OutputDtype.INT8, OutputDtype.UINT8):
        metadata["nestvec.quantization"] = model.quantization
    if job.options.layers is not None:
        metadata["nestvec.layers"] = str(job.options.layers)
    if job.options.map_name is not None:
        metadata["nestvec.map"] = job.options.map_name
    options = WriterOptions(
        width=dimensions // dtype.values_per_item,
        dtype=dtype.stored.name,
        with_text=job.with_text,
        offsets=draft.progress.offsets,
    )
    try:
        writer = open_writer(draft.path, metadata, options)
    except FileNotFoundError:  # a run that was cut short while it published
        draft.forget()
        writer = open_writer(draft.path, metadata, replace(options, offsets={}))
    try:
        sink = _DraftSink(draft, writer)
        summary = await _pump(embedder, job, sink, watch)
        files = await asyncio.to_thread(writer.finish)
    finally:
        writer.close()
    draft.publish(files)
    return summary


def _identity(job: CorpusJob, model: Model) -> dict[str, object]:
    """All that decides an output; standard input is never the same."""
    return {
        "sources": [s.identity() for s in job.sources] if job.can_resume else uuid.uuid4().hex,
        "columns": [job.columns.text, job.columns.id],
        "options": [asdict(job.options), job.with_text],
        "model": asdict(model),
    }


class _DraftSink:
    """Writes chunks to a draft and commits each."""

    def __init__(self, draft: Draft, writer: Writer) -> None:
        self._draft = draft
        self._writer = writer
        self.start = draft.progress

    def put(self, records: Sequence[Record], result: Embedded, progress: Progress) -> None:
        """Write a chunk."""
        self._writer.write(records, result.vectors)
        progress.offsets = self._writer.sync()
        self._draft.commit(progress)


class _StdoutSink:
    """Writes chunks to standard output."""

    def __init__(self, *, with_text: bool) -> None:
        self._with_text = with_text
        self.start = Progress()

    def put(self, records: Sequence[Record], result: Embedded, progress: Progress) -> None:
        """Write a chunk."""
        del progress
        write_lines(sys.stdout.buffer, records, result.vectors, with_text=self._with_text)
        sys.stdout.buffer.flush()


async def _pump(
    embedder: Embedder, job: CorpusJob, sink: _DraftSink | _StdoutSink, watch: Watch
) -> Summary:
    """Keep some chunks in flight and put them away in order."""
    progress = sink.start
    resumed = progress.records
    watch(resumed, 0)
    records = islice(read_sources(job.sources, job.columns), resumed, None)
    chunks = _chunks(records)
    flying: deque[tuple[list[Record], asyncio.Task[Embedded]]] = deque()
    try:
        while True:
            while len(flying) < CHUNKS_IN_FLIGHT and (chunk := next(chunks, None)):
                flying.append((chunk, asyncio.create_task(_embed_chunk(embedder, job, chunk))))
            if not flying:
                done = (progress.records, progress.tokens, progress.truncated)
                return Summary(*done, resumed=resumed)
            chunk, task = flying[0]
            result = await task
            flying.popleft()
            progress = Progress(
                records=progress.records + len(chunk),
                tokens=progress.tokens + result.tokens,
                truncated=progress.truncated + result.truncated,
            )
            await asyncio.to_thread(sink.put, chunk, result, progress)
            watch(len(chunk), result.tokens)
    finally:
        for _, task in flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in flying), return_exceptions=True)


async def _embed_chunk(embedder: Embedder, job: CorpusJob, chunk: list[Record]) -> Embedded:
    try:
        return await embedder.embed([record.text for record in chunk], job.options)
    except InputError as error:
        if error.input_index is None:
            raise
        raise FormatError(f"{chunk[error.input_index].where}: {error.message}") from error


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, CHUNK_TEXTS)):
        yield chunk
