"""Forms in which a model's vectors can be stored: layers or maps, dimensions, dtypes. All made from one raw pass."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.postprocess import convert, finish
from nestvec.engine.vectors.quantization import Quantiser

DTYPES: Final = {
    "float": OutputDtype.FLOAT32,
    "int8": OutputDtype.INT8,
    "binary": OutputDtype.UBINARY,
}


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where full vectors come from; one is like itself only.

    Attributes:
        layers: So many are run.
        map: What they go through; None for nothing.
        status: "full", "trained", "fitted", "untrained" (an exit as it is) or the kind of a map.
        quantiser: 8-bit ranges.
        width: Dimensions of its vectors.
    """

    layers: int
    map: AffineMap | None
    status: str
    quantiser: Quantiser
    width: int

    @property
    def is_plain(self) -> bool:
        """Whether no map turns it: all layers, or an exit with what makes it useful."""
        return self.map is None or self.map.layers > 0

    @property
    def map_name(self) -> str:
        """Empty for none."""
        return self.map.name if self.map is not None else ""

    def vectors(self, raw: FloatArray) -> FloatArray:
        """Full vectors, not of unit length, from pooled ones (N, H)."""
        return raw if self.map is None else self.map.apply(raw)


@dataclass(frozen=True, slots=True)
class Variant:
    """One form."""

    source: Source
    dimensions: int
    dtype: str

    @property
    def bytes(self) -> int:
        """Of a stored vector."""
        stored = DTYPES[self.dtype]
        return self.dimensions // stored.values_per_item * stored.stored.itemsize

    @property
    def label(self) -> str:
        """In words."""
        words = [f"{self.dimensions} dimensions", self.dtype]
        if self.source.status != "full":
            words.append(self.source.map_name or f"{self.source.layers} layers")
        return ", ".join(words)


def cut(vectors: FloatArray, dimensions: int) -> FloatArray:
    """A prefix at unit length."""
    return finish(vectors, dimensions=dimensions, normalize=True)


def codes(unit: FloatArray, dtype: str, quantiser: Quantiser) -> NDArray[Any]:
    """Unit vectors as they are stored."""
    return convert(unit, DTYPES[dtype], quantiser)


def similarities(first: NDArray[Any], second: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """Of each row with the same row of the other, as a store of such vectors would have it; (N,)."""
    if dtype == "binary":
        other_bits = np.bitwise_count(first ^ second).sum(axis=1)
        return -np.asarray(other_bits, np.float64)
    one, other = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float64] = np.einsum("nd,nd->n", one, other) / np.maximum(norms, 1e-12)
    return found
