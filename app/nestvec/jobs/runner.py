"""Runs batches: claims their chunks and steps under leases, a few at a time, and keeps the leases alive.

Each line is answered exactly once, however many servers share the store and whichever of them die: parts are immutable,
stored before their chunk is noted as done, and noted only by the runner that still holds it (see `jobs/chunks.py`).
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from nestvec.errors import StoreError
from nestvec.jobs.batch_steps import BatchSteps, RunningStep
from nestvec.jobs.chunk_runner import ChunkRunner, RunningChunk
from nestvec.jobs.model_waits import MODEL_WAIT_S, ModelWaits
from nestvec.jobs.store import JobStore
from nestvec.jobs.store_access import StoreAccess
from nestvec.jobs.tables import batches
from nestvec.jobs.types import (
    BatchChunk,
    BatchJob,
    JobLimits,
    JobObserver,
    LineHandler,
    Status,
    StoredFile,
)
from nestvec.observability.logs import frames_of, get_logger

log = get_logger(__name__)

# Some in flight keep the workers fed while one is stored.
CHUNKS_AT_ONCE: Final = 3
# Several, so that a small batch need not wait for a large one.
STEPS_AT_ONCE: Final = 2
# So many more, of each kind, for keys that have nothing in flight: they need not wait until one of the others is done.
FOR_NEWCOMERS: Final = 1
# How often the store is searched for what other processes have put there, and for batches to stop.
POLL_S: Final = 0.5
# How often it is searched for batches to check or to put together while chunks run.
STEPS_INTERVAL_S: Final = 0.25
RENEWALS: Final = 3  # in the life of a lease
COUNT_S: Final = 5.0
SWEEP_INTERVAL_S: Final = 3600.0
# For so long chunks that may be what ends runners run by themselves, then for so long others do.
SUSPECTS_S: Final = 1.0

T = TypeVar("T")
ChunkKey = tuple[str, int]


@dataclass(slots=True)
class Claims:
    """What a runner has claimed at once."""

    check: BatchJob | None = None
    finalizing: BatchJob | None = None
    chunk: tuple[BatchChunk, BatchJob] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to claim."""
        return self.check is None and self.finalizing is None and self.chunk is None


