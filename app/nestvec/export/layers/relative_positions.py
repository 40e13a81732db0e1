"""What attention adds to scores for the distance between tokens: a bias, or scores computed from positions.

Source: T5 (arXiv:1910.10683), section 2.1, for buckets, which MPNet (arXiv:2004.09297) took over, the same for every
layer; ALiBi (arXiv:2108.12409), in both directions as in Jina's second models (arXiv:2310.19923).
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
from nestvec.export.layers.masks import key_distances

# Keys at this distance or further share the last bucket, as in T5 and MPNet.
MAX_DISTANCE: Final = 128


@dataclass(frozen=True, slots=True)
class PositionTerms:
    """What one layer's attention adds to scores for positions.

    Attributes:
        bias: Added to scaled scores, [1, heads, S, S]; None for nothing.
        position_scores: Makes of queries [B, heads, S, d] and keys [B, heads, d, S] what is added to their products
            before scaling, [B, heads, S, S]; None for nothing.
        scale: What scores are multiplied by; None for 1 / sqrt(d).
    """

    bias: str | None = None
    position_scores: Callable[[str, str], str] | None = None
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
        bias = slice_bias(context.graph, name, context.inputs)
        return lambda _: PositionTerms(bias)


@dataclass(frozen=True, slots=True)
class Alibi:
    """A penalty that grows linearly with the distance, with a slope for each head."""

    def build(
        self, config: Mapping[str, Any], sizes: EncoderConfig, context: BuildContext, prefix: str
    ) -> Callable[[str], PositionTerms]:
        """Add one penalty that all layers share."""
        del config, prefix
        graph = context.graph
        slopes = alibi_slopes(sizes.num_attention_heads)[None, :, None, None]
        distances = graph.op("Abs", key_distances(graph, context.inputs))
        penalty = graph.op(
            "Mul",
            graph.op("Cast", distances, to=graph.onnx_float_type),
            graph.weight("slopes", -slopes),
        )
        return lambda _: PositionTerms(penalty)


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


def slice_bias(graph: GraphBuilder, bias: str, inputs: PackedInputs) -> str:
    """Take the part of a bias [1, heads, L, L] that S positions need, once for all layers."""
    if inputs.device is not None:
        # No shape is computed on the way: a captured CUDA graph cannot look one up.
        rows = graph.op("Gather", bias, inputs.device.row_positions, axis=2)
        return graph.op("Gather", rows, inputs.device.row_positions, axis=3)
    max_length = graph.op("Shape", inputs.gather, start=1, end=2)
    return graph.op(
        "Slice",
        bias,
        graph.weight("bias_starts", np.array([0, 0], np.int64)),
        graph.op("Concat", max_length, max_length, axis=0),
        graph.weight("bias_axes", np.array([2, 3], np.int64)),
    )
