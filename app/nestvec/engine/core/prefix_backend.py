"""A tower before a decoder: pictures become rows, which stand for their tokens among a text's."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend, BackendInfo
from nestvec.engine.types import Batch, RawOutput
from nestvec.errors import BackendError

# The decoder's input for what stands for the tokens of pictures, (P, width), float32.
PICTURE_ROWS: Final = "picture_rows"


@dataclass(frozen=True, slots=True)
class PrefixBackend:
    """A backend of two graphs: batches of texts run by one; those with pictures by both, one after the other.

    Attributes:
        decoder: Runs token ids, and rows in place of some.
        tower: Makes rows of pictures.
    """

    decoder: Backend
    tower: Backend

    @property
    def info(self) -> BackendInfo:
        """What the decoder is."""
        return self.decoder.info

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch as one of texts; whoever queues pictures says what their tokens cost in those."""
        return self.decoder.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch.

        Raises:
            BackendError: The runtime failed.
        """
        if not batch.prefix:
            return self.decoder.run(batch)
        given = [self.tower.run(each).hidden for each in batch.prefix]
        rows = np.concatenate([each for each in given if each is not None])
        if len(rows) != len(batch.arrays["picture_places"]):
            raise BackendError("the tower gave another number of rows than there are tokens")
        return self.decoder.run(replace(batch, arrays={**batch.arrays, PICTURE_ROWS: rows}))

    def close(self) -> None:
        """Free both."""
        self.tower.close()
        self.decoder.close()
