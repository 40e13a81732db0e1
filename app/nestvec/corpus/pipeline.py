"""Records to vectors: reads ahead, keeps calls in flight, writes in order, and commits by time."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.embedders import CorpusEmbedder, TextOptions, whole_texts
from nestvec.corpus.files.draft import Progress
from nestvec.corpus.job import CommitListener, CorpusJob, CorpusSummary, ProgressListener
from nestvec.corpus.reading.records import Record
from nestvec.corpus.reading.sources import read_sources
from nestvec.corpus.rows import Chunking, RowMaker
from nestvec.corpus.scan import NUMBERED, unique
from nestvec.corpus.sinks import Sink
from nestvec.corpus.store_writer import IdKind, Row, Vectors, joined_vectors
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.splitting import Span, Splitter
from nestvec.engine.vectors.groups import Groups, is_of_group, whole_groups
from nestvec.errors import FormatError, InputError

# What a kill -9 may lose; syncing to disk takes some milliseconds.
COMMIT_S: Final = 1.0
# Records of a batch that needs no vectors, as the output holds them already.
MAX_BATCH_RECORDS: Final = 4096


@dataclass(slots=True)
class RecordBatch:
    """Records that are embedded together.

    Attributes:
        records: Those to embed, with their content hashes.
        count: Number of all records, those that need no vectors included.
        unchanged: How many the output held already.
        doubled: How many had a text that came before.
    """

    records: list[tuple[Record, str]] = field(default_factory=list)
    count: int = 0
    unchanged: int = 0
    doubled: int = 0


@dataclass(frozen=True, slots=True)
class BatchRows:
    """What became of a batch.

    Attributes:
        rows: Its rows, those of a record together.
        vectors: Their vectors.
        tokens: Number of their tokens.
        truncated: Number of texts that were truncated.
    """

    rows: list[Row]
    vectors: Vectors
    tokens: int
    truncated: int


class Pipeline:
    """Embeds the records of one job into one sink.

    Args:
        source: What gives the vectors.
        job: What to embed.
        maker: Makes rows of records.
        sink: Where rows go.
        on_progress: Called with records and tokens done since the last call; first with the records of an earlier run.
        on_commit: Called with the number of records that an interruption does not lose.
    """

    def __init__(
        self,
        source: CorpusEmbedder,
        job: CorpusJob,
        maker: RowMaker,
        sink: Sink,
        on_progress: ProgressListener,
        on_commit: CommitListener,
    ) -> None:
        self._source = source
        self._job = job
        self._maker = maker
        self._sink = sink
        self._on_progress = on_progress
        self._on_commit = on_commit
        self._progress = sink.start
        self._committed_s = source.pacer.clock()
        self._seen: set[str] = set()
        self._unchanged = self._doubled = 0

    async def run(self) -> CorpusSummary:
        """Embed all records, complete the output, and return what was done."""
        resumed = self._progress.records
        if resumed:
            self._on_progress(resumed, 0)
        await self._embed_all()
        gone = self._sink.known.without(self._seen) if self._job.prunes else []
        await asyncio.to_thread(self._sink.finish, gone)
        progress = self._progress
        return CorpusSummary(
            texts=progress.records,
            rows=progress.rows,
            tokens=progress.tokens,
            truncated=progress.truncated,
            resumed=resumed,
            unchanged=self._unchanged,
            doubled=self._doubled,
        )

    async def _embed_all(self) -> None:
        """Embed with some calls in flight, and write them in order; what was written is committed, whatever happens."""
        batches = self._batches()
        in_flight: deque[tuple[RecordBatch, asyncio.Task[BatchRows]]] = deque()
        is_dirty = False
        try:
            while True:
                while len(in_flight) < self._source.pacer.in_flight:
                    batch = await asyncio.to_thread(next, batches, None)
                    if batch is None:
                        break
                    in_flight.append((batch, asyncio.create_task(self._embed_batch(batch))))
                if not in_flight:
                    return
                batch, task = in_flight[0]
                result = await task
                in_flight.popleft()
                await _whole(asyncio.create_task(asyncio.to_thread(self._write, batch, result)))
                is_dirty = True
                if self._source.pacer.clock() - self._committed_s >= COMMIT_S:
                    await _whole(asyncio.create_task(asyncio.to_thread(self._commit)))
                    is_dirty = False
                self._on_progress(batch.count, result.tokens)
        finally:
            for _, task in in_flight:
                task.cancel()
            await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)
            if is_dirty:
                self._commit()

    def _write(self, batch: RecordBatch, result: BatchRows) -> None:
        """Write a batch's rows, and count it as done."""
        if result.rows:
            self._sink.write(result.rows, result.vectors)
        for record, content_hash in batch.records:
            self._replace(self._maker.document(record), content_hash)
        progress = self._progress
        self._unchanged += batch.unchanged
        self._doubled += batch.doubled
        self._progress = Progress(
            records=progress.records + batch.count,
            rows=progress.rows + len(result.rows),
            tokens=progress.tokens + result.tokens,
            truncated=progress.truncated + result.truncated,
        )

    def _commit(self) -> None:
        """Make durable what was written."""
        self._sink.commit(self._progress)
        self._committed_s = self._source.pacer.clock()
        self._on_commit(self._progress.records)

    def _replace(self, document: str, content_hash: str) -> None:
        """Have rows go that a document's new rows stand for."""
        if self._sink.known.is_stale(document, content_hash):
            self._sink.replace(document, content_hash)

    def _batches(self) -> Iterator[RecordBatch]:
        """Yield all records that an earlier run had not committed, in batches of the size that the pace asks for."""
        batch, tokens = RecordBatch(), 0.0
        pacer = self._source.pacer
        cuts = self._job.chunking is not None
        skipped = self._progress.records
        for number, record in enumerate(self._records()):
            document = self._maker.document(record)
            content_hash = self._maker.content_hash(record) if self._job.is_incremental else ""
            is_double = self._is_double(document)
            is_known = self._sink.known.is_whole(document, content_hash)
            if number < skipped:  # written by an interrupted run
                if not is_known:
                    self._replace(document, content_hash)
                continue
            batch.count += 1
            if is_double:
                batch.doubled += 1
            elif is_known:
                batch.unchanged += 1
                self._replace(document, content_hash)
            else:
                batch.records.append((record, content_hash))
                tokens += sum(
                    pacer.estimate(part.picture or part.context + part.text, is_whole=cuts)
                    for part in record.texts
                )
            is_full = len(batch.records) >= pacer.max_texts or batch.count >= MAX_BATCH_RECORDS
            if is_full or tokens >= pacer.size_tokens:
                yield batch
                batch, tokens = RecordBatch(), 0.0
        if batch.count:
            yield batch

    def _records(self) -> Iterator[Record]:
        """Yield all records."""
        for source in self._job.sources:
            records = read_sources((source,), self._job.columns)
            checks = source.is_stdin and source.kind not in NUMBERED
            if checks and self._job.id_kind is not IdKind.SHA256:
                records = unique(records, self._job.id_kind)
            yield from records

    def _is_double(self, document: str) -> bool:
        """Whether a document came before, where ids are made of texts; notes it where that matters."""
        hashes_texts = self._job.id_kind is IdKind.SHA256 and self._job.chunking is None
        is_double = hashes_texts and document in self._seen
        if hashes_texts or self._job.prunes:
            self._seen.add(document)
        return is_double

    async def _embed_batch(self, batch: RecordBatch) -> BatchRows:
        """Embed a batch.

        Raises:
            FormatError: A text is refused; the error names its line.
            InputError: An option is refused.
        """
        records = [record for record, _ in batch.records]
        if not records:
            return BatchRows([], np.zeros((0, 0), np.float32), 0, 0)
        texts = [record.text for record in records]
        chunking = self._job.chunking
        try:
            spans, extra_tokens = [[(0, len(text))] for text in texts], 0
            if chunking is not None:
                spans, extra_tokens = await cut_documents(self._source, chunking, texts)
            rows = [
                row
                for (record, content_hash), pairs in zip(batch.records, spans, strict=True)
                for row in self._maker.rows(record, pairs, content_hash)
            ]
            owners = [index for index, pairs in enumerate(spans) for _ in pairs]
            if chunking is not None and chunking.is_late:
                result = await self._source.embed(texts, self._job.options, spans)
                tokens = result.tokens + extra_tokens
                return BatchRows(rows, result.vectors, tokens, result.truncated)
            made = await self._embed_rows(rows, [records[owner] for owner in owners])
            return replace(made, tokens=made.tokens + extra_tokens)
        except InputError as error:
            if error.input_index is None:
                raise
            where = records[error.input_index].where
            raise FormatError(f"{where}: {error.message}") from error

    async def _embed_rows(self, rows: Sequence[Row], records: Sequence[Record]) -> BatchRows:
        """Embed rows in calls of the size that the pace asks for; one, unless a document has many chunks.

        Each is read behind its record's context, the chunks of a document behind the same; a row of a group is made
        of all texts of it, in one call.

        Args:
            rows: The rows.
            records: The record of each.

        Raises:
            FormatError: A text or a group is refused; the error names its line.
            InputError: An option is refused.
        """
        parts: list[tuple[Record, str | Picture]]
        if self._job.columns.group:
            parts = [
                (part, part.picture or part.text) for record in records for part in record.texts
            ]
        else:
            parts = [
                (record, record.picture or row.text)
                for record, row in zip(records, rows, strict=True)
            ]
        texts, contexts = [text for _, text in parts], [part.context for part, _ in parts]
        whole = whole_texts(texts, contexts)
        groups = Groups(
            tuple(len(record.texts) for record in records),
            tuple(part.weight for part, _ in parts) if self._job.columns.weight else (),
        )
        made = []
        start = first = 0
        while start < len(texts):
            last = first + whole_groups(groups.sizes[first:], self._source.pacer.take(whole, start))
            of_call = groups.part(first, last)
            call = slice(start, start + sum(of_call.sizes))
            try:
                made.append(
                    await self._source.embed(
                        texts[call],
                        self._job.options,
                        contexts=contexts[call],
                        groups=of_call if self._job.columns.group else None,
                    )
                )
            except InputError as error:
                if error.input_index is None:
                    raise
                of_group = is_of_group(error)
                refused = records[first:last] if of_group else [part for part, _ in parts[call]]
                where = refused[error.input_index].where
                raise FormatError(f"{where}: {error.message}") from error
            start, first = call.stop, last
        return BatchRows(
            list(rows),
            joined_vectors([part.vectors for part in made]),
            sum(part.tokens for part in made),
            sum(part.truncated for part in made),
        )


