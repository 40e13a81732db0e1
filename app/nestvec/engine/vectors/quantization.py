"""Unit vectors to 8-bit codes by ranges that were calibrated beforehand.

A code is `floor((x - low) / step + eps)` with `step = (high - low) / 255`, clipped to 0 … 255; uint8 gives the code,
int8 the code - 128. Ranges never come from the vectors at hand: the same text would get other codes in another batch.
They are those of calibration vectors, cut and renormalized as the vectors are, since a prefix has another norm.

One symmetric range serves all dimensions, so that int8 is `round(127 x / reach)` and codes can be compared as they are,
as vector stores do. A range for each dimension weighs dimensions by how little they vary: on SciFact the ten nearest
by the dot product of such codes are 84% of those by floats and lose 1.4 points of nDCG; with one range 98% and none.

A model may bring codes of its own: those of pplx-embed are `round(127 x)` of values that a tangent keeps below one,
before any scaling to unit length (its `st_quantize.FlexibleQuantizer`). Then there is nothing to calibrate.

Source: scalar quantization as in sentence-transformers' `quantize_embeddings`, which has a range for each dimension,
casts towards zero instead of down, so that its int8 and uint8 disagree below the middle, and does not clip, so that
values outside the ranges change their sign.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray

CODE_STEPS: Final = 255  # steps between the lowest and the highest code
MAX_INT8: Final = 127  # the highest code of int8
# An exact maximum must reach the last code, though (hi - lo) / step is 254.99998 in floating point.
EPSILON: Final = 1e-3
# Without calibration: values of a random unit vector in D dimensions spread by 1 / sqrt(D).
SPREAD: Final = 3.5
MIN_NORM: Final = 1e-12
# Ranges are kept for so many numbers of dimensions.
MAX_RANGES: Final = 64
Codes = NDArray[np.uint8]


class Rounding(StrEnum):
    """How a value between two codes is rounded, and which ranges there are."""

    DOWN = "nestvec"
    # Towards zero of the signed value for int8; and a range for each dimension.
    TOWARDS_ZERO = "sentence-transformers"


@dataclass(frozen=True, slots=True)
class CodeRanges:
    """The range of values of each dimension.

    Attributes:
        low: Values that the first code stands for, (D,), float64.
        high: Values that the last code stands for, (D,), float64.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(slots=True)
class Quantizer:
    """Turns vectors into codes in the ranges of a model.

    Attributes:
        vectors: Vectors of calibration texts, (C, H), float32, unit length; None: a formula that fits no model well.
        source: Where they came from, for people: "bundled", "texts", "formula" or "model".
        rounding: How a value between two codes is rounded.
        step: The model's own distance of two codes, of vectors as it gives them, not of unit length; None for ranges.
        id: Id of the ranges; codes of two ids must not be mixed.
    """

    vectors: FloatArray | None = None
    source: str = "formula"
    rounding: Rounding = Rounding.DOWN
    step: float | None = None
    id: str = field(init=False)
    _ranges: dict[int, CodeRanges] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Compute the id of the ranges."""
        self.id = f"formula-{SPREAD}" if self.step is None else f"step-{self.step:.9g}"
        if self.vectors is not None:
            content = np.ascontiguousarray(self.vectors, "<f4").tobytes()
            header = f"symmetric {self.rounding}".encode()
            self.id = blake2b(content + header, digest_size=8).hexdigest()

    @property
    def takes_raw(self) -> bool:
        """Whether codes are those of vectors as the model gives them, not of unit vectors."""
        return self.step is not None

    def for_unit_vectors(self) -> "Quantizer":
        """The quantizer itself, or in place of a model's own codes the formula, for vectors whose length is lost."""
        return Quantizer() if self.takes_raw else self

    def ranges(self, dimensions: int) -> CodeRanges:
        """Return the ranges of vectors that are cut to `dimensions`."""
        ranges = self._ranges.get(dimensions)
        if ranges is None:
            ranges = self._measure(dimensions)
            if len(self._ranges) >= MAX_RANGES:
                self._ranges.clear()
            self._ranges[dimensions] = ranges
        return ranges

    def uint8(self, vectors: FloatArray) -> Codes:
        """Turn unit vectors, (B, D), float32, D at most H, into codes, (B, D), uint8."""
        if self.step is not None:
            return (self.int8(vectors).astype(np.int16) + 128).astype(np.uint8)
        return np.floor(self._positions(vectors)).astype(np.uint8)

    def int8(self, vectors: FloatArray) -> NDArray[np.int8]:
        """Turn unit vectors, (B, D), float32, into codes, (B, D), int8: those of `uint8` minus 128, if rounded down.

        Codes of the model's own are rounded to the nearest, however others are.
        """
        if self.step is not None:
            nearest = np.clip(np.rint(vectors / self.step), -128, MAX_INT8)
            codes: NDArray[np.int8] = nearest.astype(np.int8)
            return codes
        if self.rounding is Rounding.DOWN:
            return offset_by_128(self.uint8(vectors))
        return np.trunc(self._positions(vectors) - 128).astype(np.int8)

    def clipped_share(self, vectors: FloatArray) -> float:
        """Measure which share of the values lies outside the ranges, 0 … 1.

        Args:
            vectors: (B, D), float32, unit length.
        """
        ranges = self.ranges(vectors.shape[1])
        return float(((vectors < ranges.low) | (vectors > ranges.high)).mean())

    def _positions(self, vectors: FloatArray) -> NDArray[np.float64]:
        """Positions of values in their ranges, (B, D), 0 … 255, clipped; a dimension that never changed gives 0."""
        ranges = self.ranges(vectors.shape[1])
        step = (ranges.high - ranges.low) / CODE_STEPS
        nudge = EPSILON if self.rounding is Rounding.DOWN else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            positions = (vectors.astype(np.float64) - ranges.low) / step + nudge
        return np.clip(np.where(step == 0, 0.0, positions), 0, CODE_STEPS)

    def _measure(self, dimensions: int) -> CodeRanges:
        if self.vectors is None:
            reach = np.full(dimensions, SPREAD / np.sqrt(dimensions))
            return CodeRanges(-reach, reach)
        cut = self.vectors[:, :dimensions].astype(np.float64)
        norms = np.linalg.norm(cut, axis=1, keepdims=True)
        unit = cut / np.maximum(norms, MIN_NORM)
        if self.rounding is Rounding.TOWARDS_ZERO:
            return CodeRanges(unit.min(axis=0), unit.max(axis=0))
        step = np.full(dimensions, np.abs(unit).max() / MAX_INT8)
        # Half a step lower, so that flooring rounds and zero is code 128.
        low = -(MAX_INT8 + 1.5) * step
        return CodeRanges(low, low + CODE_STEPS * step)


def offset_by_128(codes: Codes) -> NDArray[np.int8]:
    """Turn unsigned bytes into signed ones, 128 lower; not a reinterpretation of their bits."""
    return (codes.astype(np.int16) - 128).astype(np.int8)
