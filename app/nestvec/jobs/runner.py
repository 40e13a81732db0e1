"""Runs batches: checks the input, keeps the engine busy with its lines, commits results in groups.

Each line is answered exactly once, even across a crash: results are appended to two part files and synced, then the
sizes of these are committed with the number of lines that they answer. After a crash the parts are cut back to the
committed sizes, and the batch goes on with the line after them.
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
    BatchJob,
    JobLimits,
    LineHandler,
    LineResult,
    Problem,
    Purpose,
    Status,
    StoredFile,
)
from nestvec.observability.logs import frames_of, get_logger
from nestvec.system.durable_files import open_truncated, sync

log = get_logger(__name__)

# Enough for length-sorted batches; some groups in flight keep the workers fed while one is committed.
GROUP_LINES: Final = 1024
# Of JSON: some 60,000 tokens, a small part of what may wait.
GROUP_BYTES: Final = 256 * 1024
GROUPS_IN_FLIGHT: Final = 3
# Several, so that a small batch need not wait for a large one.
BATCHES_AT_ONCE: Final = 4
SWEEP_INTERVAL_S: Final = 3600.0
NEVER_RAN: Final = {
    Status.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request ran."),
    Status.EXPIRED: ("batch_expired", "The batch's window closed before this request ran."),
}

T = TypeVar("T")
# The custom id and the body of a line.
BatchRequest = tuple[str, Mapping[str, Any]]


class JobRunner:
    """Runs the batches of a store, a few at a time.

    Args:
        store: Where the batches are; all its calls are made in one thread.
        handler: Answers lines.
        limits: Bounds on input files.
        runs: Whether batches are run in this process; else they are only noted, for the process that runs them.
        poll_s: How often the store is searched for new batches without a call of `wake`.
    """

    def __init__(
        self,
        store: JobStore,
        handler: LineHandler,
        limits: JobLimits,
        *,
        runs: bool = True,
        poll_s: float = SWEEP_INTERVAL_S,
    ) -> None:
        self._store = store
        self._handler = handler
        self._limits = limits
        self._runs, self._poll_s = runs, poll_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nestvec-jobs")
        self._wake = asyncio.Event()
        self._group_slots = asyncio.Semaphore(GROUPS_IN_FLIGHT)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._main: asyncio.Task[None] | None = None

    async def call(self, work: Callable[[JobStore], T]) -> T:
        """Call a function with the store, in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)

    def start(self) -> None:
        """Go on with the batches that an earlier process left unfinished, then wait for new ones."""
        if self._runs:
            self._main = asyncio.create_task(self._serve())

    def wake(self) -> None:
        """Search the store for batches to run now."""
        self._wake.set()

    async def close(self) -> None:
        """Stop all batches; what is not committed runs again at the next start."""
        tasks = [*self._tasks.values(), *([self._main] if self._main else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)
        self._store.close()

    async def _serve(self) -> None:
        next_sweep_s = 0.0
        while True:
            if time.monotonic() >= next_sweep_s:
                await self.call(JobStore.sweep)
                next_sweep_s = time.monotonic() + SWEEP_INTERVAL_S
            self._wake.clear()
            for batch in await self.call(JobStore.unfinished):
                if batch.id not in self._tasks and len(self._tasks) < BATCHES_AT_ONCE:
                    task = asyncio.create_task(self._run_safely(batch))
                    self._tasks[batch.id] = task
                    task.add_done_callback(partial(self._on_end, batch.id))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()

    def _on_end(self, batch_id: str, _: "asyncio.Task[None]") -> None:
        del self._tasks[batch_id]
        self.wake()

    async def _run_safely(self, batch: BatchJob) -> None:
        """Run a batch; whatever goes wrong fails this batch alone."""
        try:
            await self._run(batch)
        except NotReadyError:
            # The server is shutting down; the next process goes on with the batch.
            await asyncio.Event().wait()
        except Exception as error:  # noqa: BLE001 - the next batch must run
            # Its message stays out of the log: it may quote a line.
            log.error("batch_failed", batch=batch.id, frames=frames_of(error))  # noqa: TRY400
            await self._fail(batch, [_problem_of(error)])

    async def _run(self, batch: BatchJob) -> None:
        if not batch.total:
            batch = await self._validate(batch)
        if batch.status in (Status.IN_PROGRESS, Status.CANCELLING):
            batch = await self._answer_all(batch)
        if batch.status is Status.FINALIZING:
            await self.call(partial(_finalize, batch=batch))
            log.info("batch_ended", batch=batch.id, status=str(batch.outcome), requests=batch.total)

    async def _validate(self, batch: BatchJob) -> BatchJob:
        """Check the input file of a batch; the batch then is in progress, or failed."""
        path = self._store.content_path(batch.input_file_id)
        check = await asyncio.to_thread(check_lines, path, batch.endpoint, self._limits)
        if check.problems:
            return await self._fail(batch, check.problems)

        def begin(store: JobStore) -> BatchJob:
            store.update_batch(batch.id, total=check.total, model=check.model)
            # A batch that was cancelled meanwhile stays so.
            status = Status.IN_PROGRESS
            return store.update_batch(batch.id, only_if=Status.VALIDATING, status=status)

        return await self.call(begin)

    async def _fail(self, batch: BatchJob, problems: list[Problem]) -> BatchJob:
        """End a batch as failed, without output."""
        for kind in ("output", "errors"):
            self._store.part_path(batch, kind).unlink(missing_ok=True)
        return await self.call(
            lambda store: store.update_batch(batch.id, status=Status.FAILED, problems=problems)
        )

    def _groups_left(self, batch: BatchJob) -> Iterator[list[BatchRequest]]:
        """Requests whose answers are not committed yet, in groups."""
        path = self._store.content_path(batch.input_file_id)
        lines = read_lines(path, self._limits.max_line_bytes)
        return _groups(islice(lines, batch.lines_done, None))

    async def _answer_all(self, batch: BatchJob) -> BatchJob:
        """Answer all lines that are not answered yet; gives the batch ready to be finalized."""
        groups = self._groups_left(batch)
        in_flight: deque[tuple[list[BatchRequest], asyncio.Task[list[LineResult]]]] = deque()
        outcome = Status.COMPLETED
        try:
            while True:
                outcome = await self._outcome(batch)
                if outcome is not Status.COMPLETED:
                    break
                while len(in_flight) < GROUPS_IN_FLIGHT and (
                    group := await asyncio.to_thread(next, groups, None)
                ):
                    in_flight.append((group, asyncio.create_task(self._answer(batch, group))))
                if not in_flight:
                    break
                group, task = in_flight[0]
                results = await task
                in_flight.popleft()
                batch = await self.call(
                    partial(_commit_answers, batch=batch, group=group, results=results)
                )
        finally:
            for _, task in in_flight:
                task.cancel()
            await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)
        if outcome is not Status.COMPLETED:
            batch = await self._refuse_remaining(batch, outcome)
        return await self.call(
            lambda store: store.update_batch(
                batch.id,
                status=Status.FINALIZING,
                outcome=outcome,
                output_file_id=new_id("file-") if batch.output_bytes else None,
                error_file_id=new_id("file-") if batch.error_bytes else None,
            )
        )

    async def _outcome(self, batch: BatchJob) -> Status:
        """The final status that the batch would get now."""
        current = await self.call(lambda store: store.batch(batch.id))
        if current.status is Status.CANCELLING:
            return Status.CANCELLED
        return Status.EXPIRED if self._store.now() >= batch.expires_s else Status.COMPLETED

    async def _answer(self, batch: BatchJob, group: list[BatchRequest]) -> list[LineResult]:
        async with self._group_slots:
            bodies = [body for _, body in group]
            return list(await self._handler.answer(bodies, owner=batch.owner))

    async def _refuse_remaining(self, batch: BatchJob, outcome: Status) -> BatchJob:
        """Write for each line that never ran why it did not."""
        code, message = NEVER_RAN[outcome]
        error = orjson.dumps({"code": code, "message": message})
        groups = self._groups_left(batch)
        while group := await asyncio.to_thread(next, groups, None):
            rows = b"".join(_row(custom_id, b"null", error) for custom_id, _ in group)
            batch = await self.call(
                partial(_commit, batch=batch, lines=len(group), output=b"", errors=rows, counts={})
            )
        return batch


