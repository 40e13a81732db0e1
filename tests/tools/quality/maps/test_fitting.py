"""Maps are fitted in closed form, and what they lose is measured on texts that were held out."""

from typing import Any

import numpy as np
import pytest
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError
from nestvec.tools.quality.maps.fitting import fit_linear, fit_space_transform, split
from numpy.typing import NDArray

N, WIDTH = 1200, 16


def unit(vectors: NDArray[Any]) -> FloatArray:
    """Return vectors at unit length."""
    return finish(np.asarray(vectors, np.float32), dimensions=None, normalize=True)


@pytest.fixture
def vectors() -> FloatArray:
    """Unit vectors that spread unevenly around a mean that is not zero, as embeddings do."""
    random = np.random.default_rng(0)
    scales = np.linspace(2, 0.05, WIDTH)
    rotation = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
    return unit((random.standard_normal((N, WIDTH)) * scales) @ rotation + 0.3)


def test_a_linear_relation_is_found(vectors: FloatArray) -> None:
    """A linear relation with a bias is found, from vectors of any length."""
    random = np.random.default_rng(1)
    weight = random.standard_normal((WIDTH, 12))
    target = unit(vectors @ weight + random.standard_normal(12))
    result = fit_linear(vectors, target, takes_unit=True)
    # The target was scaled to unit length row by row, which no affine map does: near, not exact.
    assert result.figures["cosine"] > 0.98
    assert result.figures["texts"] + result.figures["held_out_texts"] == N
    assert result.figures["loss"] == pytest.approx(1 - result.figures["migrated_recall_at_10"])
    affine_map = result.as_map("a", MapKind.TRANSLATE, "space", target="t", target_model="m")
    cosines = np.einsum("nd,nd->n", unit(affine_map.apply(vectors)), target)
    assert cosines.mean() > 0.98
    assert affine_map.quantizer.vectors is not None


def test_identity_is_the_identity(vectors: FloatArray) -> None:
    """A map of vectors onto themselves loses nothing."""
    result = fit_linear(vectors, vectors, takes_unit=False)
    assert result.figures["recall_at_10"] > 0.97
    assert result.figures["loss"] < 0.03


def test_noise_is_not_learned(vectors: FloatArray) -> None:
    """The figures of unrelated vectors show that nothing was learned, as they are of texts held out."""
    noise = unit(np.random.default_rng(3).standard_normal((N, 12)).astype(np.float32))
    result = fit_linear(vectors, noise, takes_unit=True)
    assert result.figures["loss"] > 0.9


def test_maps_within_a_space(vectors: FloatArray) -> None:
    """SVD keeps every cosine and puts the most in front; whitening evens the variance; centring removes the mean."""
    maps = {
        kind: fit_space_transform(vectors, kind).as_map(kind.value, kind, "s")
        for kind in (MapKind.SVD, MapKind.PCA, MapKind.WHITEN, MapKind.CENTRE)
    }
    svd = maps[MapKind.SVD].apply(vectors)
    np.testing.assert_allclose(svd @ svd.T, vectors @ vectors.T, atol=1e-4)
    energy = (svd.astype(np.float64) ** 2).mean(axis=0)
    assert (np.diff(energy) <= 1e-6).all()
    for kind in (MapKind.PCA, MapKind.WHITEN, MapKind.CENTRE):
        assert np.abs(maps[kind].apply(vectors).mean(axis=0)).max() < 0.15
    spread = maps[MapKind.WHITEN].apply(vectors).std(axis=0)
    assert spread[: WIDTH // 2].max() / spread[: WIDTH // 2].min() < 1.5
    figures = maps[MapKind.SVD].figures
    half = WIDTH // 2
    assert figures[f"recall_at_10_of_{half}"] > figures[f"prefix_recall_at_10_of_{half}"]
    assert figures["recall_at_10"] > 0.99


def test_fits_do_not_depend_on_the_run(vectors: FloatArray) -> None:
    """The same texts give the same map, and so the same space."""
    spaces = {
        fit_space_transform(vectors, MapKind.PCA).as_map("pca", MapKind.PCA, "s").space
        for _ in range(2)
    }
    assert len(spaces) == 1


def test_too_few_texts_are_refused() -> None:
    """Too few texts are refused with the number that is needed."""
    with pytest.raises(FormatError, match="960 are needed"):
        split(900, 384)
    fitted, held = split(960, 384)
    assert len(fitted) == 768
    assert not set(fitted) & set(held)
