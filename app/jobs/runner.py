"""Runs batches: checks the input, keeps the engine busy with its lines, commits results in groups.

Exactly once across a crash: results are appended to two part files and synced, then their sizes are committed with
the number of lines they answer. After a crash the parts are cut back to the committed sizes and the job goes on with
the line after them.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import orjson

from app.errors import NotReadyError
from app.jobs.lines import Line, check_lines, read_lines, request_of
from app.jobs.store import JobStore, new_id
from app.jobs.types import (
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
from app.logs import frames_of, get_logger

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


@dataclass(slots=True)
class _Parts:
    """The two files that results are appended to."""

    output: Path
    errors: Path

    def append(self, batch: Batch, output: bytes, errors: bytes) -> tuple[int, int]:
        """Write behind what is committed, and sync; gives the sizes."""
        return (
            _append(self.output, batch.output_bytes, output),
            _append(self.errors, batch.error_bytes, errors),
        )


class JobRunner:
    """Runs the batches of a store, a few at a time.

    Args:
        store: Where they are; all its calls are made in one thread.
        handler: Answers lines.
        limits: Bounds on inputs.
    """

    def __init__(self, store: JobStore, handler: LineHandler, limits: JobLimits) -> None:
        self._store = store
        self._handler = handler
        self._limits = limits
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
        while True:
            await self.call(JobStore.sweep)
            self._wake.clear()
            for batch in await self.call(JobStore.unfinished):
                if batch.id not in self._tasks and len(self._tasks) < BATCHES_AT_ONCE:
                    task = asyncio.create_task(self._run_safely(batch))
                    self._tasks[batch.id] = task
                    task.add_done_callback(partial(self._ended, batch.id))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
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
        path = self._store.files_folder / batch.input_file_id
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
        for path in (self._parts(batch).output, self._parts(batch).errors):
            path.unlink(missing_ok=True)
        return await self.call(
            lambda store: store.update_batch(batch.id, status=Status.FAILED, problems=problems)
        )

    def _parts(self, batch: Batch) -> _Parts:
        folder = self._store.parts_folder
        return _Parts(folder / f"{batch.id}.output", folder / f"{batch.id}.errors")

    async def _pump(self, batch: Batch) -> Batch:
        """Answer all lines that are not answered yet; gives the batch ready to be finalised."""
        path = self._store.files_folder / batch.input_file_id
        lines = islice(read_lines(path, self._limits.max_line_bytes), batch.lines_done, None)
        groups = _groups(lines)
        flying: deque[tuple[list[Line], asyncio.Task[list[LineResult]]]] = deque()
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
                commit = partial(_commit, parts=self._parts(batch), lines=group, results=results)
                batch = await self.call(partial(commit, batch=batch))
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

    async def _answer(self, batch: Batch, group: list[Line]) -> list[LineResult]:
        async with self._in_flight:
            bodies = [request_of(line)[1] for line in group]
            return list(await self._handler.answer(bodies, owner=batch.owner))

    async def _give_up(self, batch: Batch, outcome: Status) -> Batch:
        """Say of each line that never ran why."""
        code, message = NEVER_RAN[outcome]
        path = self._store.files_folder / batch.input_file_id
        lines = islice(read_lines(path, self._limits.max_line_bytes), batch.lines_done, None)
        for group in _groups(lines):
            batch = await self.call(
                partial(
                    _commit_unrun,
                    batch=batch,
                    parts=self._parts(batch),
                    lines=group,
                    error={"code": code, "message": message},
                )
            )
        return batch


def _fault(error: Exception) -> Problem:
    """Why a batch failed that is not to blame for it."""
    if isinstance(error, OSError):
        return Problem("store_error", f"The server's disk failed: {error.strerror}.")
    return Problem("internal_error", "The server had an error while running this batch.")


def _groups(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Lines in groups bounded in number and bytes."""
    group: list[Line] = []
    size = 0
    for line in lines:
        group.append(line)
        size += len(line.content or b"")
        if len(group) >= GROUP_LINES or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _commit(
    store: JobStore, *, batch: Batch, parts: _Parts, lines: list[Line], results: list[LineResult]
) -> Batch:
    """Put results on disk, then note them."""
    output, errors = bytearray(), bytearray()
    failed = 0
    for line, result in zip(lines, results, strict=True):
        response = b'{"status_code":%d,"request_id":"%s","body":%s}' % (
            result.status,
            new_id("req_").encode(),
            result.body,
        )
        is_good = result.status == 200  # noqa: PLR2004 - the status itself
        failed += not is_good
        row = _row(request_of(line)[0], response, b"null")
        if is_good:
            output += row
        else:
            errors += row
    sizes = parts.append(batch, bytes(output), bytes(errors))
    return store.update_batch(
        batch.id,
        lines_done=batch.lines_done + len(lines),
        output_bytes=sizes[0],
        error_bytes=sizes[1],
        completed=batch.completed + len(lines) - failed,
        failed=batch.failed + failed,
        input_tokens=batch.input_tokens + sum(result.tokens for result in results),
    )


def _commit_unrun(
    store: JobStore, *, batch: Batch, parts: _Parts, lines: list[Line], error: dict[str, str]
) -> Batch:
    """Note that lines never ran."""
    said = orjson.dumps(error)
    rows = b"".join(_row(request_of(line)[0], b"null", said) for line in lines)
    sizes = parts.append(batch, b"", rows)
    return store.update_batch(
        batch.id,
        lines_done=batch.lines_done + len(lines),
        output_bytes=sizes[0],
        error_bytes=sizes[1],
    )


def _row(custom_id: str, response: bytes, error: bytes) -> bytes:
    return b'{"id":"%s","custom_id":%s,"response":%s,"error":%s}\n' % (
        new_id("batch_req_").encode(),
        orjson.dumps(custom_id),
        response,
        error,
    )


def _append(path: Path, committed: int, content: bytes) -> int:
    """Write at the committed size, dropping what a crash left behind it."""
    if not (content or path.exists()):
        return 0
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(committed)
        file.seek(committed)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _finalize(store: JobStore, *, batch: Batch) -> Batch:
    """Give the parts their places and names; done again after a crash, it comes to the same."""
    made = []
    now = store.now()
    life_s = BATCH_FILE_DAYS * DAY_S if batch.output_expires_s is None else batch.output_expires_s
    for file_id, kind, size in (
        (batch.output_file_id, "output", batch.output_bytes),
        (batch.error_file_id, "errors", batch.error_bytes),
    ):
        part = store.parts_folder / f"{batch.id}.{kind}"
        if file_id is None:
            part.unlink(missing_ok=True)
            continue
        if part.exists():
            os.truncate(part, size)
            part.replace(store.files_folder / file_id)
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
