"""Tells while a server runs whether what it is asked for has moved away from texts of reference.

Each test compares vectors of the reference with a uniform sample of those that were given since the last test: samples
of no two tests overlap. Vectors are held in memory only, and texts of callers nowhere.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from nestvec.corpus.reports.kinds.drift import energy_test
from nestvec.engine.front.vector_sampler import VectorSampler
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, FloatArray, Priority, Truncation
from nestvec.errors import NestvecError
from nestvec.observability.logs import frames_of, get_logger

log = get_logger(__name__)

# Fewer vectors say too little: the interval then goes on.
MIN_SAMPLE: Final = 100
CALL_TEXTS: Final = 16
SEED: Final = 7
# A test takes 0.3 s of a core, in nine parts with a pause behind each.
PAUSE_S: Final = 0.1


class DriftObserver(Protocol):
    """Is told what tests have found."""

    def drift_tested(self, model: str, *, distance: float, p: float) -> None:
        """Note a test of a model's vectors: their energy distance from the reference, and its permutation p."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """Vectors of reference, `[N, D]`, of a space."""

    space: str
    vectors: FloatArray


@dataclass(slots=True)
class DriftWatch:
    """Tests, every so often, the vectors that a service has given; for one event loop.

    Attributes:
        service: Gives vectors, and samples them.
        sampler: Samples them.
        texts: Texts of reference.
        observer: Told what tests find.
        interval_s: Time from one test to the next.
        pause_s: Pause between the parts of a test.
    """

    service: EmbeddingService
    sampler: VectorSampler
    texts: Sequence[str]
    observer: DriftObserver
    interval_s: float
    pause_s: float = PAUSE_S
    _references: dict[str, _Reference] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Draw the texts that are used, the same in every process."""
        drawn = np.random.default_rng(SEED).permutation(len(self.texts))[: self.sampler.size]
        self.texts = [self.texts[index] for index in np.sort(drawn)]

    async def run(self) -> None:
        """Sample and test until this is cancelled."""
        self.service.sampler = self.sampler
        try:
            while True:
                await asyncio.sleep(self.interval_s)
                await self._try()
        finally:
            self.service.sampler = None

    async def _try(self) -> None:
        """Test; an error that nobody expects is logged, and the next test has its turn."""
        try:
            await self.check()
        except Exception as error:  # noqa: BLE001 - whatever it is
            # Its message stays out of the log: it may quote a text.
            log.error("drift_test_failed", frames=frames_of(error))  # noqa: TRY400

    async def check(self) -> None:
        """Test every model of which enough vectors were given; the samples of the others go on."""
        for space, sampled in list(self.sampler.spaces.items()):
            is_loaded = sampled.model in {m.spec.name for m in self.service.models.loaded()}
            if sampled.reservoir.seen < MIN_SAMPLE or not is_loaded:
                continue
            reference = await self._reference(sampled.model)
            if reference is None:
                continue
            vectors = self.sampler.take(space)
            if space != reference.space:
                # Texts in another form, or another task's adapter: the model's own space is the one that is watched.
                continue
            distance, p = await asyncio.to_thread(
                energy_test, reference.vectors, vectors, SEED, lambda: time.sleep(self.pause_s)
            )
            self.observer.drift_tested(sampled.model, distance=distance, p=p)

    async def _reference(self, model: str) -> _Reference | None:
        """Return the vectors of reference of a model, embedded once, as bulk; None where that fails now."""
        if model in self._references:
            return self._references[model]
        parts: list[FloatArray] = []
        space = ""
        step = min(CALL_TEXTS, self.service.limits.max_inputs)
        try:
            for start in range(0, len(self.texts), step):
                call = EmbedCall(
                    self.texts[start : start + step],
                    model=model,
                    normalize=True,
                    truncate=Truncation.END,
                    prompt_role=self.sampler.role,
                    priority=Priority.BULK,
                    # So that it is not sampled itself.
                    uses_cache=False,
                )
                result = await self.service.embed(call)
                parts.append(np.asarray(result.vectors, np.float32))
                space = result.space
        except NestvecError as error:
            if model not in self._failed:
                log.warning("drift_reference_failed", model=model, code=error.code)
            self._failed.add(model)
            return None
        reference = self._references[model] = _Reference(space, np.concatenate(parts))
        return reference
