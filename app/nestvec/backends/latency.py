"""A lone text on an idle server uses several cores: a second session with threads inside a run."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.backend import Backend
from nestvec.engine.types import Batch, Layout, RawOutput


@dataclass(frozen=True, slots=True)
class LoneBackend:
    """Two backends of one graph: many narrow runs at once, or one wide run while nothing else runs or waits.

    Workers with one thread each give the most texts a second, but leave a lone text on one core; a request of
    several texts is split over the workers instead, which is better still.

    Attributes:
        narrow: One thread a run, for everything else.
        wide: Several threads a run.
    """

    narrow: Backend
    wide: Backend

    @property
    def layout(self) -> Layout:
        """Of both."""
        return self.narrow.layout

    @property
    def provider(self) -> str:
        """Of both."""
        return self.narrow.provider

    @property
    def hidden_size(self) -> int:
        """Of both."""
        return self.narrow.hidden_size

    @property
    def gives_tokens(self) -> bool:
        """Of both."""
        return self.narrow.gives_tokens

    @property
    def layers(self) -> int:
        """Of both."""
        return self.narrow.layers

    @property
    def pooling(self) -> str:
        """Of both."""
        return self.narrow.pooling

    @property
    def max_cost(self) -> float:
        """Of both."""
        return self.narrow.max_cost

    @property
    def gives_exits(self) -> bool:
        """Of both."""
        return self.narrow.gives_exits

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch; see `Backend`."""
        return self.narrow.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch.

        Raises:
            BackendError: The runtime failed.
        """
        return (self.wide if batch.is_lone else self.narrow).run(batch)

    def close(self) -> None:
        """Free both sessions."""
        self.wide.close()
        self.narrow.close()
