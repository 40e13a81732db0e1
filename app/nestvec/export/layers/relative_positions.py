"""What attention adds to scores for the distance between tokens: a bias, or scores computed from positions.

Source: T5 (arXiv:1910.10683), section 2.1, for buckets, which MPNet (arXiv:2004.09297) took over, the same for every
layer; ALiBi (arXiv:2108.12409), causal as in BLOOM, in both directions as in Jina's second models (arXiv:2310.19923).
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
from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.masks import (
    LOOP_QUERIES,
    key_distances,
    mask_bias,
    row_distances,
    unless,
)

# Keys at this distance or further share the last bucket, as in T5 and MPNet.
MAX_DISTANCE: Final = 128


@dataclass(frozen=True, slots=True)
class PositionTerms:
    """What one layer's attention adds to scores for positions.

    Attributes:
        bias: Added to scaled scores, [1, heads, S, S]; None for nothing. For long inputs, of which `bias_rows` makes it
            piece by piece, [1, 1, 1, 1].
        bias_rows: Adds the bias of `LOOP_QUERIES` queries from a position (an int64 scalar) on, [1, heads, Q, S].
        position_scores: Makes of queries [B, heads, S, d] and keys [B, heads, d, S] what is added to their products
            before scaling, [B, heads, S, S]; None for nothing.
        packed_scores: In graphs for a device instead: makes of packed queries and keys, [T, heads * d] each, what is
            added to scaled scores, [B, heads, S, S].
        scale: What scores are multiplied by; None for 1 / sqrt(d).
    """

    bias: str | None = None
    bias_rows: Callable[[str], str] | None = None
    position_scores: Callable[[str, str], str] | None = None
    packed_scores: Callable[[str, str], str] | None = None
    scale: float | None = None


class RelativePositions(Protocol):
    """How a family's attention depends on the distance between tokens."""

    def build(
        self, config: Mapping[str, Any], sizes: EncoderConfig, context: BuildContext, prefix: str
    ) -> Callable[[str], PositionTerms]:
        """Add to a graph what all layers share.

        Args:
            config: Content of the model's config.json.
            sizes: The fields of it that the encoder is built from.
            context: The graph in the making.
            prefix: What stands before tensors' names in the checkpoint.

        Returns:
            A function from a layer's name, without the prefix, to what that layer adds.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """


@dataclass(frozen=True, slots=True)
class BucketBias:
    """A trained bias for each bucket of distances: near distances have their own, far ones share by logarithm.

    Attributes:
        tensor: Name of the trained biases, [buckets, heads].
    """

    tensor: str

    def build(
        self, config: Mapping[str, Any], sizes: EncoderConfig, context: BuildContext, prefix: str
    ) -> Callable[[str], PositionTerms]:
        """Add one bias that all layers share."""
        del config
        shape = (sizes.relative_buckets, sizes.num_attention_heads)
        table = context.weights.get(f"{prefix}{self.tensor}.weight", shape)
        full_bias = bucket_bias(table, sizes.dimensions.max_positions or 0)
        name = context.graph.weight("relative_bias", full_bias)
        terms = sliced_bias(context.graph, name, context.inputs)
        return lambda _: terms


@dataclass(frozen=True, slots=True)
class Alibi:
    """A penalty that grows linearly with the distance, with a slope for each head."""

    def build(
        self, config: Mapping[str, Any], sizes: EncoderConfig, context: BuildContext, prefix: str
    ) -> Callable[[str], PositionTerms]:
        """Add one penalty that all layers share."""
        del config, prefix
        terms = alibi_terms(context.graph, context.inputs, sizes.num_attention_heads)
        return lambda _: terms


def alibi_terms(
    graph: GraphBuilder, inputs: PackedInputs, heads: int, *, is_causal: bool = False
) -> PositionTerms:
    """Add ALiBi's penalty, which hides the tokens behind a token too where attention is causal."""
    slopes = graph.weight("slopes", -alibi_slopes(heads)[None, :, None, None])

    def penalty(distances: str) -> str:
        size = graph.op("Cast", graph.op("Abs", distances), to=graph.onnx_float_type)
        value = graph.op("Mul", size, slopes)
        if not is_causal:
            return value
        return graph.op("Add", value, mask_bias(graph, distances, is_causal=True, window=0))

    return PositionTerms(
        unless(graph, inputs.is_looped, lambda: penalty(key_distances(graph, inputs))),
        lambda first: penalty(row_distances(graph, inputs, first)),
    )


def alibi_slopes(heads: int) -> Float32Array:
    """Slope of each head, [heads], float32.

    Slopes are powers of one number. Where `heads` is no power of two, those of the next smaller power of two come
    first, then every other one of twice as many, as in ALiBi's own code.
    """

    def powers(count: int) -> list[float]:
        first = 2.0 ** -(8.0 / count)
        return [first ** (number + 1) for number in range(count)]

    power_of_two = 2 ** int(math.log2(heads))
    slopes = powers(power_of_two) + powers(2 * power_of_two)[0::2][: heads - power_of_two]
    return np.array(slopes, np.float32)


def bucket_bias(table: Float32Array, max_positions: int) -> Float32Array:
    """Compute the bias of each pair of positions.

    Args:
        table: [buckets, heads], float32.
        max_positions: L.

    Returns:
        [1, heads, L, L], float32: of query i and key j.
    """
    positions = np.arange(max_positions)
    buckets = _buckets(positions[None, :] - positions[:, None], len(table))
    return np.ascontiguousarray(table[buckets].transpose(2, 0, 1)[None])


def _buckets(distances: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Bucket of each distance; the second half of the buckets is for keys ahead of the query."""
    half = count // 2
    exact = half // 2
    size = np.abs(distances)
    # In float32, as where models were trained: a distance on a border falls to the same side.
    logarithm = np.log(np.maximum(size, 1).astype(np.float32) / exact)
    far = logarithm / np.float32(np.log(MAX_DISTANCE / exact)) * (half - exact)
    bucket = np.where(size < exact, size, np.minimum(exact + far.astype(np.int64), half - 1))
    buckets: NDArray[np.int64] = bucket + half * (distances > 0)
    return buckets


def sliced_bias(graph: GraphBuilder, bias: str, inputs: PackedInputs) -> PositionTerms:
    """Take the part of a bias [1, heads, L, L] that S positions need, once for all layers."""
    if inputs.device is not None:
        # No shape is computed on the way: a captured CUDA graph cannot look one up.
        rows = graph.op("Gather", bias, inputs.device.row_positions, axis=2)
        return PositionTerms(graph.op("Gather", rows, inputs.device.row_positions, axis=3))
    column = graph.weight("first_axis", np.array([0], np.int64))

    def part(first: str, stop: str) -> str:
        return graph.op(
            "Slice",
            bias,
            graph.op("Concat", first, column, axis=0),
            graph.op("Concat", stop, max_length, axis=0),
            graph.weight("bias_axes", np.array([2, 3], np.int64)),
        )

    def rows_from(first: str) -> str:
        start = graph.op("Unsqueeze", first, column)
        count = graph.weight("loop_queries", np.array([LOOP_QUERIES], np.int64))
        return part(start, graph.op("Add", start, count))

    max_length = graph.op("Shape", inputs.gather, start=1, end=2)
    return PositionTerms(
        unless(graph, inputs.is_looped, lambda: part(column, max_length)), rows_from
    )
