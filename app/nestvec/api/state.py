"""The state that all routes share, in one object on the application."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastapi import Request

from nestvec.api.dialect_table import DIALECTS, TEI, TEI_1_8, Dialect
from nestvec.api.http.answer_memory import AnswerMemory
from nestvec.api.http.body_memory import BodyMemoryBudget
from nestvec.api.reports.report_jobs import ReportJobs
from nestvec.api.token_input import TokenDecoder
from nestvec.engine.service import EmbeddingService
from nestvec.errors import NotReadyError, StoreError
from nestvec.jobs.types import JobLimits
from nestvec.keys.keyring import Keyring
from nestvec.observability.metrics import Metrics
from nestvec.system.json_bodies import JsonLimits

# They bring SQLAlchemy, which a server without files and batches does not need, and an extra.
if TYPE_CHECKING:
    from nestvec.jobs.runner import JobRunner
    from nestvec.observability.tracing.span_recorder import SpanRecorder

# A restart or a first download takes longer than a second; clients with two tries should see the end of it.
RETRY_AFTER_LOADING_S: Final = 5.0


class Phase(StrEnum):
    """Where the server is in its life cycle, as `/health` tells."""

    LOADING = "loading"
    READY = "ready"
    # The engine hangs, or its process has died and is being started again.
    RECOVERING = "recovering"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Settings of the HTTP side.

    Attributes:
        max_body_bytes: How long a body may be, before and after decompression.
        request_timeout_s: How long a request may take.
        reject_unknown_fields: Whether request fields that the dialect does not know are refused.
        protect_operations: Whether /metrics asks for a key too.
        emulates_tei_1_8: Whether TEI's routes refuse as TEI did through 1.8: with 413, and long inputs by default.
        has_console: Whether the console is served.
        card_dirs: Folders with model cards, earlier first.
        access_log_sample_ratio: Share of the quick answers without an error that get a line in the log.
        slow_request_s: Answers that took so many seconds get one always.
        jobs: Bounds on files and batches.
        json: What JSON bodies may be like.
    """

    max_body_bytes: int
    request_timeout_s: float
    reject_unknown_fields: bool = False
    protect_operations: bool = False
    emulates_tei_1_8: bool = False
    has_console: bool = False
    card_dirs: tuple[Path, ...] = ()
    access_log_sample_ratio: float = 1.0
    slow_request_s: float = 1.0
    jobs: JobLimits = field(default_factory=JobLimits)
    json: JsonLimits = field(default_factory=JsonLimits)


@dataclass(slots=True)
class ApiState:
    """What all routes share; found at `request.app.state.api`.

    Attributes:
        options: Settings of the HTTP side.
        keys: Callers' keys and what they have used.
        tokens: Decodes token arrays.
        metrics: What /metrics shows.
        body_memory: Memory for the bodies of requests under way.
        answer_memory: Memory for large answers under way.
        phase: Where the server is in its life.
        reports: Makes callers' reports.
        on_reload: Called by `reload` once keys have been read anew.
        recorder: Records spans; None where none are asked for.
    """

    options: ApiOptions
    keys: Keyring
    tokens: TokenDecoder
    metrics: Metrics
    body_memory: BodyMemoryBudget
    answer_memory: AnswerMemory
    reports: ReportJobs
    phase: Phase = Phase.LOADING
    on_reload: Callable[[], None] = lambda: None
    recorder: "SpanRecorder | None" = None
    _jobs: "JobRunner | None" = field(default=None)
    _service: EmbeddingService | None = field(default=None)

    @property
    def service(self) -> EmbeddingService:
        """The engine; while the server drains it still answers, until the port closes.

        Raises:
            NotReadyError: The engine is loading.
        """
        if self._service is None:
            raise NotReadyError("The model is loading.", retry_after_s=RETRY_AFTER_LOADING_S)
        return self._service

    def release_models(self) -> None:
        """Release the models that the running request holds."""
        if self._service is not None:
            self._service.pool.release_request()

    def dialect(self, name: str) -> Dialect:
        """Return a dialect as the server is configured."""
        return TEI_1_8 if name == TEI.name and self.options.emulates_tei_1_8 else DIALECTS[name]

    @property
    def jobs(self) -> "JobRunner":
        """The runner of batches, which has the store of files too.

        Raises:
            StoreError: The data folder could not be opened; the log says why.
        """
        if self._jobs is None:
            raise StoreError(
                "Files and batches are off: the server could not open its data folder."
            )
        return self._jobs

    def offer_jobs(self, jobs: "JobRunner") -> None:
        """Serve files and batches from now on: the data folder is open."""
        self._jobs = jobs

    def become_ready(self, service: EmbeddingService) -> None:
        """Serve requests from now on: the engine is loaded, probed and warm. A server that drains goes on draining."""
        self._service = service
        if self._jobs is not None:
            self._jobs.start()
        if self.phase is Phase.LOADING:
            self.set_phase(Phase.READY)

    @property
    def has_service(self) -> bool:
        """Whether the engine has ever been ready."""
        return self._service is not None

    def note_engine(self, *, is_up: bool) -> None:
        """Note that the engine has gone or is back; no effect before it was first ready, or while draining."""
        if self.phase is Phase.READY and not is_up:
            self.set_phase(Phase.RECOVERING)
        elif self.phase is Phase.RECOVERING and is_up:
            self.set_phase(Phase.READY)

    def reload(self) -> None:
        """Read keys and aliases again, as SIGHUP asks."""
        self.keys.reload()
        self.on_reload()

    def set_phase(self, phase: Phase) -> None:
        """Set the phase, and the gauge in the metrics."""
        self.phase = phase
        self.metrics.service.ready.set(1 if phase is Phase.READY else 0)

    async def close(self) -> None:
        """Stop reports and batches, then the engine, if they ever started."""
        await self.reports.close()
        if self._jobs is not None:
            await self._jobs.close()
        if self._service is not None:
            await asyncio.to_thread(self._service.close)
        await self.keys.close()
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)


def api_state(request: Request) -> ApiState:
    """Return the state of the application that serves a request."""
    state: ApiState = request.app.state.api
    return state
