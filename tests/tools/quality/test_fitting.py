"""Maps are fitted in closed form, and what they cost is measured on texts that they never saw."""

from typing import Any

import numpy as np
import pytest
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError
from nestvec.tools.quality.fitting import fit_linear, fit_turned, split
from numpy.typing import NDArray

N, WIDTH = 1200, 16


def unit(vectors: NDArray[Any]) -> FloatArray:
    """At unit length."""
    return finish(np.asarray(vectors, np.float32), dimensions=None, normalize=True)


@pytest.fixture
def vectors() -> FloatArray:
    """Spread unevenly, around a mean that is not zero, as embeddings are."""
    random = np.random.default_rng(0)
    scales = np.linspace(2, 0.05, WIDTH)
    turned = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
    return unit((random.standard_normal((N, WIDTH)) * scales) @ turned + 0.3)


def test_a_linear_relation_is_found(vectors: FloatArray) -> None:
    """Down to rounding, with a bias, from vectors of any length."""
    random = np.random.default_rng(1)
    weight = random.standard_normal((WIDTH, 12))
    target = unit(vectors @ weight + random.standard_normal(12))
    found = fit_linear(vectors, target, takes_unit=True)
    # The target was scaled to unit length row by row, which no affine map does: near, not exact.
    assert found.figures["cosine"] > 0.98
    assert found.figures["texts"] + found.figures["held_out_texts"] == N
    assert found.figures["loss"] == pytest.approx(1 - found.figures["migrated_recall_at_10"])
    one = found.as_map("a", MapKind.TRANSLATE, "space", target="t", target_model="m")
    cosines = np.einsum("nd,nd->n", unit(one.apply(vectors)), target)
    assert cosines.mean() > 0.98
    assert one.quantiser.vectors is not None


def test_identity_is_the_identity(vectors: FloatArray) -> None:
    """Nothing is lost where nothing changes."""
    found = fit_linear(vectors, vectors, takes_unit=False)
    assert found.figures["recall_at_10"] > 0.97
    assert found.figures["loss"] < 0.03


def test_noise_is_not_learned(vectors: FloatArray) -> None:
    """Unrelated vectors: the figures say so, since they are of texts held out."""
    noise = unit(np.random.default_rng(3).standard_normal((N, 12)).astype(np.float32))
    found = fit_linear(vectors, noise, takes_unit=True)
    assert found.figures["loss"] > 0.9


def test_turned_spaces(vectors: FloatArray) -> None:
    """SVD keeps every cosine and puts the most in front; whitening evens the spread; centring takes the mean off."""
    found = {
        kind: fit_turned(vectors, kind).as_map(kind.value, kind, "s") for kind in list(MapKind)[2:]
    }
    svd = found[MapKind.SVD].apply(vectors)
    np.testing.assert_allclose(svd @ svd.T, vectors @ vectors.T, atol=1e-4)
    energy = (svd.astype(np.float64) ** 2).mean(axis=0)
    assert (np.diff(energy) <= 1e-6).all()
    for kind in (MapKind.PCA, MapKind.WHITEN, MapKind.CENTRE):
        assert np.abs(found[kind].apply(vectors).mean(axis=0)).max() < 0.15
    spread = found[MapKind.WHITEN].apply(vectors).std(axis=0)
    assert spread[: WIDTH // 2].max() / spread[: WIDTH // 2].min() < 1.5
    figures = found[MapKind.SVD].figures
    half = WIDTH // 2
    assert figures[f"recall_at_10_of_{half}"] > figures[f"prefix_recall_at_10_of_{half}"]
    assert figures["recall_at_10"] > 0.99


def test_fits_do_not_depend_on_the_run(vectors: FloatArray) -> None:
    """The same texts give the same map, and so the same space."""
    spaces = {
        fit_turned(vectors, MapKind.PCA).as_map("pca", MapKind.PCA, "s").space for _ in range(2)
    }
    assert len(spaces) == 1


def test_too_few_texts_are_refused() -> None:
    """With how many are needed."""
    with pytest.raises(FormatError, match="960 are needed"):
        split(900, 384)
    own, held = split(960, 384)
    assert len(own) == 768
    assert not set(own) & set(held)