class JobRunner:
    """Runs the batches of a store.

    Args:
        store: Where the batches are.
        handler: Answers lines.
        limits: Bounds on input files.
        runs: Whether batches are run in this process; else they are only noted, for the process that runs them.
        observer: Told what was done.
        model_wait_s: How long a model that cannot be loaded is tried again before its lines fail.
    """

    def __init__(
        self,
        store: JobStore,
        handler: LineHandler,
        limits: JobLimits,
        *,
        runs: bool = True,
        observer: JobObserver,
        model_wait_s: float = MODEL_WAIT_S,
    ) -> None:
        self._runs = runs
        self._observer = observer
        self._access = StoreAccess(store, observer)
        # New at each start: what an earlier process held is not mistaken for this one's.
        self._holder = secrets.token_hex(8)
        self._waits = ModelWaits(handler, self.wake, model_wait_s)
        self._chunk_runner = ChunkRunner(
            self._access, handler, self._waits, self._holder, self._observer, self._look_soon
        )
        self._steps_doer = BatchSteps(self._access, handler, limits, self._holder, observer)
        self._wake = asyncio.Event()
        self._chunks: dict[ChunkKey, RunningChunk] = {}
        self._checks: dict[str, RunningStep] = {}
        self._finalizing: dict[str, RunningStep] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_suspects = self._is_unsure = False
        self._next_look_s = 0.0
        self._suspect_until_s = self._no_suspect_until_s = 0.0

    async def call(self, work: Callable[[JobStore], T]) -> T:
        """Call a function with the store's rows, off the event loop."""
        return await self._access.rows(work)

    async def call_contents(self, work: Callable[[JobStore], T]) -> T:
        """Call a function that reads or writes contents of the store, off the event loop."""
        return await self._access.contents(work)

    async def add_file(
        self, file: StoredFile, content: Path, max_stored_bytes: int, upload_id: str
    ) -> None:
        """Take over a finished upload; this may take as long as an object store needs for it.

        Args:
            file: What is noted of it.
            content: Path of its content, which is moved to where contents lie.
            max_stored_bytes: Size that all files of the owner may have together.
            upload_id: The upload that it comes from, whose room it takes.

        Raises:
            QuotaError: The owner's files would be too large.
            StoreError: The store failed.
        """
        name = self._access.store.content_name(file.id)
        await self._access.contents(lambda store: store.objects.put(name, content))
        try:
            await self._access.rows(
                lambda store: store.note_file(file, max_stored_bytes, upload_id)
            )
        except BaseException:
            with contextlib.suppress(StoreError):
                await self._access.contents(lambda store: store.objects.delete([name]))
            raise

    def start(self) -> None:
        """Go on with the batches that an earlier process left unfinished, then wait for new ones."""
        if self._runs:
            for work in (self._serve, self._watch, self._sweep):
                self._begin(self._for_ever(work))

    def wake(self) -> None:
        """Search the store for batches to run now."""
        self._next_look_s = 0.0
        self._wake.set()

    def _look_soon(self) -> None:
        """Look for steps of batches when the next chunk is claimed."""
        self._next_look_s = 0.0

    async def close(self) -> None:
        """Stop all batches and give back what is held; what is not finished runs again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._waits.close()
        with contextlib.suppress(StoreError):
            await self._access.rows(lambda store: store.release_all(self._holder))
        await self._access.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _for_ever(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a loop of the runner, and go on with it after an error that nobody has thought of."""
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - batches must go on
                log.error("runner_failed", frames=frames_of(error))  # noqa: TRY400 - no message of unknown errors
                await asyncio.sleep(POLL_S)

    # Claiming

    async def _serve(self) -> None:
        if not self._access.store.has_other_servers:
            # Nobody else runs batches here: whoever holds something is gone.
            await self._insist_rows(lambda store: store.release_all(None))
        while True:
            self._wake.clear()
            claims = await self._insist_rows(self._claim)
            self._start(claims)
            if claims.is_empty:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()

    def _claim(self, store: JobStore) -> Claims:
        """Claim what there is room for; runs in a thread."""
        if self._is_unsure:
            # What was claimed without hearing so would be held until the lease runs out.
            steps = [*self._checks, *self._finalizing]
            store.release_all(self._holder, list(self._chunks), steps)
        claims = Claims()
        self._is_unsure = True
        self._claim_into(store, claims)
        self._is_unsure = False
        return claims

    def _claim_into(self, store: JobStore, claims: Claims) -> None:
        is_look_due = time.monotonic() >= self._next_look_s
        if is_look_due:
            self._look_for_steps(store, claims)
        suspects = self._takes_suspects(has_suspects=self._has_suspects)
        passed_over = _passed_over(self._chunks, 1 if suspects else CHUNKS_AT_ONCE)
        # Newcomers are searched for when steps are, not with every chunk.
        if suspects is not None and passed_over is not None and (is_look_due or not passed_over):
            skipped = self._skipped(store.now(), passed_over)
            chunk = store.chunks.claim(self._holder, skipped=skipped, suspects=suspects)
            if chunk is None and suspects:
                # Another server has it, or its model is being loaded.
                self._has_suspects = False
                chunk = store.chunks.claim(self._holder, skipped=skipped)
            if chunk is not None:
                claims.chunk = chunk, store.batch(chunk.batch_id)
            elif claims.is_empty:
                self._look_for_steps(store, claims)

    def _look_for_steps(self, store: JobStore, claims: Claims) -> None:
        """Claim steps of batches; not with every chunk, since looking costs as much as claiming one."""
        if (passed_over := _passed_over(self._finalizing, STEPS_AT_ONCE)) is not None:
            claims.finalizing = store.claim_finalizing(self._holder, passed_over)
        if (passed_over := _passed_over(self._checks, STEPS_AT_ONCE)) is not None:
            claims.check = store.claim_check(self._holder, passed_over)
        self._has_suspects = store.chunks.has_suspects()
        self._next_look_s = 0.0 if claims.check else time.monotonic() + STEPS_INTERVAL_S

    def _takes_suspects(self, *, has_suspects: bool) -> bool | None:
        """Whether the next chunk is one that may end the runner, which then runs alone; None: none may begin now."""
        if not has_suspects:
            return False
        now_s = time.monotonic()
        if now_s < self._no_suspect_until_s:
            return False
        if self._chunks:
            return None
        if not self._suspect_until_s:
            self._suspect_until_s = now_s + SUSPECTS_S
        elif now_s >= self._suspect_until_s:
            self._suspect_until_s, self._no_suspect_until_s = 0.0, now_s + SUSPECTS_S
            return False
        return True

    def _skipped(self, now: int, passed_over: Collection[str]) -> "sa.ColumnElement[bool] | None":
        """Batches of some owners, and those whose model is being loaded, unless they are to end."""
        models = self._waits.waiting
        if not models and not passed_over:
            return None
        is_waiting = sa.and_(
            sa.func.coalesce(batches.c.model, "").in_(models),
            batches.c.status != Status.CANCELLING.value,
            batches.c.expires_s > now,
        )
        return sa.or_(is_waiting, batches.c.owner.in_(passed_over))

    def _start(self, claims: Claims) -> None:
        if claims.check is not None:
            step = self._checks[claims.check.id] = RunningStep(claims.check)
            self._begin(self._run_step(self._checks, step, self._steps_doer.check))
        if claims.finalizing is not None:
            step = self._finalizing[claims.finalizing.id] = RunningStep(claims.finalizing)
            self._begin(self._run_step(self._finalizing, step, self._steps_doer.finalize))
        if claims.chunk is not None:
            chunk, batch = claims.chunk
            self._observer.chunk_claimed()
            running = self._chunks[chunk.batch_id, chunk.number] = RunningChunk(chunk, batch)
            self._begin(self._run_chunk(running))

    async def _run_chunk(self, running: RunningChunk) -> None:
        try:
            await self._chunk_runner.run(running)
        finally:
            del self._chunks[running.chunk.batch_id, running.chunk.number]
            self._wake.set()

    async def _run_step(
        self,
        running: dict[str, RunningStep],
        step: RunningStep,
        work: Callable[[RunningStep], Coroutine[Any, Any, None]],
    ) -> None:
        try:
            await work(step)
        finally:
            del running[step.batch.id]
            self.wake()

    # Watching what runs

    async def _watch(self) -> None:
        """Renew leases, and stop what was cancelled, has expired, or went to another runner."""
        next_renewal_s = next_count_s = 0.0
        while True:
            now_s = time.monotonic()
            await self._stop_doomed()
            if now_s >= next_renewal_s:
                await self._renew()
                next_renewal_s = now_s + self._access.store.lease_s / RENEWALS
            if now_s >= next_count_s:
                self._observer.counted(*await self._insist_rows(JobStore.counts))
                next_count_s = now_s + COUNT_S
            await asyncio.sleep(POLL_S)

    async def _stop_doomed(self) -> None:
        running: list[RunningChunk | RunningStep] = [*self._chunks.values(), *self._checks.values()]
        if not running:
            return
        ids = {one.batch.id for one in running}
        doomed = await self._insist_rows(lambda store: store.doomed(ids))
        for one in running:
            if one.batch.id in doomed:
                one.stop(doomed[one.batch.id])

    async def _renew(self) -> None:
        chunks, steps = dict(self._chunks), {**self._checks, **self._finalizing}
        if not chunks and not steps:
            return
        held = await self._insist_rows(
            lambda store: (
                store.chunks.renew(self._holder, chunks.keys()),
                store.renew_steps(self._holder, steps.keys()),
            )
        )
        for key, running in chunks.items():
            if key not in held[0] and self._chunks.get(key) is running:
                running.stop(None)
        for batch_id, step in steps.items():
            if batch_id not in held[1]:
                step.stop(None)

    async def _sweep(self) -> None:
        while True:
            gone, known = await self._insist_rows(JobStore.sweep_rows)
            await self._access.insist(
                self._access.contents, partial(JobStore.sweep_contents, gone=gone, known=known)
            )
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _insist_rows(self, work: Callable[[JobStore], T]) -> T:
        return await self._access.insist(self._access.rows, work)


def _passed_over(
    running: Mapping[Any, RunningChunk | RunningStep], at_once: int
) -> Collection[str] | None:
    """Owners who may begin no more, where there is room for newcomers only; None where there is no room at all."""
    if len(running) < at_once:
        return ()
    if len(running) < at_once + FOR_NEWCOMERS:
        return {one.batch.owner for one in running.values()}
    return None
