"""What every route needs, in one object on the application."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from fastapi import Request

from nestvec.api.dialect_table import DIALECTS, TEI, TEI_1_8, Dialect
from nestvec.api.http.body import BodyRoom
from nestvec.api.token_input import TokenDecoder
from nestvec.engine.service import EmbeddingService
from nestvec.errors import NotReadyError, StoreError
from nestvec.jobs.runner import JobRunner
from nestvec.jobs.types import JobLimits
from nestvec.keys.keyring import Keyring
from nestvec.observability.metrics import Metrics
from nestvec.system.json_bodies import JsonLimits

# A restart or a first download takes longer than a second; clients with two tries should see the end of it.
RETRY_AFTER_LOADING_S = 5.0


class Phase(StrEnum):
    """Where the server is in its life."""

    LOADING = "loading"
    READY = "ready"
    RECOVERING = "recovering"  # the engine hangs, or its process has died and is started again
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Settings of the HTTP side.

    Attributes:
        max_body_bytes: After decompression.
        request_timeout_s: The longest a request may take.
        reject_unknown_fields: Refuse request fields that no dialect knows.
        emulates_tei_1_8: Refuse as TEI did through 1.8: 413 for 422, and nothing is cut unasked.
        protect_operations: Ask for a key on /metrics too.
        jobs: Bounds on files and batches.
        json: What JSON bodies may be like.
    """

    max_body_bytes: int
    request_timeout_s: float
    reject_unknown_fields: bool = False
    protect_operations: bool = False
    emulates_tei_1_8: bool = False
    jobs: JobLimits = field(default_factory=JobLimits)
    json: JsonLimits = field(default_factory=JsonLimits)


@dataclass(slots=True)
class ApiState:
    """Shared by all routes; found at `request.app.state.api`."""

    options: ApiOptions
    keys: Keyring
    tokens: TokenDecoder
    metrics: Metrics
    bodies: BodyRoom
    phase: Phase = Phase.LOADING
    on_reload: Callable[[], None] = lambda: None
    _jobs: JobRunner | None = field(default=None)
    _service: EmbeddingService | None = field(default=None)

    @property
    def service(self) -> EmbeddingService:
        """The engine.

        Raises:
            NotReadyError: It is still loading. While draining it still answers, until the port closes.
        """
        if self._service is None:
            raise NotReadyError("The model is loading.", retry_after_s=RETRY_AFTER_LOADING_S)
        return self._service

    def let_go(self) -> None:
        """Give back the models that the running request holds."""
        if self._service is not None:
            self._service.pool.let_go()

    def dialect(self, name: str) -> Dialect:
        """A row of the table of dialects, as the server is set."""
        return TEI_1_8 if name == TEI.name and self.options.emulates_tei_1_8 else DIALECTS[name]

    @property
    def jobs(self) -> JobRunner:
        """Files and batches.

        Raises:
            StoreError: The data folder could not be opened; the log says why.
        """
        if self._jobs is None:
            raise StoreError(
                "Files and batches are off: the server could not open its data folder."
            )
        return self._jobs

    def offer_jobs(self, jobs: JobRunner) -> None:
        """The data folder is open."""
        self._jobs = jobs

    def become_ready(self, service: EmbeddingService) -> None:
        """The engine is loaded, probed and warm; no effect once draining."""
        self._service = service
        if self._jobs is not None:
            self._jobs.start()
        if self.phase is Phase.LOADING:
            self.set_phase(Phase.READY)

    @property
    def has_service(self) -> bool:
        """Whether the engine was there once."""
        return self._service is not None

    def note_engine(self, *, is_up: bool) -> None:
        """The engine has gone, or has come back; no effect before the first time, and once draining."""
        if self.phase is Phase.READY and not is_up:
            self.set_phase(Phase.RECOVERING)
        elif self.phase is Phase.RECOVERING and is_up:
            self.set_phase(Phase.READY)

    def reload(self) -> None:
        """Read keys and aliases anew, as SIGHUP asks."""
        self.keys.reload()
        self.on_reload()

    def set_phase(self, phase: Phase) -> None:
        """Move on, and tell the metrics."""
        self.phase = phase
        self.metrics.ready.set(1 if phase is Phase.READY else 0)

    async def close(self) -> None:
        """Stop the batches, then the engine, if they ever started."""
        if self._jobs is not None:
            await self._jobs.close()
        if self._service is not None:
            await asyncio.to_thread(self._service.close)
        await asyncio.to_thread(self.keys.usage.close)


def api_state(request: Request) -> ApiState:
    """The state of the application that got this request."""
    state: ApiState = request.app.state.api
    return state
