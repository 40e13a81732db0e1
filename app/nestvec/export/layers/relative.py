"""What attention knows of positions beside a table of them: a bias on scores, or scores of their own.

Source: T5 (arXiv:1910.10683), section 2.1, for buckets, which MPNet (arXiv:2004.09297) took over, the same for every
layer; ALiBi (arXiv:2108.12409), both ways as in Jina's second models (arXiv:2310.19923).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.export.config.encoder_config import EncoderConfig
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.masks import distances

Floats = NDArray[np.float32]
MAX_DISTANCE: Final = 128


@dataclass(frozen=True, slots=True)
class Relations:
    """What one layer's attention adds; see `Attention`."""

    bias: str | None = None
    relate: Callable[[str, str], str] | None = None
    scale: float | None = None


class RelativePositions(Protocol):
    """A family's way."""

    def of_layers(
        self, config: Mapping[str, Any], sizes: EncoderConfig, site: Site, prefix: str
    ) -> Callable[[str], Relations]:
        """Add to a graph what all layers share.

        Returns:
            A layer's name, without the prefix, to what it adds.

        Raises:
            FormatError: Configuration and weights do not make it.
        """


@dataclass(frozen=True, slots=True)
class Buckets:
    """Near distances exactly, far ones by their logarithm.

    Attributes:
        tensor: Of the bias, (buckets, heads).
    """

    tensor: str

    def of_layers(
        self, config: Mapping[str, Any], sizes: EncoderConfig, site: Site, prefix: str
    ) -> Callable[[str], Relations]:
        """See `RelativePositions`."""
        del config
        shape = (sizes.relative_buckets, sizes.num_attention_heads)
        table = site.weights.get(f"{prefix}{self.tensor}.weight", shape)
        whole = bucket_bias(table, sizes.dimensions.max_positions or 0)
        bias = cut_bias(site.graph, site.graph.weight("relative_bias", whole), site.inputs)
        return lambda _: Relations(bias)


@dataclass(frozen=True, slots=True)
class Alibi:
    """A penalty that grows with the distance, by a slope for each head."""

    def of_layers(
        self, config: Mapping[str, Any], sizes: EncoderConfig, site: Site, prefix: str
    ) -> Callable[[str], Relations]:
        """See `RelativePositions`."""
        del config, prefix
        graph = site.graph
        slopes = alibi_slopes(sizes.num_attention_heads)[None, :, None, None]
        away = graph.op("Abs", distances(graph, site.inputs))
        penalty = graph.op(
            "Mul", graph.op("Cast", away, to=graph.float_type), graph.weight("slopes", -slopes)
        )
        return lambda _: Relations(penalty)


def alibi_slopes(heads: int) -> Floats:
    """Of each head, (heads,), float32: powers of one number; between them where heads are no power of two."""

    def powers(count: int) -> list[float]:
        first = 2.0 ** -(8.0 / count)
        return [first ** (number + 1) for number in range(count)]

    whole = 2 ** int(math.log2(heads))
    slopes = powers(whole) + powers(2 * whole)[0::2][: heads - whole]
    return np.array(slopes, np.float32)


def bucket_bias(table: Floats, longest: int) -> Floats:
    """The bias of each pair of positions.

    Args:
        table: (buckets, heads), float32.
        longest: The most positions L.

    Returns:
        (1, heads, L, L), float32: of query i and key j.
    """
    places = np.arange(longest)
    buckets = _buckets(places[None, :] - places[:, None], len(table))
    return np.ascontiguousarray(table[buckets].transpose(2, 0, 1)[None])


def _buckets(distance: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Bucket of a key so far behind the query; half of the buckets are for keys ahead of it."""
    half = count // 2
    exact = half // 2
    size = np.abs(distance)
    # In float32, as where models were trained: a distance on a border falls to the same side.
    logarithm = np.log(np.maximum(size, 1).astype(np.float32) / exact)
    far = logarithm / np.float32(np.log(MAX_DISTANCE / exact)) * (half - exact)
    bucket = np.where(size < exact, size, np.minimum(exact + far.astype(np.int64), half - 1))
    found: NDArray[np.int64] = bucket + half * (distance > 0)
    return found


def cut_bias(graph: GraphBuilder, bias: str, inputs: PackedInputs) -> str:
    """The part of a bias (1, heads, L, L) for S positions, once for all layers."""
    if inputs.device is not None:
        # No shape on the way: a graph that is captured cannot look one up.
        rows = graph.op("Gather", bias, inputs.device.places, axis=2)
        return graph.op("Gather", rows, inputs.device.places, axis=3)
    longest = graph.op("Shape", inputs.gather, start=1, end=2)
    return graph.op(
        "Slice",
        bias,
        graph.weight("bias_starts", np.array([0, 0], np.int64)),
        graph.op("Concat", longest, longest, axis=0),
        graph.weight("bias_axes", np.array([2, 3], np.int64)),
    )
