"""A second session with threads inside a run, so that a lone text on an idle server uses several cores."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend, BackendInfo
from nestvec.engine.types import Batch, RawOutput


@dataclass(frozen=True, slots=True)
class LatencyBackend:
    """Two backends of one graph: many narrow runs at once, or one wide run while nothing else runs or waits.

    Workers with one thread each give the most texts a second, but leave a lone text on one core; a request of
    several texts is split over the workers instead, which is better still.

    Attributes:
        narrow: Uses one thread for a run; takes every batch that is not alone.
        wide: Uses several threads for a run.
        wide_min_tokens: Texts of fewer tokens run narrow even where they are alone, for a wide backend that is slow to
            start on them.
    """

    narrow: Backend
    wide: Backend
    wide_min_tokens: int = 0

    @property
    def info(self) -> BackendInfo:
        """What both backends are: they run the same graph."""
        return self.narrow.info

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch of these lengths, (B,), int64, as the narrow backend does."""
        return self.narrow.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch on all cores if it is alone, else on one.

        Raises:
            BackendError: The runtime failed.
        """
        runs_wide = batch.is_lone and batch.lengths.sum() >= self.wide_min_tokens
        return (self.wide if runs_wide else self.narrow).run(batch)

    def close(self) -> None:
        """Free both sessions."""
        self.wide.close()
        self.narrow.close()
