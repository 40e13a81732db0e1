"""Affine maps from one space of vectors to another: the one type for fitted exits, translation, rotation, labels.

A map is pure data: y = x W + b. What it came from and what it costs is kept beside it, for people and for the gate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.label_calibration import LabelCalibration
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantizer

# As long as a model's own fingerprint.
SPACE_CHARS = 32


class MapKind(StrEnum):
    """What a map is for; the values are in the maps' files."""

    EXIT = "exit"  # from an early layer's vectors to the last one's
    TRANSLATE = "translate"  # to another model's space
    SVD = "svd"  # turned so that leading values hold the most; not centred
    PCA = "pca"  # the same, centred first
    WHITEN = "whiten"  # centred, turned, and each direction scaled to the same spread
    CENTRE = "centre"  # the mean taken off
    CONCEPTS = "concepts"  # a value for each label: the cosine with the label's anchor
    REMOVE = "remove"  # directions projected out


@dataclass(frozen=True, slots=True)
class AffineMap:
    """A map of a model's vectors into another space.

    Attributes:
        name: Name by which requests ask for it.
        kind: What the map is for.
        weight: W, (in, out), float32.
        bias: b, (out,), float32.
        source: Fingerprint of the space that it takes vectors of.
        target: Fingerprint of the space that it comes near to; "" for a space of its own.
        target_model: Name of the model of that space, for people.
        layers: Number of layers whose vectors it takes; 0 for all.
        takes_unit: Whether vectors are scaled to unit length before.
        figures: What was measured when it was fitted, by name.
        quantizer: Ranges for 8-bit vectors of the space it makes.
        labels: What each of its values stands for; empty but for CONCEPTS.
        template: What labels were put into, where `{}` stands, to be read by the model; for people.
        label_calibration: How its values become probabilities; None where nothing of known labels taught it.
        has_picture_anchors: Whether its labels' anchors are of pictures, and not of texts.
        space: Fingerprint of that space.
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
    quantizer: Quantizer = field(default_factory=Quantizer)
    labels: tuple[str, ...] = ()
    template: str = ""
    label_calibration: LabelCalibration | None = None
    has_picture_anchors: bool = False
    space: str = field(init=False)

    def __post_init__(self) -> None:
        """Compute the fingerprint of the space the map makes."""
        header = f"{self.source} {self.layers} {self.takes_unit}".encode()
        content = b"".join(
            np.ascontiguousarray(part, "<f4").tobytes() for part in (self.weight, self.bias)
        )
        # A label is a line; maps without labels keep the fingerprints that they had.
        names = "".join(f"\n{label}" for label in self.labels).encode()
        space = sha256(header + content + names).hexdigest()[:SPACE_CHARS]
        object.__setattr__(self, "space", space)

    @property
    def width(self) -> int:
        """Number of dimensions of what the map gives."""
        return int(self.weight.shape[1])

    def apply(self, raw: FloatArray) -> FloatArray:
        """Map pooled vectors, (B, in), to (B, out), float32, not of unit length."""
        vectors = finish(raw, dimensions=None, normalize=self.takes_unit)
        mapped: FloatArray = vectors @ self.weight + self.bias
        return mapped


def exit_space(space: str, layers: int) -> str:
    """Return the fingerprint of what the first `layers` layers of a model give, without a map."""
    return sha256(f"{space} exit {layers}".encode()).hexdigest()[:SPACE_CHARS]
