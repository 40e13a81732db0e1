"""Pooled vectors of many texts by the engine of this process, with all exits of one pass."""

import asyncio
from collections.abc import Sequence

import numpy as np

from nestvec.corpus.reports.statistics.types import ProgressCallback
from nestvec.corpus.reports.subjects import CALL_TEXTS, CALLS_AT_ONCE, LocalService
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, FloatArray, Priority, Truncation


class ModelVectors(LocalService):
    """Embeds texts by the one model of a service of this process."""

    @property
    def model(self) -> ServedModel:
        """The served model."""
        return self._service.models.resolve("")

    @property
    def width(self) -> int:
        """Dimensions of full vectors."""
        core = self.model.core
        return core.pooler.vector_width(core.backend_info.hidden_size)

    @property
    def exits(self) -> tuple[int, ...]:
        """Every number of layers that may be run, rising; empty where there is no choice."""
        return tuple(range(1, self.model.core.backend_info.layers + 1))

    def raw(
        self,
        texts: Sequence[str],
        exits: Sequence[int] = (),
        *,
        role: str | None = None,
        is_counted: bool = True,
    ) -> FloatArray:
        """Return pooled vectors, not of unit length; texts that are too long lose their end.

        Args:
            texts: The N texts.
            exits: Numbers of layers, E of them; empty runs all layers.
            role: "query" or "passage", for the model's own prompts.
            is_counted: Whether the texts count as progress.

        Returns:
            `[E, N, H]`, float32; E is 1 without exits.
        """
        layers = () if tuple(exits) == self.exits[-1:] else tuple(exits)
        on_progress = self._on_progress if is_counted else _ignore
        return self._runner.run(self._raw(texts, layers, role, on_progress))

    async def _raw(
        self,
        texts: Sequence[str],
        layers: tuple[int, ...],
        role: str | None,
        on_progress: ProgressCallback,
    ) -> FloatArray:
        """Embed texts in calls of `CALL_TEXTS`, a few of them at once."""
        slots = asyncio.Semaphore(CALLS_AT_ONCE)

        async def embed(start: int) -> EmbedResult:
            chunk = texts[start : start + CALL_TEXTS]
            call = EmbedCall(
                chunk,
                layers=layers,
                map_id="",
                normalize=False,
                truncate=Truncation.END,
                prompt_role=role,
                priority=Priority.BULK,
                uses_cache=False,
            )
            async with slots:
                result = await self._service.embed(call)
            on_progress(len(chunk))
            return result

        results = await asyncio.gather(*(embed(n) for n in range(0, len(texts), CALL_TEXTS)))
        flat = np.concatenate([result.vectors for result in results])
        return flat.reshape(len(texts), max(1, len(layers)), -1).transpose(1, 0, 2)


def _ignore(texts: int) -> None:
    """Do nothing with progress that is not counted."""
