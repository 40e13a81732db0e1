"""Affine maps from one space of vectors to another: the one type for fitted exits, translation, rotation, whitening.

A map is pure data: y = x W + b. What it came from and what it costs is kept beside it, for people and for the gate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantiser

SPACE_CHARS = 32  # as long as a model's own fingerprint


class MapKind(StrEnum):
    """What a map is for."""

    EXIT = "exit"  # from an early layer's vectors to the last one's
    TRANSLATE = "translate"  # to another model's space
    SVD = "svd"  # turned so that leading values hold the most; not centred
    PCA = "pca"  # the same, centred first
    WHITEN = "whiten"  # centred, turned, and each direction scaled to the same spread
    CENTRE = "centre"  # the mean taken off


@dataclass(frozen=True, slots=True)
class AffineMap:
    """A map of a model.

    Attributes:
        name: By which requests ask for it.
        weight: W, (in, out), float32.
        bias: b, (out,), float32.
        source: Space that it takes vectors of.
        target: Space that it comes near to; "" for a space of its own.
        target_model: Its name, for people.
        layers: Whose vectors it takes: so many layers'; 0 for all.
        takes_unit: Whether vectors are scaled to unit length before.
        figures: What was measured when it was fitted, by name.
        quantiser: Ranges for 8-bit vectors of the space it makes.
    """

    name: str
    kind: MapKind
    weight: FloatArray
    bias: FloatArray
    source: str
    target: str = ""
    target_model: str = ""
    layers: int = 0
    takes_unit: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    quantiser: Quantiser = field(default_factory=Quantiser)
    space: str = field(init=False)

    def __post_init__(self) -> None:
        """Name the space it makes."""
        said = f"{self.source} {self.layers} {self.takes_unit}".encode()
        content = b"".join(
            np.ascontiguousarray(a, "<f4").tobytes() for a in (self.weight, self.bias)
        )
        space = sha256(said + content).hexdigest()[:SPACE_CHARS]
        object.__setattr__(self, "space", space)

    @property
    def width(self) -> int:
        """Of what it gives."""
        return int(self.weight.shape[1])

    def apply(self, raw: FloatArray) -> FloatArray:
        """Pooled vectors, (B, in), to (B, out), float32, not of unit length."""
        given = finish(raw, dimensions=None, normalize=self.takes_unit)
        mapped: FloatArray = given @ self.weight + self.bias
        return mapped


def exit_space(space: str, layers: int) -> str:
    """Fingerprint of what so many layers of a model give, no map behind them."""
    return sha256(f"{space} exit {layers}".encode()).hexdigest()[:SPACE_CHARS]
