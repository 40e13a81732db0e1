"""The steps of preparing a model, each of which may take minutes: who waits can be shown what is done, and how far."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import Protocol

Advance = Callable[[int], None]


class Step(StrEnum):
    """A step of preparing a model, as a terminal shows it."""

    FETCH = "fetching"
    EXPORT = "exporting"
    COMPUTE_PROBES = "computing probes"
    CALIBRATE_ACTIVATIONS = "calibrating activations"
    CALIBRATE_VECTORS = "calibrating vectors"
    PACK_WEIGHTS = "packing weights"
    OPEN = "opening"
    CHECK_PROBES = "checking probes"


class PreparationListener(Protocol):
    """Is told which step a model's preparation is at."""

    def step(self, step: Step, total: int = 0, unit: str = "") -> AbstractContextManager[Advance]:
        """Enter a step; leaving the context ends it.

        Args:
            step: Which one.
            total: How many units there are to do; 0 where that is not known.
            unit: What is counted: "tensor", "text", "B" for bytes.

        Returns:
            A context whose value is called with the number of units done since the last call, by one thread.
        """


class SilentListener:
    """Tells nobody."""

    @contextmanager
    def step(self, step: Step, total: int = 0, unit: str = "") -> Iterator[Advance]:
        """Enter a step of which nobody is told."""
        del step, total, unit
        yield count_nothing


def count_nothing(count: int) -> None:
    """Take a number of units that are done, and do nothing."""
    del count
