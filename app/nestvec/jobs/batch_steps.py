"""What is done to a batch as a whole: its input is checked and cut, its answers are put together."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Final

from nestvec.errors import QuotaError, StoreError
from nestvec.jobs.chunk_runner import FAULT, LOST_INPUT
from nestvec.jobs.lines import Cut, InputCheck, check_lines, cut_behind, read_lines
from nestvec.jobs.objects import MissingObjectError, object_draft
from nestvec.jobs.store import PARTS, JobStore
from nestvec.jobs.store_access import StoreAccess
from nestvec.jobs.types import (
    BATCH_FILE_DAYS,
    DAY_S,
    BatchChunk,
    BatchJob,
    CheckedInput,
    ChunkResult,
    JobLimits,
    JobObserver,
    LineHandler,
    Problem,
    Purpose,
    Status,
    StoredFile,
)
from nestvec.observability.logs import frames_of, get_logger

log = get_logger(__name__)

LOST_PART: Final = Problem("store_error", "Some answers are not in the store any more.")
# Name and size of parts, in the order of the input.
Parts = Sequence[tuple[str, int]]


@dataclass(slots=True)
class RunningStep:
    """A step of a batch that is being done.

    Attributes:
        batch: The batch as it was when the step was claimed.
        verdict: Why the step need not be done any more, "cancelled" or "expired".
        is_stopped: Whether it need not be done, for that reason or because another runner has it.
    """

    batch: BatchJob
    verdict: Status | None = None
    is_stopped: bool = False

    def stop(self, verdict: Status | None) -> None:
        """Stop: the batch is to end, or another runner has it (None)."""
        self.verdict = verdict or self.verdict
        self.is_stopped = True


@dataclass(frozen=True, slots=True)
class BatchSteps:
    """Does the steps of batches.

    Attributes:
        access: The store.
        handler: Answers lines.
        limits: Bounds on input files.
        holder: Id of this runner.
        observer: Told of batches that have ended.
    """

    access: StoreAccess
    handler: LineHandler
    limits: JobLimits
    holder: str
    observer: JobObserver

    async def check(self, step: RunningStep) -> None:
        """Check and cut the input of a batch; the batch then is in progress, or has ended."""
        batch = step.batch
        try:
            await self._check(step)
        except MissingObjectError:
            await self._fail(batch, [LOST_INPUT])
        except QuotaError as error:
            await self._fail(batch, [Problem(error.code, error.message)])
        except Exception as error:  # noqa: BLE001 - the next batch must run
            # Its message stays out of the log: it may quote a line.
            log.error("batch_failed", batch=batch.id, frames=frames_of(error))  # noqa: TRY400
            await self._fail(batch, [FAULT])

    async def _check(self, step: RunningStep) -> None:
        access, batch, holder = self.access, step.batch, self.holder
        # A version without chunks may have checked it, and answered a part.
        is_checked = batch.total > 0
        if not is_checked and (verdict := batch.refusal(access.store.now())):
            step.stop(verdict)
        problems: list[Problem] = []
        found = None
        if is_checked:
            found = await access.insist(access.contents, partial(_cut_rest, batch=batch))
        elif not step.is_stopped:
            check = await access.insist(access.contents, partial(self._check_input, step=step))
            problems = check.problems
            chunks = [_chunk_of(batch, number, cut) for number, cut in enumerate(check.cuts)]
            found = CheckedInput(check.total, check.model, check.answer_bytes, chunks)
        if step.is_stopped and not is_checked:
            if verdict := step.verdict:
                has_ended = await access.insist(
                    access.rows, lambda store: store.end_unchecked(batch.id, holder, verdict)
                )
                if has_ended:
                    self.observer.batch_ended(verdict)
        elif problems:
            await self._fail(batch, problems)
        elif found is not None:
            begin = partial(
                JobStore.begin_batch,
                batch_id=batch.id,
                holder=holder,
                found=found,
                max_stored_bytes=self.limits.max_stored_bytes,
            )
            await access.insist(access.rows, begin)

    def _check_input(self, store: JobStore, *, step: RunningStep) -> InputCheck:
        name = store.content_name(step.batch.input_file_id)
        with _local_copy(store, name, lambda: step.is_stopped) as path:
            return check_lines(
                path,
                step.batch.endpoint,
                self.limits,
                dimensions=self.handler.dimensions,
                is_stopped=lambda: step.is_stopped,
            )

    async def _fail(self, batch: BatchJob, problems: Sequence[Problem]) -> None:
        has_ended = await self.access.insist(
            self.access.rows, lambda store: store.fail_batch(batch.id, problems)
        )
        if has_ended:
            self.observer.batch_ended(Status.FAILED)

    async def finalize(self, step: RunningStep) -> None:
        """Put the answers of a batch together, and end it; doing it again after a crash has the same result."""
        access, batch = self.access, step.batch
        try:
            results = await access.insist(access.rows, lambda store: store.chunks.results(batch.id))
            outputs = await access.insist(
                access.contents, partial(_put_together, batch=batch, results=results)
            )
        except MissingObjectError:
            if not step.is_stopped and await access.insist(
                access.rows, lambda store: store.lose_batch(batch.id, [LOST_PART])
            ):
                self.observer.batch_ended(Status.FAILED)
            return
        if await access.insist(access.rows, lambda store: store.end_batch(batch.id, outputs)):
            log.info("batch_ended", batch=batch.id, status=str(batch.outcome), requests=batch.total)
            self.observer.batch_ended(str(batch.outcome))
        await access.insist(access.contents, partial(_delete_parts_of, batch=batch))


@contextmanager
def _local_copy(store: JobStore, name: str, is_stopped: Callable[[], bool]) -> Iterator[Path]:
    """Give an object as a local file: as it lies, or as a copy that is gone afterwards."""
    path = store.objects.local_path(name)
    if path is not None:
        if store.objects.size(name) is None:
            raise MissingObjectError("The store has no such object.")
        yield path
        return
    with object_draft(store.drafts_folder) as draft:
        for piece in store.objects.read(name):
            draft.write(piece)
            if is_stopped():
                break
        draft.flush()
        yield Path(draft.name)


def _cut_rest(store: JobStore, *, batch: BatchJob) -> CheckedInput:
    """Cut the input of a batch of a version without chunks: what it has answered is the first chunk."""
    with _local_copy(store, store.content_name(batch.input_file_id), lambda: False) as path:
        cuts = cut_behind(read_lines(path, path.stat().st_size), batch.lines_done)
    chunks = [_chunk_of(batch, number, cut) for number, cut in enumerate(cuts)]
    done = None
    if batch.lines_done:
        done = ChunkResult(
            output_part=_old_part(batch, "output") if batch.output_bytes else None,
            output_bytes=batch.output_bytes,
            error_part=_old_part(batch, "errors") if batch.error_bytes else None,
            error_bytes=batch.error_bytes,
            completed=batch.completed,
            failed=batch.failed,
            input_tokens=batch.input_tokens,
        )
    return CheckedInput(batch.total, batch.model, batch.reserved_bytes, chunks, done)


def _chunk_of(batch: BatchJob, number: int, cut: Cut) -> BatchChunk:
    return BatchChunk(
        batch.id, number, cut.first_request, cut.requests, cut.offset_bytes, cut.size_bytes
    )


def _put_together(
    store: JobStore, *, batch: BatchJob, results: Sequence[ChunkResult]
) -> list[StoredFile]:
    """Store the output files of a batch; gives what is to be noted of them."""
    now = store.now()
    life_s = BATCH_FILE_DAYS * DAY_S if batch.output_expires_s is None else batch.output_expires_s
    outputs = []
    for file_id, kind, size in (
        (batch.output_file_id, "output", batch.output_bytes),
        (batch.error_file_id, "errors", batch.error_bytes),
    ):
        if file_id is None:
            continue
        if batch.chunks is None:
            parts = [(_old_part(batch, kind), size)]
        else:
            named = (result.part(kind) for result in results)
            parts = [(part, part_bytes) for part, part_bytes in named if part]
        name = store.content_name(file_id)
        if store.objects.size(name) != size:
            _concatenate(store, name, parts, size)
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
    return outputs


def _concatenate(store: JobStore, name: str, parts: Parts, size: int) -> None:
    """Store parts one behind the other as one object."""
    with object_draft(store.drafts_folder) as draft:
        for part, part_size in parts:
            path = store.objects.local_path(part)
            if path is not None:
                _append_file(draft, path, part_size)
            else:
                for piece in store.objects.read(part, 0, part_size):
                    draft.write(piece)
        draft.flush()
        if draft.tell() != size:
            raise StoreError("The parts of a batch are not as large as they were.")
        store.objects.put(name, Path(draft.name))


def _append_file(draft: IO[bytes], path: Path, size: int) -> None:
    """Append the first bytes of a file within the kernel."""
    draft.flush()
    try:
        with path.open("rb") as part:
            done = 0
            while done < size:
                sent = os.sendfile(draft.fileno(), part.fileno(), done, size - done)
                if not sent:
                    break
                done += sent
    except FileNotFoundError as error:
        raise MissingObjectError("The store has no such object.") from error
    draft.seek(0, os.SEEK_END)


def _delete_parts_of(store: JobStore, *, batch: BatchJob) -> None:
    """Delete all parts of a batch that has ended, those of lost claims included."""
    names = [stored.name for stored in store.objects.list(f"{PARTS}/{batch.id}")]
    store.objects.delete([*names, *(_old_part(batch, kind) for kind in ("output", "errors"))])


def _old_part(batch: BatchJob, kind: str) -> str:
    """Where a version without chunks collected the "output" or the "errors" of a batch."""
    return f"{PARTS}/{batch.id}.{kind}"
