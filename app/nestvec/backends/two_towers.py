"""Two graphs of one space: texts run by one, pictures by the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend, BackendInfo
from nestvec.engine.types import Batch, RawOutput


@dataclass(frozen=True, slots=True)
class TwoTowerBackend:
    """A backend for each tower; a batch is of texts or of pictures, never of both.

    Attributes:
        texts: Runs token ids.
        pictures: Runs pixels.
    """

    texts: Backend
    pictures: Backend

    @property
    def info(self) -> BackendInfo:
        """What the tower of texts is; that of pictures gives vectors of the same width."""
        return self.texts.info

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch as one of texts; whoever queues pictures says what their tokens cost in those."""
        return self.texts.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch.

        Raises:
            BackendError: The runtime failed.
        """
        return (self.pictures if batch.are_pictures else self.texts).run(batch)

    def close(self) -> None:
        """Free both."""
        self.pictures.close()
        self.texts.close()
