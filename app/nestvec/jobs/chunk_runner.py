"""Runs one chunk of a batch: whatever fails fails a line, and nothing that the chunk waits for holds others up."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from nestvec.errors import InternalError, ModelUnavailableError, NestvecError, NotReadyError
from nestvec.jobs.chunk_work import (
    BatchRequest,
    answer_parts,
    delete_parts,
    read_requests,
    refusal_parts,
    split_chunk,
)
from nestvec.jobs.chunks import SUSPECT_ATTEMPTS
from nestvec.jobs.model_waits import ModelWaits
from nestvec.jobs.objects import MissingObjectError
from nestvec.jobs.store_access import StoreAccess
from nestvec.jobs.types import (
    BatchChunk,
    BatchJob,
    ChunkResult,
    JobObserver,
    LineHandler,
    LineResult,
    Problem,
    Status,
)
from nestvec.observability.logs import frames_of, get_logger

log = get_logger(__name__)

# A chunk that lost its runner once more than a suspect is split; a single line that lost it so often is given up.
SPLIT_ATTEMPTS: Final = SUSPECT_ATTEMPTS + 1
LAST_ATTEMPTS: Final = SUSPECT_ATTEMPTS + 3
# Not even the refusal of its lines can be written.
HOPELESS_ATTEMPTS: Final = 2 * LAST_ATTEMPTS
LOST_INPUT: Final = Problem("store_error", "The input file is not in the store any more.")
FAULT: Final = Problem("internal_error", "The server had an error while running this batch.")


@dataclass(slots=True)
class RunningChunk:
    """A chunk that is being run.

    Attributes:
        chunk: The chunk.
        batch: Its batch, as it was when the chunk was claimed.
        answering: Answers its lines; None before and after that.
        verdict: Why its lines are not to be answered any more, "cancelled" or "expired".
        is_lost: Whether another runner has it now.
    """

    chunk: BatchChunk
    batch: BatchJob
    answering: "asyncio.Future[Sequence[LineResult]] | None" = None
    verdict: Status | None = None
    is_lost: bool = False

    def must_stop(self) -> bool:
        """Whether its lines are not to be answered any more."""
        return self.is_lost or self.verdict is not None

    def stop(self, verdict: Status | None) -> None:
        """Stop answering: the batch is to end, or another runner has the chunk (None)."""
        self.is_lost = self.is_lost or verdict is None
        self.verdict = verdict or self.verdict
        if self.answering is not None:
            self.answering.cancel()


@dataclass(frozen=True, slots=True)
class ChunkRunner:
    """Runs chunks.

    Attributes:
        access: The store.
        handler: Answers lines.
        waits: Where models are loaded.
        holder: Id of this runner.
        observer: Told what was done.
        on_last: Called in a thread when a batch is ready to be finalized.
    """

    access: StoreAccess
    handler: LineHandler
    waits: ModelWaits
    holder: str
    observer: JobObserver
    on_last: Callable[[], None]

    async def run(self, running: RunningChunk) -> None:
        """Run a claimed chunk to its end, or give it back."""
        chunk, batch = running.chunk, running.batch
        try:
            await self._run(running)
        except NotReadyError:
            # The server is shutting down: the chunk is given back when the runner closes.
            await asyncio.Event().wait()
        except MissingObjectError:
            await self._fail_batch(batch, LOST_INPUT)
        except Exception as error:  # noqa: BLE001 - the next chunk must run
            # Its message stays out of the log: it may quote a line.
            log.error("chunk_failed", batch=batch.id, chunk=chunk.number, frames=frames_of(error))  # noqa: TRY400
            if chunk.attempts >= HOPELESS_ATTEMPTS:
                await self._fail_batch(batch, FAULT)
            else:
                await self._release(chunk, is_attempt=True)

    async def _run(self, running: RunningChunk) -> None:
        access, chunk, batch = self.access, running.chunk, running.batch
        running.verdict = batch.refusal(access.store.now())
        if running.verdict is None and chunk.attempts >= SPLIT_ATTEMPTS and chunk.requests > 1:
            pieces = await access.insist(
                access.contents, partial(split_chunk, batch=batch, chunk=chunk)
            )
            await access.insist(
                access.rows, lambda store: store.chunks.split(chunk, self.holder, pieces)
            )
            return
        refusal = None if running.verdict else self._refusal_of(chunk, batch)
        if running.verdict is None and self.waits.is_waiting(batch.model):
            await self._release(chunk)
            return
        requests = await access.insist(
            access.contents, partial(read_requests, batch=batch, chunk=chunk)
        )
        results: Sequence[LineResult] | None = None
        if refusal is not None:
            results = [self.handler.refuse(refusal)] * len(requests)
        elif running.verdict is None:
            try:
                results = await self._answered(running, requests)
            except ModelUnavailableError:
                refusal = self.waits.begin(batch.model, has_failed=True)
                if refusal is None:
                    await self._release(chunk)
                    return
                results = [self.handler.refuse(refusal)] * len(requests)
        if not running.is_lost:
            await self._finish(running, requests, results)

    def _refusal_of(self, chunk: BatchChunk, batch: BatchJob) -> NestvecError | None:
        """Why the lines of a chunk are refused without being run; None where they may be run, or their model waits."""
        if chunk.attempts >= LAST_ATTEMPTS:
            return InternalError("The server failed each time that it ran this request.")
        return self.waits.begin(batch.model)

    async def _answered(
        self, running: RunningChunk, requests: Sequence[BatchRequest]
    ) -> Sequence[LineResult] | None:
        """Answer the requests of a chunk; None where that was stopped.

        Raises:
            ModelUnavailableError: Their model cannot be loaded.
            NotReadyError: The server is shutting down.
        """
        if running.must_stop():
            return None
        bodies = [body for _, body in requests]
        running.answering = asyncio.ensure_future(
            self.handler.answer(bodies, owner=running.batch.owner)
        )
        try:
            results = await running.answering
        except asyncio.CancelledError:
            if not running.must_stop():
                raise
            return None
        finally:
            running.answering = None
        self.waits.note_success(running.batch.model)
        return results

    async def _finish(
        self,
        running: RunningChunk,
        requests: Sequence[BatchRequest],
        results: Sequence[LineResult] | None,
    ) -> None:
        """Store what became of a chunk, and note it unless another runner has done so."""
        access, chunk, holder = self.access, running.chunk, self.holder
        if results is not None:
            write = partial(
                answer_parts, chunk=chunk, holder=holder, requests=requests, results=results
            )
        else:
            why = running.verdict or Status.CANCELLED
            write = partial(refusal_parts, chunk=chunk, holder=holder, requests=requests, why=why)
        result: ChunkResult = await access.insist(access.contents, write)
        now = access.store.now()
        if await access.insist(
            access.rows,
            lambda store: store.chunks.finish(chunk, holder, result, now, self.on_last),
        ):
            self.observer.lines_done(result.completed, result.failed)
        else:
            self.observer.claim_lost()
            await access.insist(access.contents, partial(delete_parts, result=result))

    async def _release(self, chunk: BatchChunk, *, is_attempt: bool = False) -> None:
        await self.access.insist(
            self.access.rows,
            lambda store: store.chunks.release(chunk, self.holder, is_attempt=is_attempt),
        )

    async def _fail_batch(self, batch: BatchJob, problem: Problem) -> None:
        await self.access.insist(
            self.access.rows, lambda store: store.fail_batch(batch.id, [problem])
        )
