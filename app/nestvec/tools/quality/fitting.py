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

from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap, MapKind
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import FormatError
from nestvec.tools.quality.neighbours import nearest, overlap

Wide = NDArray[np.float64]
Affine = tuple[Wide, Wide]  # W (in, out), b (out,)

TEXTS_PER_DIMENSION: Final = 2  # fewer, and a map learns the texts
HELD_OUT: Final = 0.2
MOST_HELD_OUT: Final = 2000
RIDGES: Final = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # relative to the mean variance of a direction
NEIGHBOURS: Final = 10
MOST_CALIBRATION: Final = 1000
SHORTER: Final = (
    2,
    4,
    8,
)  # what a turned space is measured at: a half, a quarter, an eighth of its size
SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted from one set of vectors to another.

    Attributes:
        affine: W and b.
        takes_unit: Whether what it takes is scaled to unit length.
        figures: Measured on the texts held out.
        calibration: Unit vectors that it gives, for 8-bit ranges; (C, out).
    """

    affine: Affine
    takes_unit: bool
    figures: Mapping[str, float]
    calibration: FloatArray

    def as_map(self, name: str, kind: MapKind, source: str, **more: str | int) -> AffineMap:
        """The map; `more` are further attributes of it."""
        weight, bias = self.affine
        return AffineMap(
            name=name,
            kind=kind,
            weight=weight.astype(np.float32),
            bias=bias.astype(np.float32),
            source=source,
            takes_unit=self.takes_unit,
            figures=self.figures,
            quantiser=Quantiser(self.calibration, "fitted"),
            **more,  # type: ignore[arg-type] # the caller's names are the class's
        )


def split(count: int, dimensions: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which texts are fitted on, and which are held out.

    Args:
        count: Of all.
        dimensions: Of what a map takes.

    Raises:
        FormatError: There are too few.
    """
    order = np.random.default_rng(SEED).permutation(count)
    held = min(int(count * HELD_OUT), MOST_HELD_OUT)
    if count - held < TEXTS_PER_DIMENSION * dimensions:
        least = int(np.ceil(TEXTS_PER_DIMENSION * dimensions / (1 - HELD_OUT)))
        raise FormatError(
            f"{count} texts are too few to fit {dimensions} dimensions: {least} are needed, a fifth of them held out"
        )
    return np.sort(order[held:]), np.sort(order[:held])


def fit_linear(given: FloatArray, wanted: FloatArray, *, takes_unit: bool) -> Fitted:
    """Ridge regression from vectors to the unit vectors wanted of them; the ridge that serves texts held out best.

    Figures are of a fit without the texts held out; the map itself is then fitted on all of them.

    Args:
        given: (N, in), float32.
        wanted: (N, out), float32.
        takes_unit: Whether what is given is scaled to unit length.

    Raises:
        FormatError: There are too few.
    """
    own, held = split(len(given), given.shape[1])
    x = finish(given, dimensions=None, normalize=takes_unit).astype(np.float64)
    y = finish(wanted, dimensions=None, normalize=True).astype(np.float64)
    solve = _ridge(x[own], y[own])
    candidates = [solve(ridge) for ridge in RIDGES]
    cosines = [float(_cosines(_mapped(x[held], one), y[held]).mean()) for one in candidates]
    chosen = int(np.argmax(cosines))
    found = finish(
        _mapped(x[held], candidates[chosen]).astype(np.float32), dimensions=None, normalize=True
    )
    target = y[held].astype(np.float32)
    truth = nearest(target, target, NEIGHBOURS, skips_self=True)
    migrated = _recall(nearest(target, found, NEIGHBOURS, skips_self=True), truth)
    figures = {
        "texts": len(own),
        "held_out_texts": len(held),
        "ridge": RIDGES[chosen],
        "cosine": cosines[chosen],
        # Both sides mapped; and documents mapped, searched by queries that were made in the target's own space.
        "recall_at_10": _recall(nearest(found, found, NEIGHBOURS, skips_self=True), truth),
        "migrated_recall_at_10": migrated,
        "loss": 1 - migrated,
    }
    whole = _ridge(x, y)(RIDGES[chosen])
    given_out = _mapped(x[held[:MOST_CALIBRATION]], whole).astype(np.float32)
    return Fitted(whole, takes_unit, figures, finish(given_out, dimensions=None, normalize=True))


def fit_turned(given: FloatArray, kind: MapKind) -> Fitted:
    """Turn, centre or whiten a space of unit vectors.

    Args:
        given: (N, H), float32.
        kind: SVD, PCA, WHITEN or CENTRE.

    Raises:
        FormatError: There are too few.
    """
    own, held = split(len(given), given.shape[1])
    unit = finish(given, dimensions=None, normalize=True)
    affine = _turned(unit[own].astype(np.float64), kind)
    plain = unit[held]
    found = finish(
        _mapped(plain.astype(np.float64), affine).astype(np.float32),
        dimensions=None,
        normalize=True,
    )
    truth = nearest(plain, plain, NEIGHBOURS, skips_self=True)
    figures: dict[str, float] = {
        "texts": len(own),
        "held_out_texts": len(held),
        "recall_at_10": _recall(nearest(found, found, NEIGHBOURS, skips_self=True), truth),
    }
    for part in SHORTER:
        size = given.shape[1] // part
        if size and kind is not MapKind.CENTRE:
            for name, vectors in (("recall_at_10", found), ("prefix_recall_at_10", plain)):
                cut = finish(vectors, dimensions=size, normalize=True)
                near = nearest(cut, cut, NEIGHBOURS, skips_self=True)
                figures[f"{name}_of_{size}"] = _recall(near, truth)
    return Fitted(affine, takes_unit=True, figures=figures, calibration=found[:MOST_CALIBRATION])


def _ridge(x: Wide, y: Wide) -> Callable[[float], Affine]:
    """Solves for W and b with any ridge; the moments are computed once."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    centred = x - mean_x
    moments, mixed = centred.T @ centred, centred.T @ (y - mean_y)
    scale = np.trace(moments) / len(moments)

    def solve(ridge: float) -> Affine:
        weight = np.linalg.solve(moments + ridge * scale * np.eye(len(moments)), mixed)
        return weight, mean_y - mean_x @ weight

    return solve


def _turned(unit: Wide, kind: MapKind) -> Affine:
    """Directions of greatest spread first, in a sign that does not depend on the machine."""
    size = unit.shape[1]
    mean = unit.mean(axis=0) if kind is not MapKind.SVD else np.zeros(size)
    if kind is MapKind.CENTRE:
        return np.eye(size), -mean
    centred = unit - mean
    spreads, directions = np.linalg.eigh(centred.T @ centred / len(unit))
    spreads, directions = spreads[::-1], directions[:, ::-1]
    peaks = directions[np.abs(directions).argmax(axis=0), np.arange(size)]
    weight = directions * np.sign(peaks)
    if kind is MapKind.WHITEN:
        # Directions that hardly spread hold noise, which whitening would blow up.
        weight = weight / np.sqrt(spreads + 0.01 * spreads.mean())
    return weight, -(mean @ weight)


def _mapped(x: Wide, affine: Affine) -> Wide:
    weight, bias = affine
    return x @ weight + bias


def _cosines(found: Wide, wanted: Wide) -> Wide:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines: Wide = np.einsum("nd,nd->n", found, wanted) / np.maximum(norms, 1e-12)
    return cosines


def _recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return float(overlap(found, truth).mean())
