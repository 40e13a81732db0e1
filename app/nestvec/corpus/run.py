"""Embeds files of texts: reads ahead, keeps the engine busy, writes in order, and resumes an interrupted run."""

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
from nestvec.corpus.embedders import Embedded, ModelDescription, TextOptions, VectorSource
from nestvec.corpus.readers import Columns, Record
from nestvec.corpus.sources import TextSource, read_sources
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
        sources: The texts, read one after the other.
        target: A .parquet, .arrow, .npy or .jsonl file, replaced once the new one is whole; None writes JSONL to
            standard output as it comes.
        columns: The columns to read of each record.
        options: The options of all texts.
        with_text: Whether the texts are kept beside the vectors.
    """

    sources: Sequence[TextSource]
    target: Path | None
    columns: Columns = field(default_factory=Columns)
    options: TextOptions = field(default_factory=TextOptions)
    with_text: bool = False

    @property
    def can_resume(self) -> bool:
        """Whether a later run can read the same texts and go on with the same output."""
        return self.target is not None and not any(source.is_stdin for source in self.sources)


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """What an output holds.

    Attributes:
        texts: Number of texts.
        tokens: Number of their tokens, after truncation.
        truncated: Number of texts that were truncated.
        resumed: Number of texts that an earlier run had embedded.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    resumed: int = 0


# Called with the number of texts and of tokens that were done since the last call.
ProgressListener = Callable[[int, int], None]


def count_records(job: CorpusJob) -> int | None:
    """Return the number of texts, after reading each once; None where standard input can be read only once.

    Raises:
        FormatError: A record cannot be read, or the target's ending is unknown.
    """
    if job.target is not None:
        check_ending(job.target)
    if any(source.is_stdin for source in job.sources):
        return None
    return sum(1 for _ in read_sources(job.sources, job.columns))


async def embed_corpus(
    embedder: VectorSource, job: CorpusJob, on_progress: ProgressListener
) -> CorpusSummary:
    """Embed all texts of a job.

    A run that was interrupted leaves a draft beside the target; the next run of the same job resumes from there.

    Args:
        embedder: The engine, or a server.
        job: What to embed.
        on_progress: Called with texts and tokens done since the last call; first with the texts of an earlier run.

    Raises:
        FormatError: A record cannot be read, or the model refuses its text; the error names the line.
        InputError: The model refuses an option.
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
        return await _embed_chunks(embedder, job, sink, on_progress)
    try:
        draft = Draft(job.target, _identity(job, model))
        try:
            return await _fill_draft(draft, embedder, job, model, on_progress)
        except (FormatError, InputError):
            # What is wrong with the job would be wrong in the next run too.
            draft.discard()
            raise
        finally:
            draft.close(keeps=job.can_resume)
    except OSError as error:
        raise ArtefactError(f"{job.target}: cannot be written ({error.strerror})") from error


async def _fill_draft(
    draft: Draft,
    embedder: VectorSource,
    job: CorpusJob,
    model: ModelDescription,
    on_progress: ProgressListener,
) -> CorpusSummary:
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
        dtype=dtype.storage_dtype.name,
        with_text=job.with_text,
        offsets=draft.progress.offsets,
    )
    try:
        writer = open_writer(draft.path, metadata, options)
    except FileNotFoundError:
        # An earlier run was interrupted while it published, and some files have moved already.
        draft.reset()
        writer = open_writer(draft.path, metadata, replace(options, offsets={}))
    try:
        sink = _DraftSink(draft, writer)
        summary = await _embed_chunks(embedder, job, sink, on_progress)
        files = await asyncio.to_thread(writer.finish)
    finally:
        writer.close()
    draft.publish(files)
    return summary


def _identity(job: CorpusJob, model: ModelDescription) -> dict[str, object]:
    """Return all that decides an output; standard input is never the same twice."""
    return {
        "sources": [source.identity() for source in job.sources]
        if job.can_resume
        else uuid.uuid4().hex,
        "columns": [job.columns.text, job.columns.id],
        "options": [asdict(job.options), job.with_text],
        "model": asdict(model),
    }


class _DraftSink:
    """Writes chunks to a draft and commits each.

    Attributes:
        start: The progress that an earlier run committed.
    """

    def __init__(self, draft: Draft, writer: Writer) -> None:
        self._draft = draft
        self._writer = writer
        self.start = draft.progress

    def write(self, records: Sequence[Record], result: Embedded, progress: Progress) -> None:
        """Write a chunk's vectors, sync them to disk and commit the progress."""
        self._writer.write(records, result.vectors)
        progress.offsets = self._writer.sync()
        self._draft.commit(progress)


class _StdoutSink:
    """Writes chunks to standard output.

    Attributes:
        start: No progress, since nothing can be resumed.
    """

    def __init__(self, *, with_text: bool) -> None:
        self._with_text = with_text
        self.start = Progress()

    def write(self, records: Sequence[Record], result: Embedded, progress: Progress) -> None:
        """Write a chunk's vectors as JSON lines."""
        del progress
        write_lines(sys.stdout.buffer, records, result.vectors, with_text=self._with_text)
        sys.stdout.buffer.flush()


async def _embed_chunks(
    embedder: VectorSource,
    job: CorpusJob,
    sink: _DraftSink | _StdoutSink,
    on_progress: ProgressListener,
) -> CorpusSummary:
    """Embed with some chunks in flight, and write them in order."""
    progress = sink.start
    resumed = progress.records
    on_progress(resumed, 0)
    records = islice(read_sources(job.sources, job.columns), resumed, None)
    chunks = _chunks(records)
    in_flight: deque[tuple[list[Record], asyncio.Task[Embedded]]] = deque()
    try:
        while True:
            while len(in_flight) < CHUNKS_IN_FLIGHT and (chunk := next(chunks, None)):
                in_flight.append((chunk, asyncio.create_task(_embed_chunk(embedder, job, chunk))))
            if not in_flight:
                return CorpusSummary(
                    progress.records, progress.tokens, progress.truncated, resumed=resumed
                )
            chunk, task = in_flight[0]
            result = await task
            in_flight.popleft()
            progress = Progress(
                records=progress.records + len(chunk),
                tokens=progress.tokens + result.tokens,
                truncated=progress.truncated + result.truncated,
            )
            await asyncio.to_thread(sink.write, chunk, result, progress)
            on_progress(len(chunk), result.tokens)
    finally:
        for _, task in in_flight:
            task.cancel()
        await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)


async def _embed_chunk(embedder: VectorSource, job: CorpusJob, chunk: list[Record]) -> Embedded:
    """Embed a chunk.

    Raises:
        FormatError: A text is refused; the error names its line.
        InputError: An option is refused.
    """
    try:
        return await embedder.embed([record.text for record in chunk], job.options)
    except InputError as error:
        if error.input_index is None:
            raise
        raise FormatError(f"{chunk[error.input_index].where}: {error.message}") from error


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Yield the records in lists of `CHUNK_TEXTS`, the last one shorter."""
    while chunk := list(islice(records, CHUNK_TEXTS)):
        yield chunk
