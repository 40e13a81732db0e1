"""Shows how far a model's preparation is, by a bar on a terminal, and logs what each step took."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from nestvec.model_store.preparation import Advance, Step, count_nothing
from nestvec.observability.logs import get_logger

log = get_logger(__name__)

EVENTS: Final[Mapping[Step, str]] = {
    Step.FETCH: "model_fetched",
    Step.EXPORT: "graph_exported",
    Step.COMPUTE_PROBES: "probes_computed",
    Step.CALIBRATE_ACTIVATIONS: "activations_calibrated",
    Step.CALIBRATE_VECTORS: "vectors_calibrated",
    Step.PACK_WEIGHTS: "weights_packed",
    Step.OPEN: "graph_opened",
    Step.CHECK_PROBES: "probes_checked",
}


@dataclass(frozen=True, slots=True)
class ShownPreparation:
    """Shows the steps of one model's preparation to whoever waits for it.

    Attributes:
        model: The model's name in the log.
    """

    model: str

    @contextmanager
    def step(self, step: Step, total: int = 0, unit: str = "") -> Iterator[Advance]:
        """Show a step on the terminal while it runs, and log its seconds once it has succeeded."""
        started_s = time.monotonic()
        with _bar(step, total, unit) as advance:
            yield advance
        took_s = round(time.monotonic() - started_s, 2)
        log.info(EVENTS[step], model=self.model, took_s=took_s)


@contextmanager
def _bar(step: Step, total: int, unit: str) -> Iterator[Advance]:
    """Show a bar where standard error is a terminal; it goes away with the step."""
    if not sys.stderr.isatty():
        yield count_nothing
        return
    # Imported here: a server that nobody watches never needs it.
    from tqdm import tqdm

    shape = "{desc}: {n_fmt}/{total_fmt} {unit}s [{elapsed}]" if total else "{desc} [{elapsed}]"
    if unit == "B":
        shape = "{desc}: {n_fmt}B, {rate_fmt} [{elapsed}]"
    with tqdm(
        total=total or None,
        unit=unit,
        unit_scale=unit == "B",
        desc=step,
        leave=False,
        bar_format=shape,
        file=sys.stderr,
    ) as bar:

        def advance(count: int) -> None:
            """Move the bar on."""
            bar.update(count)

        yield advance
