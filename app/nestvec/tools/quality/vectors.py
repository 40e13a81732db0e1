"""Pooled vectors of many texts by the engine of this process, with all exits of one pass."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nestvec.corpus.reports.subjects import LocalService, bulk_call, in_calls
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import FloatArray


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
        call = replace(
            bulk_call(texts, role),
            layers=() if tuple(exits) == self.exits[-1:] else tuple(exits),
            map_id="",
            normalize=False,
        )
        on_progress = self.on_progress if is_counted else _ignore
        results = self._runner.run(in_calls(self._service.embed, call, on_progress))
        flat = np.concatenate([result.vectors for result in results])
        return flat.reshape(len(texts), max(1, len(call.layers)), -1).transpose(1, 0, 2)


def _ignore(texts: int) -> None:
    """Do nothing with progress that is not counted."""
