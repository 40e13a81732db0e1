"""Makes callers' reports: one at a time on the whole server, as bulk work, within a deadline, each in a thread.

What is to be read of texts stays in memory, so few may wait. A report is lost with its process, and says so: what it
would save by resuming is less than keeping callers' texts on the disk would cost them.
"""

import asyncio
import contextvars
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from nestvec.api.reports.report_files import ReportFolder, ReportRecord, ReportStatus
from nestvec.corpus.reports.frame import Report, ReportData, Task
from nestvec.corpus.reports.running import make_report
from nestvec.corpus.reports.subjects import service_subject
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.errors import DeadlineError, InputError, NestvecError, QueueFullError
from nestvec.observability.logs import frames_of, get_logger
from nestvec.system.file_locks import try_lock

log = get_logger(__name__)

T = TypeVar("T")
MAX_WAITING: Final = 8
MAX_OF_A_KEY: Final = 2
DEFAULT_TIMEOUT_S: Final = 900
MAX_TIMEOUT_S: Final = 3600
TURN_POLL_S: Final = 0.5
# How often a report under way writes how far it is, and looks whether it is to stop.
NOTE_S: Final = 5.0
RETRY_S: Final = 5.0
INTERNAL: Final = "the server had an error while making this report"
STOPPED: Final = "the server was stopped; nothing of the report is kept, send it again"

# Runs a call for a key, with its limits.
RunCall = Callable[[EmbedCall, str], Awaitable[EmbedResult]]


class StoppedError(Exception):
    """The caller has cancelled a report, or the server stops."""


@dataclass(frozen=True, slots=True)
class ReportOrder:
    """A report that is to be made.

    Attributes:
        record: As it is noted.
        report: Which.
        data: What it is made of.
        other_model: Name of the model to compare with; "" for none.
        seed: Of every draw.
        timeout_s: How long it may take, from its turn on.
    """

    record: ReportRecord
    report: Report
    data: ReportData
    other_model: str
    seed: int
    timeout_s: float


@dataclass(slots=True)
class _Run:
    """A report under way: what its thread and the event loop share."""

    deadline_s: float
    is_stopped: bool = False
    embedded_texts: int = 0
    tokens: int = 0

    def check(self) -> None:
        """Raise where the report is to end.

        Raises:
            StoppedError: It was cancelled.
            DeadlineError: It has had its time.
        """
        if self.is_stopped:
            raise StoppedError
        if time.monotonic() > self.deadline_s:
            raise DeadlineError(
                "The report's time has passed: ask for a longer 'timeout_s', or send fewer texts."
            )


