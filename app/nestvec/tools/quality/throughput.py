"""How fast a model runs when it stops early, measured in turns, so that only ratios of one run are compared."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nestvec.tools.quality.vectors import ModelVectors

ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Throughput:
    """Texts a second by the number of layers, of the same texts.

    Attributes:
        by_layers: The deepest last.
        all_exits: Of one pass that gives every exit.
    """

    by_layers: dict[int, float]
    all_exits: float

    def relative(self, layers: int) -> float:
        """Times the full model's."""
        return self.by_layers[layers] / self.by_layers[max(self.by_layers)]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "texts_per_s": {str(k): round(v, 1) for k, v in self.by_layers.items()},
            "relative": {str(k): round(self.relative(k), 3) for k in self.by_layers},
            "all_exits_relative": round(self.all_exits / self.by_layers[max(self.by_layers)], 3),
        }


def measure_throughput(
    model: ModelVectors, layers: Sequence[int], texts: Sequence[str]
) -> Throughput:
    """Run texts in each number of layers, in turns; the best of some rounds."""
    ways: dict[int, tuple[int, ...]] = {one: (one,) if one else () for one in layers}
    everything = -1
    ways[everything] = tuple(layers) if len(layers) > 1 else ways[layers[0]]
    best = dict.fromkeys(ways, 0.0)
    for _ in range(ROUNDS):
        for name, exits in ways.items():
            started = time.monotonic()
            model.raw(texts, exits, is_counted=False)
            best[name] = max(best[name], len(texts) / (time.monotonic() - started))
    whole = best.pop(everything)
    return Throughput(best, whole)