def _problem_of(error: Exception) -> Problem:
    """Tell why a batch failed whose input is not to blame."""
    # The key was revoked meanwhile.
    if isinstance(error, AccessError):
        return Problem(error.code, error.message)
    if isinstance(error, OSError):
        return Problem("store_error", f"The server's disk failed: {error.strerror}.")
    return Problem("internal_error", "The server had an error while running this batch.")


def _groups(lines: Iterator[Line]) -> Iterator[list[BatchRequest]]:
    """Collect the requests of lines in groups of bounded number and bytes."""
    group: list[BatchRequest] = []
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
    store: JobStore, *, batch: BatchJob, group: list[BatchRequest], results: list[LineResult]
) -> BatchJob:
    """Commit the answers to a group of requests."""
    rows: dict[bool, list[bytes]] = {True: [], False: []}
    for (custom_id, _), result in zip(group, results, strict=True):
        response = b'{"status_code":%d,"request_id":"%s","body":%s}' % (
            result.status,
            new_id("req_").encode(),
            result.body,
        )
        is_ok = result.status == 200  # noqa: PLR2004 - the status itself
        rows[is_ok].append(_row(custom_id, response, b"null"))
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
    batch: BatchJob,
    lines: int,
    output: bytes,
    errors: bytes,
    counts: Mapping[str, Any],
) -> BatchJob:
    """Write the rows that answer so many lines to disk, then commit their sizes and the counts."""
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
    """Write behind what is committed, dropping what a crash left there; gives the new size."""
    if not content:
        return committed
    with open_truncated(path, committed) as file:
        file.write(content)
        return sync(file)


def _finalize(store: JobStore, *, batch: BatchJob) -> BatchJob:
    """Move the parts to where files lie, and end the batch; doing it again after a crash has the same result."""
    outputs = []
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
        outputs.append(
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
    return store.finish_batch(batch, outputs)
