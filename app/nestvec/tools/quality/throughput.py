"""How fast a model runs when it stops early, measured in turns, so that only ratios of one run are compared."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nestvec.tools.quality.vectors import ModelVectors

ROUNDS: Final = 3
# Key of the pass that gives every exit, beside the numbers of layers.
ALL_EXITS: Final = -1


@dataclass(frozen=True, slots=True)
class Throughput:
    """Texts per second by the number of layers, of the same texts.

    Attributes:
        by_layers: Texts per second by number of layers, the deepest last.
        all_exits: Texts per second of one pass that gives every exit.
    """

    by_layers: dict[int, float]
    all_exits: float

    def relative(self, layers: int) -> float:
        """Return the throughput of a number of layers as a multiple of the full model's."""
        return self.by_layers[layers] / self.by_layers[max(self.by_layers)]

    def as_json(self) -> dict[str, Any]:
        """Return the figures of report.json."""
        return {
            "texts_per_s": {str(k): round(v, 1) for k, v in self.by_layers.items()},
            "relative": {str(k): round(self.relative(k), 3) for k in self.by_layers},
            "all_exits_relative": round(self.all_exits / self.by_layers[max(self.by_layers)], 3),
        }


def measure_throughput(
    model: ModelVectors, layers: Sequence[int], texts: Sequence[str]
) -> Throughput:
    """Run texts through each number of layers, in turns, and keep the best of `ROUNDS` rounds."""
    exits_of: dict[int, tuple[int, ...]] = {count: (count,) if count else () for count in layers}
    exits_of[ALL_EXITS] = tuple(layers) if len(layers) > 1 else exits_of[layers[0]]
    best = dict.fromkeys(exits_of, 0.0)
    for _ in range(ROUNDS):
        for name, exits in exits_of.items():
            started = time.monotonic()
            model.raw(texts, exits, is_counted=False)
            best[name] = max(best[name], len(texts) / (time.monotonic() - started))
    all_exits = best.pop(ALL_EXITS)
    return Throughput(best, all_exits)