async def cut_documents(
    source: CorpusEmbedder, chunking: Chunking, texts: Sequence[str]
) -> tuple[list[list[Span]], int]:
    """Cut documents.

    Args:
        source: Embeds them.
        chunking: How they are cut.
        texts: The documents.

    Returns:
        The chunks of each, in characters, and how many tokens were run to find them.

    Raises:
        InputError: A document is refused; names its index.
    """
    starts = await source.token_starts(texts)
    splitter = chunking.splitter
    if not splitter.needs_sentences:

        def cut() -> list[list[Span]]:
            return [chunking.spans(text, part) for text, part in zip(texts, starts, strict=True)]

        return await asyncio.to_thread(cut), 0

    def read() -> list[list[Span]]:
        pairs = zip(texts, starts, strict=True)
        return [splitter.sentences(text, part) if part else [] for text, part in pairs]

    sentences = await asyncio.to_thread(read)
    pieces = [
        text[start:stop]
        for text, spans in zip(texts, sentences, strict=True)
        for start, stop in spans
    ]
    vectors, tokens = await _embed_sentences(source, pieces)

    def cut_semantically() -> list[list[Span]]:
        found: list[list[Span]] = []
        first = 0
        for text, part, spans in zip(texts, starts, sentences, strict=True):
            rows = vectors[first : first + len(spans)]
            first += len(spans)
            own: Splitter = splitter.with_edges(spans, rows, part)
            found.append(chunking.spans(text, part, own))
        return found

    return await asyncio.to_thread(cut_semantically), tokens


async def _embed_sentences(
    source: CorpusEmbedder, pieces: Sequence[str]
) -> tuple[NDArray[np.float32], int]:
    """Vectors of sentences, (n, D), of unit length, in calls of the size that the pace asks for; and their tokens."""
    rows: list[NDArray[np.float32]] = []
    start = tokens = 0
    while start < len(pieces):
        stop = start + source.pacer.take(pieces, start)
        part = await source.embed(pieces[start:stop], TextOptions())
        rows.append(np.asarray(part.vectors, np.float32))
        tokens += part.tokens
        start = stop
    joined = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
    norms = np.linalg.norm(joined, axis=1, keepdims=True)
    return joined / np.maximum(norms, 1e-12), tokens


async def _whole(task: "asyncio.Task[None]") -> None:
    """Wait for what a thread does, also where the wait is cancelled: it would go on, beside what follows."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
