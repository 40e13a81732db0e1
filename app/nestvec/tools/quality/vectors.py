"""Raw vectors of many texts by the engine of this process, all exits of one pass."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np

from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import (
    EmbedCall,
    EmbedResult,
    FloatArray,
    OutputKind,
    Priority,
    Truncation,
)

CALL_TEXTS: Final = 256
CALLS_AT_ONCE: Final = 4  # so that no worker waits for a call's last text
Progress = Callable[[int], object]


class ModelVectors:
    """A model of this process; a context manager, which ends its engine.

    Args:
        service: With one model.
        progress: Told how many texts were done.
    """

    def __init__(self, service: EmbeddingService, progress: Progress) -> None:
        self._service = service
        self._progress = progress
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the engine."""
        self._runner.close()
        self._service.close()

    @property
    def model(self) -> ServedModel:
        """What is served."""
        return self._service.models.resolve("")

    @property
    def width(self) -> int:
        """Of full vectors."""
        core = self.model.core
        return core.outputs.width(OutputKind.DENSE, core.traits.hidden_size) or 0

    @property
    def exits(self) -> tuple[int, ...]:
        """Every number of layers that may be run, rising; none where there is no choice."""
        return tuple(range(1, self.model.core.traits.layers + 1))

    def raw(
        self,
        texts: Sequence[str],
        exits: Sequence[int] = (),
        *,
        role: str | None = None,
        is_counted: bool = True,
    ) -> FloatArray:
        """Pooled vectors, not of unit length; texts that are too long lose their end.

        Args:
            texts: Any.
            exits: Numbers of layers; none for all of them.
            role: "query" or "passage", for the model's own prompts.
            is_counted: Whether they are part of the progress.

        Returns:
            (exits, N, H), float32; the first axis is 1 without exits.
        """
        layers = () if tuple(exits) == self.exits[-1:] else tuple(exits)
        progress = self._progress if is_counted else _ignore
        return self._runner.run(self._raw(texts, layers, role, progress))

    async def _raw(
        self,
        texts: Sequence[str],
        layers: tuple[int, ...],
        role: str | None,
        progress: Progress,
    ) -> FloatArray:
        slots = asyncio.Semaphore(CALLS_AT_ONCE)

        async def one(start: int) -> EmbedResult:
            own = texts[start : start + CALL_TEXTS]
            call = EmbedCall(
                own,
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
            progress(len(own))
            return result

        results = await asyncio.gather(*(one(n) for n in range(0, len(texts), CALL_TEXTS)))
        flat = np.concatenate([result.vectors for result in results])
        return flat.reshape(len(texts), max(1, len(layers)), -1).transpose(1, 0, 2)


def _ignore(texts: int) -> None:
    """Tell nobody."""
