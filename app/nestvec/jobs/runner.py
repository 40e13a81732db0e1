"""Runs batches: checks the input, keeps the engine busy with its lines, commits results in groups.

Exactly once across a crash: results are appended to two part files and synced, then their sizes are committed with
the number of lines they answer. After a crash the parts are cut back to the committed sizes and the job goes on with
the line after them.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from nestvec.errors import AccessError, NotReadyError
from nestvec.jobs.lines import Line, check_lines, read_lines, request_of
from nestvec.jobs.store import JobStore, new_id
from nestvec.jobs.types import (
    BATCH_FILE_DAYS,
    DAY_S,
    Batch,
    JobLimits,
    LineHandler,
    LineResult,
    Problem,
    Purpose,
    Status,
    StoredFile,
)
from nestvec.observability.logs import frames_of, get_logger
from nestvec.system.durable_files import open_at, sync

log = get_logger(__name__)

# Enough for length-sorted batches; some groups in flight keep the workers fed while one is committed.
GROUP_LINES: Final = 1024
GROUP_BYTES: Final = 256 * 1024  # of JSON: some 60,000 tokens, a small part of what may wait
GROUPS_IN_FLIGHT: Final = 3
BATCHES_AT_ONCE: Final = 4  # a small one need not wait for a large one
SWEEP_S: Final = 3600.0
NEVER_RAN: Final = {
    Status.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request ran."),
    Status.EXPIRED: ("batch_expired", "The batch's window closed before this request ran."),
}

T = TypeVar("T")
Request = tuple[str, Mapping[str, Any]]  # its custom id and body


class JobRunner:
    """Runs the batches of a store, a few at a time.

    Args:
        store: Where they are; all its calls are made in one thread.
        handler: Answers lines.
        limits: Bounds on inputs.
        runs: Whether batches are run here; else they are noted only, for the process that does.
        look_s: How often the store is looked at unasked.
    """

    def __init__(
        self,
        store: JobStore,
        handler: LineHandler,
        limits: JobLimits,
        *,
        runs: bool = True,
        look_s: float = SWEEP_S,
    ) -> None:
        self._store = store
        self._handler = handler
        self._limits = limits
        self._runs, self._look_s = runs, look_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nestvec-jobs")
        self._wake = asyncio.Event()
        self._in_flight = asyncio.Semaphore(GROUPS_IN_FLIGHT)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._main: asyncio.Task[None] | None = None

    async def call(self, work: Callable[[JobStore], T]) -> T:
        """Do something with the store, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)

    def start(self) -> None:
        """Go on with what an earlier process left, then wait for new batches."""
        if self._runs:
            self._main = asyncio.create_task(self._serve())

    def wake(self) -> None:
        """A batch is new, or another has ended."""
        self._wake.set()

    async def close(self) -> None:
        """Stop; what is not committed runs again at the next start."""
        tasks = [*self._tasks.values(), *([self._main] if self._main else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        self._store.close()

    async def _serve(self) -> None:
        sweep_at_s = 0.0
        while True:
            if time.monotonic() >= sweep_at_s:
                await self.call(JobStore.sweep)
                sweep_at_s = time.monotonic() + SWEEP_S
            self._wake.clear()
            for batch in await self.call(JobStore.unfinished):
                if batch.id not in self._tasks and len(self._tasks) < BATCHES_AT_ONCE:
                    task = asyncio.create_task(self._run_safely(batch))
                    self._tasks[batch.id] = task
                    task.add_done_callback(partial(self._ended, batch.id))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._wake.wait()

    def _ended(self, batch_id: str, _: "asyncio.Task[None]") -> None:
        del self._tasks[batch_id]
        self.wake()

    async def _run_safely(self, batch: Batch) -> None:
        """Run a batch; whatever goes wrong is its own end and nobody else's."""
        try:
            await self._run(batch)
        except NotReadyError:
            await asyncio.Event().wait()  # shutting down: the next process goes on
        except Exception as error:  # noqa: BLE001 - the next batch must run
            # Its message stays out of the log: it may quote a line.
            log.error("batch_failed", batch=batch.id, frames=frames_of(error))  # noqa: TRY400
            await self._fail(batch, [_fault(error)])

    async def _run(self, batch: Batch) -> None:
        if not batch.total:
            batch = await self._validate(batch)
        if batch.status in (Status.IN_PROGRESS, Status.CANCELLING):
            batch = await self._pump(batch)
        if batch.status is Status.FINALIZING:
            await self.call(partial(_finalize, batch=batch))
            log.info("batch_ended", batch=batch.id, status=str(batch.outcome), requests=batch.total)

    async def _validate(self, batch: Batch) -> Batch:
        path = self._store.content_path(batch.input_file_id)
        work = partial(check_lines, path, batch.endpoint, self._limits)
        found = await asyncio.to_thread(work)
        if found.problems:
            return await self._fail(batch, found.problems)

        def begin(store: JobStore) -> Batch:
            store.update_batch(batch.id, total=found.total, model=found.model)
            # A batch that was cancelled meanwhile stays so.
            status = Status.IN_PROGRESS
            return store.update_batch(batch.id, only_if=Status.VALIDATING, status=status)

        return await self.call(begin)

    async def _fail(self, batch: Batch, problems: list[Problem]) -> Batch:
        for kind in ("output", "errors"):
            self._store.part_path(batch, kind).unlink(missing_ok=True)
        return await self.call(
            lambda store: store.update_batch(batch.id, status=Status.FAILED, problems=problems)
        )

    def _groups_left(self, batch: Batch) -> Iterator[list[Request]]:
        """Requests that are not committed yet, in groups."""
        path = self._store.content_path(batch.input_file_id)
        lines = read_lines(path, self._limits.max_line_bytes)
        return _groups(islice(lines, batch.lines_done, None))

    async def _pump(self, batch: Batch) -> Batch:
        """Answer all lines that are not answered yet; gives the batch ready to be finalised."""
        groups = self._groups_left(batch)
        flying: deque[tuple[list[Request], asyncio.Task[list[LineResult]]]] = deque()
        outcome = Status.COMPLETED
        try:
            while True:
                outcome = await self._outcome(batch)
                if outcome is not Status.COMPLETED:
                    break
                while len(flying) < GROUPS_IN_FLIGHT and (
                    group := await asyncio.to_thread(next, groups, None)
                ):
                    flying.append((group, asyncio.create_task(self._answer(batch, group))))
                if not flying:
                    break
                group, task = flying[0]
                results = await task
                flying.popleft()
                batch = await self.call(
                    partial(_commit_answers, batch=batch, group=group, results=results)
                )
        finally:
            for _, task in flying:
                task.cancel()
            await asyncio.gather(*(task for _, task in flying), return_exceptions=True)
        if outcome is not Status.COMPLETED:
            batch = await self._give_up(batch, outcome)
        return await self.call(
            lambda store: store.update_batch(
                batch.id,
                status=Status.FINALIZING,
                outcome=outcome,
                output_file_id=new_id("file-") if batch.output_bytes else None,
                error_file_id=new_id("file-") if batch.error_bytes else None,
            )
        )

    async def _outcome(self, batch: Batch) -> Status:
        """What the batch is heading for, by now."""
        now = await self.call(lambda store: store.batch(batch.id))
        if now.status is Status.CANCELLING:
            return Status.CANCELLED
        return Status.EXPIRED if self._store.now() >= batch.expires_s else Status.COMPLETED

    async def _answer(self, batch: Batch, group: list[Request]) -> list[LineResult]:
        async with self._in_flight:
            bodies = [body for _, body in group]
            return list(await self._handler.answer(bodies, owner=batch.owner))

    async def _give_up(self, batch: Batch, outcome: Status) -> Batch:
        """Say of each line that never ran why."""
        code, message = NEVER_RAN[outcome]
        error = orjson.dumps({"code": code, "message": message})
        groups = self._groups_left(batch)
        while group := await asyncio.to_thread(next, groups, None):
            rows = b"".join(_row(custom_id, b"null", error) for custom_id, _ in group)
            work = partial(_commit, lines=len(group), output=b"", errors=rows, counts={})
            batch = await self.call(partial(work, batch=batch))
        return batch


def _fault(error: Exception) -> Problem:
    """Why a batch failed that is not to blame for it."""
    if isinstance(error, AccessError):  # the key was revoked meanwhile
        return Problem(error.code, error.message)
    if isinstance(error, OSError):
        return Problem("store_error", f"The server's disk failed: {error.strerror}.")
    return Problem("internal_error", "The server had an error while running this batch.")


def _groups(lines: Iterator[Line]) -> Iterator[list[Request]]:
    """Requests in groups bounded in number and bytes."""
    group: list[Request] = []
    size = 0
    for line in lines:
        group.append(request_of(line))
        size += len(line.content or b"")
        if len(group) >= GROUP_LINES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _commit_answers(
    store: JobStore, *, batch: Batch, group: list[Request], results: list[LineResult]
) -> Batch:
    """Commit what requests were answered with."""
    rows: dict[bool, list[bytes]] = {True: [], False: []}
    for (custom_id, _), result in zip(group, results, strict=True):
        response = b'{"status_code":%d,"request_id":"%s","body":%s}' % (
            result.status,
            new_id("req_").encode(),
            result.body,
        )
        is_good = result.status == 200  # noqa: PLR2004 - the status itself
        rows[is_good].append(_row(custom_id, response, b"null"))
    counts = {
        "completed": batch.completed + len(rows[True]),
        "failed": batch.failed + len(rows[False]),
        "input_tokens": batch.input_tokens + sum(result.tokens for result in results),
    }
    output, errors = b"".join(rows[True]), b"".join(rows[False])
    return _commit(
        store, batch=batch, lines=len(group), output=output, errors=errors, counts=counts
    )


def _commit(
    store: JobStore,
    *,
    batch: Batch,
    lines: int,
    output: bytes,
    errors: bytes,
    counts: Mapping[str, Any],
) -> Batch:
    """Put rows for so many lines on disk, then note them."""
    return store.update_batch(
        batch.id,
        lines_done=batch.lines_done + lines,
        output_bytes=_append(store.part_path(batch, "output"), batch.output_bytes, output),
        error_bytes=_append(store.part_path(batch, "errors"), batch.error_bytes, errors),
        **counts,
    )


def _row(custom_id: str, response: bytes, error: bytes) -> bytes:
    return b'{"id":"%s","custom_id":%s,"response":%s,"error":%s}\n' % (
        new_id("batch_req_").encode(),
        orjson.dumps(custom_id),
        response,
        error,
    )


def _append(path: Path, committed: int, content: bytes) -> int:
    """Write behind what is committed, dropping what a crash left there; gives the size."""
    if not content:
        return committed
    with open_at(path, committed) as file:
        file.write(content)
        return sync(file)


def _finalize(store: JobStore, *, batch: Batch) -> Batch:
    """Give the parts their places and names; done again after a crash, it comes to the same."""
    made = []
    now = store.now()
    life_s = BATCH_FILE_DAYS * DAY_S if batch.output_expires_s is None else batch.output_expires_s
    for file_id, kind, size in (
        (batch.output_file_id, "output", batch.output_bytes),
        (batch.error_file_id, "errors", batch.error_bytes),
    ):
        part = store.part_path(batch, kind)
        if file_id is None:
            part.unlink(missing_ok=True)
            continue
        if part.exists():
            os.truncate(part, size)
            part.replace(store.content_path(file_id))
        made.append(
            StoredFile(
                id=file_id,
                owner=batch.owner,
                purpose=Purpose.BATCH_OUTPUT,
                filename=f"{batch.id}_{kind}.jsonl",
                size_bytes=size,
                created_s=now,
                expires_s=now + life_s,
            )
        )
    return store.finish_batch(batch, made)
