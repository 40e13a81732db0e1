"""Forms in which a model's vectors can be stored: layers or maps, dimensions and dtypes. One raw pass makes all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.postprocess import convert, finish
from nestvec.engine.vectors.quantization import Quantizer

# Sizes that are compared where none are asked for.
USUAL_DIMENSIONS: Final = (1024, 768, 512, 384, 256, 192, 128, 96, 64, 32)
DTYPES: Final = {
    "float": OutputDtype.FLOAT32,
    "int8": OutputDtype.INT8,
    "binary": OutputDtype.UBINARY,
}


@dataclass(frozen=True, slots=True, eq=False)
class VectorSource:
    """Where full vectors come from: a number of layers and perhaps a map; each is equal only to itself.

    Attributes:
        layers: Number of layers that are run.
        map: The map that vectors go through; None for none.
        status: "full", "trained", "fitted", "untrained" (an exit without a map) or the kind of a map.
        quantizer: The 8-bit ranges of its vectors.
        width: Dimensions of its vectors.
    """

    layers: int
    map: AffineMap | None
    status: str
    quantizer: Quantizer
    width: int

    @property
    def is_plain(self) -> bool:
        """Whether no map transforms its space: all layers, or an exit with the map that makes it useful."""
        return self.map is None or self.map.layers > 0

    @property
    def map_name(self) -> str:
        """Name of the map; empty for none."""
        return self.map.name if self.map is not None else ""

    def sizes(self, dimensions: Sequence[int]) -> Sequence[int]:
        """Return the numbers of dimensions that its vectors are cut to: all of them where each stands for a label."""
        if self.map is not None and self.map.labels:
            return [self.width]
        return [size for size in dimensions if size <= self.width]

    def vectors(self, raw: FloatArray) -> FloatArray:
        """Return full vectors `[N, width]`, not of unit length, of pooled ones `[N, H]`."""
        return raw if self.map is None else self.map.apply(raw)


@dataclass(frozen=True, slots=True)
class Variant:
    """One form in which vectors can be stored.

    Attributes:
        source: Where the full vectors come from.
        dimensions: Number of dimensions that are kept.
        dtype: What values are stored as, a key of `DTYPES`.
    """

    source: VectorSource
    dimensions: int
    dtype: str

    @property
    def bytes(self) -> int:
        """Bytes of a stored vector."""
        stored = DTYPES[self.dtype]
        return self.dimensions // stored.values_per_item * stored.storage_dtype.itemsize

    @property
    def label(self) -> str:
        """The form in words, as recommendations have it."""
        words = [f"{self.dimensions} dimensions", self.dtype]
        if self.source.status != "full":
            words.append(self.source.map_name or f"{self.source.layers} layers")
        return ", ".join(words)


def unit_prefix(vectors: FloatArray, dimensions: int) -> FloatArray:
    """Return the first dimensions of vectors, at unit length, `[N, dimensions]`."""
    return finish(vectors, dimensions=dimensions, normalize=True)


def codes(unit: FloatArray, dtype: str, quantizer: Quantizer) -> NDArray[Any]:
    """Return unit vectors `[N, D]` as they are stored in a dtype, a key of `DTYPES`."""
    return convert(unit, DTYPES[dtype], quantizer)


def pair_similarities(first: NDArray[Any], second: NDArray[Any], dtype: str) -> Float64Array:
    """Return the similarity of each row with the same row of the other, `[N]`, as a vector store computes it.

    Args:
        first: Stored vectors, `[N, D]` or `[N, D / 8]` for bits.
        second: Stored vectors of the same shape.
        dtype: Their dtype, a key of `DTYPES`.
    """
    if dtype == "binary":
        distances = np.bitwise_count(first ^ second).sum(axis=1)
        return -np.asarray(distances, np.float64)
    left, right = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Float64Array = np.einsum("nd,nd->n", left, right) / np.maximum(norms, 1e-12)
    return cosines