@dataclass(slots=True)
class ReportJobs:
    """Takes and makes reports; for one event loop.

    Attributes:
        files: Where they are noted.
    """

    files: ReportFolder
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> "ReportJobs":
        """Return reports that are noted in a folder."""
        return cls(ReportFolder(folder))

    def check_room(self, owner: str) -> None:
        """Refuse a report before it is read further, where too many wait.

        Raises:
            QueueFullError: Too many wait, or too many of this key.
        """
        mine = sum(each == owner for each in self._owners.values())
        if len(self._tasks) >= MAX_WAITING or mine >= MAX_OF_A_KEY:
            raise QueueFullError(
                f"Too many reports are waiting: at most {MAX_OF_A_KEY} of a key and {MAX_WAITING} in all.",
                retry_after_s=RETRY_S,
            )

    def begin(self, order: ReportOrder, service: EmbeddingService, run_call: RunCall) -> None:
        """Make a report as soon as it is its turn, with the models that the caller may see."""
        report_id = order.record.id
        task = asyncio.create_task(
            self._make(order, service, run_call), context=contextvars.copy_context()
        )
        self._tasks[report_id] = task
        self._owners[report_id] = order.record.owner
        task.add_done_callback(lambda _: self._forget(report_id))

    async def cancel(self, report_id: str, owner: str) -> ReportRecord:
        """Stop a report, in whichever process it is made; one that has ended stays as it is.

        Raises:
            NotFoundError: The key has no such report.
        """
        record = await asyncio.to_thread(self.files.find, report_id, owner)
        if not ReportStatus(record.status).is_final:
            await asyncio.to_thread(self.files.ask_to_stop, report_id)
        return record

    async def close(self) -> None:
        """Stop all reports of this process."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, report_id: str) -> None:
        self._tasks.pop(report_id, None)
        self._owners.pop(report_id, None)

    async def _make(self, order: ReportOrder, service: EmbeddingService, run_call: RunCall) -> None:
        """Wait for the turn, make the report, and note how it ended."""
        record, run = order.record, _Run(float("inf"))
        watch = asyncio.create_task(self._watch(record, run))
        try:
            async with self._own_turn(record.id, run):
                run.deadline_s = time.monotonic() + order.timeout_s
                watch.cancel()
                record = dataclasses.replace(
                    record, status=ReportStatus.RUNNING, started_s=time.time()
                )
                await asyncio.to_thread(self.files.write, record)
                watch = asyncio.create_task(self._watch(record, run))
                result = await self._made(order, service, run_call, run)
            await self._end(record, run, ReportStatus.COMPLETED, watch, result=result)
        except StoppedError:
            await self._end(record, run, ReportStatus.CANCELLED, watch)
        except asyncio.CancelledError:
            run.is_stopped = True
            error = {"code": "interrupted", "message": STOPPED}
            await self._end(record, run, ReportStatus.FAILED, watch, error=error)
            raise
        except NestvecError as error:
            told = {"code": error.code, "message": error.message}
            await self._end(record, run, ReportStatus.FAILED, watch, error=told)
        except Exception as error:  # noqa: BLE001 - the next report must have its turn
            # Its message stays out of the log: it may quote a text.
            log.error("report_failed", report=order.report.name, frames=frames_of(error))  # noqa: TRY400
            told = {"code": "internal_error", "message": INTERNAL}
            await self._end(record, run, ReportStatus.FAILED, watch, error=told)

    async def _end(
        self,
        record: ReportRecord,
        run: _Run,
        status: ReportStatus,
        watch: "asyncio.Task[None]",
        **changes: Any,  # noqa: ANN401 - fields of the record
    ) -> None:
        """Note how a report ended; where even that fails, its file goes stale and says that it was lost."""
        watch.cancel()
        counted = dataclasses.replace(record, embedded_texts=run.embedded_texts, tokens=run.tokens)
        with suppress(NestvecError):
            await asyncio.to_thread(lambda: self.files.end(counted, status, **changes))

    async def _made(
        self, order: ReportOrder, service: EmbeddingService, run_call: RunCall, run: _Run
    ) -> dict[str, Any]:
        """Make the report in a thread, whose calls run in this event loop."""
        loop = asyncio.get_running_loop()
        owner = order.record.owner

        async def call(embed_call: EmbedCall) -> EmbedResult:
            run.check()
            result = await run_call(embed_call, owner)
            run.embedded_texts += len(embed_call.inputs)
            run.tokens += sum(result.input_tokens)
            return result

        def in_loop(work: Coroutine[Any, Any, T], /) -> T:
            try:
                run.check()
            except BaseException:
                work.close()
                raise
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        subjects = []
        for name in (order.record.model, *([order.other_model] if order.other_model else [])):
            slot = service.models.find(name, OutputKind.DENSE)
            await service.pool.load(slot)
            model = service.models.resolve(name, OutputKind.DENSE)
            subjects.append(service_subject(model, slot.name, call, in_loop))
        other = subjects[1] if len(subjects) > 1 else None
        task = Task(order.data, subjects[0], other, order.seed, run.check)
        made = await asyncio.to_thread(make_report, order.report, task)
        return made.as_json()

    @asynccontextmanager
    async def _own_turn(self, report_id: str, run: _Run) -> AsyncIterator[None]:
        """Wait until the reports before are done, and no other process of this server makes one.

        Raises:
            StoppedError: The report was cancelled while it waited.
        """
        with (self.files.folder / "turn.lock").open("ab") as file:
            while next(iter(self._tasks)) != report_id or not try_lock(file):
                run.check()
                await asyncio.sleep(TURN_POLL_S)
            run.check()
            yield

    async def _watch(self, record: ReportRecord, run: _Run) -> None:
        """Show that the report's process is alive and how far it is; look whether it is to stop."""
        elapsed_s = 0.0
        while True:
            await asyncio.sleep(TURN_POLL_S)
            elapsed_s += TURN_POLL_S
            if await asyncio.to_thread(self.files.is_to_stop, record.id):
                run.is_stopped = True
            if elapsed_s >= NOTE_S:
                elapsed_s = 0.0
                noted = dataclasses.replace(
                    record, embedded_texts=run.embedded_texts, tokens=run.tokens
                )
                with suppress(NestvecError):
                    await asyncio.to_thread(self.files.note, noted)


def timeout_of(seconds: int | None) -> float:
    """Return how long a report may take.

    Raises:
        InputError: It is not 1 to an hour.
    """
    if seconds is None:
        return DEFAULT_TIMEOUT_S
    if not 1 <= seconds <= MAX_TIMEOUT_S:
        raise InputError(f"'timeout_s' must be 1 to {MAX_TIMEOUT_S}", param="timeout_s")
    return float(seconds)
