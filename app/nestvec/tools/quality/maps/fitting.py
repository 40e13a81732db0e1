"""Fits maps between spaces of vectors, in closed form, and measures them on texts that were held out. Pure numpy.

Source: ridge regression for exits and translation (linear maps between embedding spaces: arXiv:1309.4168); whitening
as in WhiteningBERT (arXiv:2104.01767); uncentred SVD keeps more of a contrastively trained model's neighbours than
PCA does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.statistics.neighbours import nearest, overlap
from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import FormatError

# Weight `[in, out]` and bias `[out]`.
Affine = tuple[Float64Array, Float64Array]

# With fewer texts for each dimension a map learns the texts.
TEXTS_PER_DIMENSION: Final = 2
HELD_OUT: Final = 0.2
MAX_HELD_OUT: Final = 2000
# Relative to the mean variance of a direction.
RIDGES: Final = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
NEIGHBOURS: Final = 10
MAX_CALIBRATION: Final = 1000
# A transformed space is also measured at a half, a quarter and an eighth of its size.
PREFIX_DIVISORS: Final = (2, 4, 8)
SEED: Final = 7


@dataclass(frozen=True, slots=True)
class FitResult:
    """What was fitted from one set of vectors to another.

    Attributes:
        affine: Weight and bias.
        takes_unit: Whether input vectors are scaled to unit length.
        figures: What was measured on the texts that were held out.
        calibration: Unit vectors `[C, out]` of the map, from which 8-bit ranges are made.
    """

    affine: Affine
    takes_unit: bool
    figures: Mapping[str, float]
    calibration: FloatArray

    def as_map(self, name: str, kind: MapKind, source: str, **attributes: str | int) -> AffineMap:
        """Return the map; `attributes` are further attributes of `AffineMap`."""
        weight, bias = self.affine
        return AffineMap(
            name=name,
            kind=kind,
            weight=weight.astype(np.float32),
            bias=bias.astype(np.float32),
            source=source,
            takes_unit=self.takes_unit,
            figures=self.figures,
            quantizer=Quantizer(self.calibration, "fitted"),
            **attributes,  # type: ignore[arg-type] # the caller's names are the class's
        )


def split(count: int, dimensions: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the texts to fit on, and of those held out.

    Args:
        count: Number of all texts.
        dimensions: Number of dimensions that the map takes.

    Raises:
        FormatError: There are too few texts.
    """
    order = np.random.default_rng(SEED).permutation(count)
    held_count = min(int(count * HELD_OUT), MAX_HELD_OUT)
    if count - held_count < TEXTS_PER_DIMENSION * dimensions:
        min_count = int(np.ceil(TEXTS_PER_DIMENSION * dimensions / (1 - HELD_OUT)))
        raise FormatError(
            f"{count} texts are too few to fit {dimensions} dimensions: {min_count} are needed, "
            "a fifth of them held out"
        )
    return np.sort(order[held_count:]), np.sort(order[:held_count])


def fit_linear(inputs: FloatArray, targets: FloatArray, *, takes_unit: bool) -> FitResult:
    """Fit a ridge regression to the unit vectors of the targets, with the ridge that serves held-out texts best.

    Figures are of a fit without the texts held out; the map itself is then fitted on all of them.

    Args:
        inputs: `[N, in]`, float32.
        targets: `[N, out]`, float32.
        takes_unit: Whether input vectors are scaled to unit length.

    Raises:
        FormatError: There are too few texts.
    """
    fitted, held = split(len(inputs), inputs.shape[1])
    x = finish(inputs, dimensions=None, normalize=takes_unit).astype(np.float64)
    y = finish(targets, dimensions=None, normalize=True).astype(np.float64)
    solve = _ridge(x[fitted], y[fitted])
    candidates = [solve(ridge) for ridge in RIDGES]
    cosines = [float(_cosines(_mapped(x[held], affine), y[held]).mean()) for affine in candidates]
    best = int(np.argmax(cosines))
    mapped = finish(
        _mapped(x[held], candidates[best]).astype(np.float32), dimensions=None, normalize=True
    )
    target = y[held].astype(np.float32)
    truth = nearest(target, target, NEIGHBOURS, skips_self=True)
    migrated = _recall(nearest(target, mapped, NEIGHBOURS, skips_self=True), truth)
    figures = {
        "texts": len(fitted),
        "held_out_texts": len(held),
        "ridge": RIDGES[best],
        "cosine": cosines[best],
        # Both sides mapped; and documents mapped, searched by queries that were made in the target's own space.
        "recall_at_10": _recall(nearest(mapped, mapped, NEIGHBOURS, skips_self=True), truth),
        "migrated_recall_at_10": migrated,
        "loss": 1 - migrated,
    }
    affine = _ridge(x, y)(RIDGES[best])
    calibration = _mapped(x[held[:MAX_CALIBRATION]], affine).astype(np.float32)
    return FitResult(
        affine, takes_unit, figures, finish(calibration, dimensions=None, normalize=True)
    )


