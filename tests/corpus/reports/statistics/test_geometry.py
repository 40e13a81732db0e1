"""Geometry figures: the ends of each scale, and what lies between."""

import numpy as np
import pytest
from nestvec.corpus.reports.statistics.geometry import measure_geometry
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.postprocess import finish


def vectors(spreads: list[float], *, offset: float = 0.0, count: int = 3000) -> FloatArray:
    """Return unit vectors of these standard deviations along the axes, around a mean."""
    random = np.random.default_rng(0)
    raw = random.standard_normal((count, len(spreads))) * spreads + offset
    return finish(raw.astype(np.float32), dimensions=None, normalize=True)


def test_evenly_spread() -> None:
    """Evenly spread vectors have cosines around zero and use every direction."""
    geometry = measure_geometry(vectors([1.0] * 16))
    assert geometry.mean_cosine == pytest.approx(0, abs=0.01)
    assert geometry.effective_rank == pytest.approx(16, abs=0.3)
    assert geometry.isoscore > 0.98
    assert geometry.n == 2000


def test_in_a_corner_along_few_directions() -> None:
    """A mean shows in the cosines, and few directions show in effective rank and IsoScore."""
    corner = measure_geometry(vectors([1.0] * 16, offset=2.0))
    assert corner.mean_cosine > 0.7
    flat = measure_geometry(vectors([1.0] * 4 + [0.001] * 12))
    assert flat.effective_rank == pytest.approx(4, abs=0.3)
    assert 0.1 < flat.isoscore < 0.3
    line = measure_geometry(vectors([1.0] + [1e-6] * 15))
    assert line.effective_rank == pytest.approx(1, abs=0.01)
    assert line.isoscore == pytest.approx(0, abs=0.01)


def test_hubs() -> None:
    """Vectors of many dimensions have hubs, those of few hardly any."""
    low, high = (measure_geometry(vectors([1.0] * size)) for size in (3, 200))
    assert low.hubness < 0.6
    assert high.hubness > 2 * low.hubness
