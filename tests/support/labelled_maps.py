"""Maps of the fake model whose values have labels."""

import numpy as np
from nestvec.engine.vectors.label_calibration import LabelCalibration
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish

from tests.support.fakes import HIDDEN
from tests.support.served import SPEC

LABELS = ("sports", "politics", "Kunst é")


def concept_map(
    name: str = "topics",
    calibration: LabelCalibration | None = None,
    labels: tuple[str, ...] = LABELS,
) -> AffineMap:
    """Make a map of random anchors."""
    random = np.random.default_rng(len(labels))
    drawn = random.standard_normal((len(labels), HIDDEN)).astype(np.float32)
    anchors = finish(drawn, dimensions=None, normalize=True)
    return AffineMap(
        name,
        MapKind.CONCEPTS,
        np.ascontiguousarray(anchors.T),
        np.zeros(len(labels), np.float32),
        SPEC.space,
        takes_unit=True,
        labels=labels,
        template="a text about {}",
        label_calibration=calibration,
    )


def label_calibration(
    *, temperature: float | None = 0.5, scores: int = 60, labels: int = len(LABELS)
) -> LabelCalibration:
    """Make a calibration of evenly spread scores."""
    count = 0 if temperature is None else scores
    return LabelCalibration(
        temperature,
        np.linspace(0.2, 0.9, count),
        count,
        np.linspace(1, 4, 2 * labels).reshape(labels, 2) * [1, -0.1],
        np.linspace(0.3, 0.8, labels),
    )