def fit_space_transform(inputs: FloatArray, kind: MapKind) -> FitResult:
    """Fit a map within a space of unit vectors, which rotates, centres or whitens it.

    Args:
        inputs: `[N, H]`, float32.
        kind: SVD, PCA, WHITEN or CENTRE.

    Raises:
        FormatError: There are too few texts.
    """
    fitted, held = split(len(inputs), inputs.shape[1])
    unit = finish(inputs, dimensions=None, normalize=True)
    affine = _space_transform(unit[fitted].astype(np.float64), kind)
    plain = unit[held]
    mapped = finish(
        _mapped(plain.astype(np.float64), affine).astype(np.float32),
        dimensions=None,
        normalize=True,
    )
    truth = nearest(plain, plain, NEIGHBOURS, skips_self=True)
    figures: dict[str, float] = {
        "texts": len(fitted),
        "held_out_texts": len(held),
        "recall_at_10": _recall(nearest(mapped, mapped, NEIGHBOURS, skips_self=True), truth),
    }
    for divisor in PREFIX_DIVISORS:
        size = inputs.shape[1] // divisor
        if size and kind is not MapKind.CENTRE:
            for name, vectors in (("recall_at_10", mapped), ("prefix_recall_at_10", plain)):
                prefix = finish(vectors, dimensions=size, normalize=True)
                ranking = nearest(prefix, prefix, NEIGHBOURS, skips_self=True)
                figures[f"{name}_of_{size}"] = _recall(ranking, truth)
    return FitResult(affine, takes_unit=True, figures=figures, calibration=mapped[:MAX_CALIBRATION])


def _ridge(x: Float64Array, y: Float64Array) -> Callable[[float], Affine]:
    """Return a function that solves for weight and bias with any ridge; the moments are computed once."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    centred = x - mean_x
    moments, mixed = centred.T @ centred, centred.T @ (y - mean_y)
    scale = np.trace(moments) / len(moments)

    def solve(ridge: float) -> Affine:
        weight = np.linalg.solve(moments + ridge * scale * np.eye(len(moments)), mixed)
        return weight, mean_y - mean_x @ weight

    return solve


def _space_transform(unit: Float64Array, kind: MapKind) -> Affine:
    """Return the transform of unit vectors `[N, H]`: directions of greatest variance first.

    The sign of a direction does not depend on the machine.
    """
    size = unit.shape[1]
    mean = unit.mean(axis=0) if kind is not MapKind.SVD else np.zeros(size)
    if kind is MapKind.CENTRE:
        return np.eye(size), -mean
    centred = unit - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / len(unit))
    variances, directions = variances[::-1], directions[:, ::-1]
    peaks = directions[np.abs(directions).argmax(axis=0), np.arange(size)]
    weight = directions * np.sign(peaks)
    if kind is MapKind.WHITEN:
        # Directions of hardly any variance hold noise, which whitening would blow up.
        weight = weight / np.sqrt(variances + 0.01 * variances.mean())
    return weight, -(mean @ weight)


def _mapped(x: Float64Array, affine: Affine) -> Float64Array:
    """Return vectors `[N, in]` through a map, `[N, out]`."""
    weight, bias = affine
    return x @ weight + bias


def _cosines(mapped: Float64Array, targets: Float64Array) -> Float64Array:
    """Return the cosine of each row with the same row of the targets, `[N]`."""
    norms = np.linalg.norm(mapped, axis=1) * np.linalg.norm(targets, axis=1)
    cosines: Float64Array = np.einsum("nd,nd->n", mapped, targets) / np.maximum(norms, 1e-12)
    return cosines


def _recall(ranking: Ranking, truth: Ranking) -> float:
    """Return the mean share of true neighbours that a ranking holds."""
    return float(overlap(ranking, truth).mean())
