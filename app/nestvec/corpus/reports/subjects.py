"""Models under report that this process runs, or its engine process."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np

from nestvec.corpus.reports.frame import CountedTokens, Subject
from nestvec.corpus.reports.statistics.types import ProgressCallback
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, FloatArray, Priority, Truncation
from nestvec.errors import InputError

T = TypeVar("T")

CALL_TEXTS: Final = 256
# Several, so that no worker waits for a call's last text.
CALLS_AT_ONCE: Final = 4


class LoopRunner(Protocol):
    """Runs a coroutine of the service's event loop from a thread that may block."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T:
        """Run it, and return what it gives."""


Call = Callable[[EmbedCall], Awaitable[EmbedResult]]


def service_subject(
    model: ServedModel,
    name: str,
    call: Call,
    run: LoopRunner,
    on_progress: ProgressCallback = lambda _: None,
) -> Subject:
    """Return a model of this process, or of its engine process, as a subject.

    Args:
        model: The served model.
        name: What calls name it by.
        call: Runs a call, in the event loop.
        run: Runs coroutines in that loop, from the report's thread.
        on_progress: Told how many texts were embedded.
    """

    def embed(texts: Sequence[str], role: str | None = None) -> FloatArray:
        return run(_vectors(call, replace(bulk_call(texts, role), model=name), on_progress))

    def time_run(texts: Sequence[str]) -> CountedTokens:
        started = time.monotonic()
        result = run(_answered(call, replace(bulk_call(texts, None), model=name)))
        return CountedTokens(sum(result.input_tokens), time.monotonic() - started)

    return Subject(
        name=model.spec.name,
        space=model.spec.space,
        embed=embed,
        time_run=time_run,
        tokenizer=model.tokenizer,
        token_table=model.token_table,
        provider=model.core.backend_info.provider,
        quantizer=model.quantizer.for_unit_vectors(),
    )


def bulk_call(texts: Sequence[str], role: str | None) -> EmbedCall:
    """Return a call that embeds texts whole, cut at their end, as bulk and past the cache."""
    return EmbedCall(
        list(texts),
        normalize=True,
        truncate=Truncation.END,
        prompt_role=role,
        priority=Priority.BULK,
        uses_cache=False,
    )


async def in_calls(call: Call, one: EmbedCall, on_progress: ProgressCallback) -> list[EmbedResult]:
    """Embed the texts of a call in calls of `CALL_TEXTS`, a few of them at once, and return their results in order.

    Raises:
        InputError: A text is refused; the error names its index.
    """
    slots = asyncio.Semaphore(CALLS_AT_ONCE)
    texts = one.inputs

    async def part(start: int) -> EmbedResult:
        chunk = texts[start : start + CALL_TEXTS]
        try:
            async with slots:
                result = await call(replace(one, inputs=chunk))
        except InputError as error:
            if error.input_index is not None:
                error.input_index += start
            raise
        on_progress(len(chunk))
        return result

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part(start)) for start in range(0, len(texts), CALL_TEXTS)]
    except BaseExceptionGroup as failed:
        # The others were only cancelled.
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _answered(call: Call, one: EmbedCall) -> EmbedResult:
    """Await a call, as event loops run coroutines only."""
    return await call(one)


async def _vectors(call: Call, one: EmbedCall, on_progress: ProgressCallback) -> FloatArray:
    results = await in_calls(call, one, on_progress)
    return np.concatenate([np.asarray(result.vectors, np.float32) for result in results])


class LocalService:
    """A service that this process runs, with its event loop; a context manager that closes both.

    Args:
        service: The service.
        on_progress: Called with the number of texts that were done since the last call.

    Attributes:
        on_progress: The same.
    """

    def __init__(self, service: EmbeddingService, on_progress: ProgressCallback) -> None:
        self._service = service
        self.on_progress = on_progress
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the event loop and the engine."""
        self._runner.close()
        self._service.close()


class LocalSubjects(LocalService):
    """Models under report that this process runs."""

    def names(self) -> list[str]:
        """Names of all models, the first one first."""
        return [slot.name for slot in self._service.models.all() if not slot.is_adapter]

    def subject(self, name: str) -> Subject:
        """Return a model, loaded.

        Raises:
            ModelError: It cannot be loaded.
        """
        slot = self._service.models.find(name)
        self._runner.run(self._service.pool.load(slot))
        return service_subject(
            self._service.models.resolve(name),
            name,
            self._service.embed,
            self._runner.run,
            self.on_progress,
        )
