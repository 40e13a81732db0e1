"""How linear layers compute: in floats, or in 8-bit integers whose scales do not depend on the rest of the batch.

All 8-bit kinds quantize activations to u8 and weights to s8 per output channel and multiply them by
MatMulIntegerToFloat (u8 x s8 has fast kernels on CPUs with VNNI and without; s8 x s8 has none). On x86 without VNNI
these add two products in 16 bits, which large ones do not fit: weights are stored there as u8 around 128, whose
kernels are exact, and give the same numbers. Activations are
smoothed first: channel j is divided by s_j and row j of the weight multiplied by it, so that outlier channels do not
use up the range.

Source: SmoothQuant (arXiv:2211.10438) for smoothing and its alpha; LLM.int8 (arXiv:2208.07339) for scales per row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.types import CONTRIB_DOMAIN, Float32Array
from nestvec.system.cpus import saturates_u8_s8

# s_j = amax_j^alpha / wmax_j^(1 - alpha); measured best among 0.5 … 0.9 on texts of STS-B's dev set and others.
SMOOTHING_ALPHA: Final = 0.75
U8_MAX: Final = 255
U8_MIDDLE: Final = 128
S8_MAX: Final = 127
# Largest ratio of a median channel's reach below zero to its reach above that still counts as one-sided.
MAX_ONE_SIDED_RATIO: Final = 0.25
# Keeps scales above zero for a channel that never fires and a row of zeros in a weight.
MIN_MAGNITUDE: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer, x W + b.

    Attributes:
        name: Names its weights in the graph.
        weight: [in, out], float32.
        bias: [out], float32.
        input_scale: [in], what an earlier layer has already divided this one's input by; None for nothing.
    """

    name: str
    weight: Float32Array
    bias: Float32Array
    input_scale: Float32Array | None = None


def split_linear(name: str, weight: Float32Array, bias: Float32Array, count: int) -> list[Linear]:
    """Split a torch Linear that holds the rows of several layers one after the other.

    Args:
        name: The layers are called `name.0`, `name.1`, ….
        weight: [count * out, in], as torch keeps it.
        bias: [count * out].
        count: Number of layers.
    """
    parts = zip(np.split(weight, count), np.split(bias, count), strict=True)
    return [
        Linear(f"{name}.{number}", rows.T, part_bias)
        for number, (rows, part_bias) in enumerate(parts)
    ]


def rounded_rows(table: Float32Array) -> tuple[Float32Array, NDArray[np.int8]]:
    """Round a table's rows to 8 bits, each by a scale of its own.

    Args:
        table: [V, H], float32.

    Returns:
        Scales, [V, 1], float32; and integers of -127 to 127, [V, H], which the scale makes the row of.
    """
    steps = np.maximum(np.abs(table).max(axis=1, keepdims=True), MIN_MAGNITUDE) / S8_MAX
    rounded = np.clip(np.rint(table / steps), -S8_MAX, S8_MAX).astype(np.int8)
    return steps.astype(np.float32), rounded


@dataclass(frozen=True, slots=True)
class ChannelRanges:
    """Least and greatest value of each channel of a layer's input on calibration texts.

    Attributes:
        low: [in], float32.
        high: [in], float32.
    """

    low: Float32Array
    high: Float32Array

    @property
    def is_one_sided(self) -> bool:
        """Whether most channels hardly go below zero, as after GELU or ReLU."""
        return bool(-np.median(self.low) < MAX_ONE_SIDED_RATIO * np.median(self.high))

    def divided_by(self, scale: Float32Array) -> "ChannelRanges":
        """The ranges of the input divided by a scale, [in]."""
        return ChannelRanges(self.low / scale, self.high / scale)


class Arithmetic(Protocol):
    """A way of computing linear layers."""

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """Add x W + b for layers that share their input.

        Args:
            graph: Takes the nodes.
            value: The input, [T, in].
            layers: The layers.

        Returns:
            A value [T, out] for each layer.

        Raises:
            FormatError: There is no calibration for the input.
        """

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """Move the smoothing of a layer's input into the layer before it; only linear steps may lie between.

        Returns:
            Both layers, rescaled so that their product is the same.

        Raises:
            FormatError: There is no calibration for the input.
        """


class Floating:
    """Computes in the graph's own float dtype.

    On CPU a layer is one Gemm: faster than MatMul + Add, whose Add is a pass of its own. On a device it is the other
    way round: there Gemm writes the bias first and reads it again, while the next node can add it for nothing
    (`graph/fusion.py`).
    """

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """Add one Gemm a layer, or on a device a MatMul and, for a bias that is not zero, an Add."""
        return [self._apply_layer(graph, value, layer) for layer in layers]

    @staticmethod
    def _apply_layer(graph: GraphBuilder, value: str, layer: Linear) -> str:
        weight = graph.weight(f"{layer.name}.weight", layer.weight)
        if not graph.is_for_device:
            return graph.op("Gemm", value, weight, graph.weight(f"{layer.name}.bias", layer.bias))
        product = graph.op("MatMul", value, weight)
        if not layer.bias.any():
            return product
        return graph.op("Add", product, graph.weight(f"{layer.name}.bias", layer.bias))

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """Return both layers unchanged: floats gain nothing by smoothing."""
        return producer, consumer


@dataclass
class RecordingFloating(Floating):
    """Computes in floats and records the inputs of all layers, for calibration.

    Attributes:
        inputs: Value and width of each input by the name of the first layer that takes it, in the graph's order.
    """

    inputs: dict[str, tuple[str, int]] = field(default_factory=dict)

    @override
    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """Record the input, and add the layers in floats."""
        name, recorded = layers[0].name, value
        if name in self.inputs:  # layers that share their weights have one range
            recorded = graph.op("Concat", self.inputs[name][0], value, axis=0)
        self.inputs[name] = (recorded, len(layers[0].weight))
        return super().apply(graph, value, layers)


@dataclass(frozen=True)
class StaticInt8:
    """Quantizes each layer's input by one scale and zero point, fixed by calibration; the fastest kind.

    Attributes:
        ranges: Ranges of each input by the name of the first layer that takes it.
    """

    ranges: Mapping[str, ChannelRanges]

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """Smooth the consumer's input in the producer's weights, which costs nothing at run time."""
        scale = _smoothing_scale(self.ranges, [consumer])
        return (
            replace(producer, weight=producer.weight / scale, bias=producer.bias / scale),
            replace(consumer, weight=consumer.weight * scale[:, None], input_scale=scale),
        )

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """Add a QuantizeLinear with constant scale, and an 8-bit product for each layer."""
        name = layers[0].name
        value, layers = _smoothed(graph, value, layers, self.ranges)
        ranges = _ranges_of(self.ranges, name).divided_by(_input_scale(layers[0]))
        # Zero must be exact, so the range includes it whatever calibration has seen.
        low, high = min(float(ranges.low.min()), 0.0), max(float(ranges.high.max()), 0.0)
        step = max(high - low, MIN_MAGNITUDE) / U8_MAX
        scale = _scalar(graph, f"{name}.input_scale", step)
        zero_point = graph.weight(f"{name}.input_zero", np.array(round(-low / step), np.uint8))
        quantized = graph.op("QuantizeLinear", value, scale, zero_point)
        return [_integer_product(graph, quantized, scale, zero_point, layer) for layer in layers]


@dataclass(frozen=True)
class PerRowInt8:
    """Quantizes each token's row by a scale of its own, so nothing is clipped; slower and more accurate.

    Inputs that hardly go below zero, as after GELU, are shifted by a constant and use all 255 steps upwards; the
    bias takes the shift back. Others are smoothed and use 127 steps either way.

    Attributes:
        ranges: Ranges of each input by the name of the first layer that takes it.
    """

    ranges: Mapping[str, ChannelRanges]

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """Smooth the consumer's input in the producer's weights, as `StaticInt8` does."""
        return StaticInt8(self.ranges).balance(producer, consumer)

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """Add nodes that find and apply each row's scale, and an 8-bit product for each layer."""
        ranges = _ranges_of(self.ranges, layers[0].name)
        if layers[0].input_scale is None and ranges.is_one_sided:
            low = float(ranges.low.min())
            shifted = graph.op("Sub", value, _scalar(graph, f"{layers[0].name}.low", low))
            quantized, zero_point, row_scale = _quantized_rows(graph, shifted, shifted, U8_MAX, 0)
            layers = [
                replace(layer, bias=layer.bias + low * layer.weight.sum(axis=0)) for layer in layers
            ]
        else:
            value, layers = _smoothed(graph, value, layers, self.ranges)
            magnitude = graph.op("Abs", value)
            quantized, zero_point, row_scale = _quantized_rows(
                graph, value, magnitude, S8_MAX, U8_MIDDLE
            )
        one = _scalar(graph, "int8.one", 1.0)
        products = []
        for layer in layers:
            product = _integer_product(graph, quantized, one, zero_point, layer, adds_bias=False)
            bias = graph.weight(f"{layer.name}.bias", layer.bias)
            products.append(graph.op("Add", graph.op("Mul", product, row_scale), bias))
        return products


def _quantized_rows(
    graph: GraphBuilder, value: str, magnitude: str, steps: int, middle: int
) -> tuple[str, str, str]:
    """Scale each row of [T, in] so that its greatest magnitude is `steps`, around `middle`.

    Returns:
        u8 [T, in], its zero point, the rows' scales [T, 1].
    """
    last = graph.weight("last", np.array([-1], np.int64))
    peak = graph.op("ReduceMax", magnitude, last, keepdims=1)
    row_scale = graph.op(
        "Mul",
        graph.op("Max", peak, _scalar(graph, "int8.least", MIN_MAGNITUDE)),
        _scalar(graph, f"int8.step_of_{steps}", 1 / steps),
    )
    scaled = graph.op("Mul", value, graph.op("Reciprocal", row_scale))
    zero_point = graph.weight(f"int8.zero_{middle}", np.array(middle, np.uint8))
    one = _scalar(graph, "int8.one", 1.0)
    return graph.op("QuantizeLinear", scaled, one, zero_point), zero_point, row_scale


def _scalar(graph: GraphBuilder, name: str, value: float) -> str:
    return graph.weight(name, np.array(value, np.float32))


def _ranges_of(ranges: Mapping[str, ChannelRanges], name: str) -> ChannelRanges:
    if name not in ranges:
        raise FormatError(f"no calibration for layer '{name}'")
    return ranges[name]


def _input_scale(layer: Linear) -> Float32Array:
    return np.ones(1, np.float32) if layer.input_scale is None else layer.input_scale


def _smoothing_scale(ranges: Mapping[str, ChannelRanges], layers: Sequence[Linear]) -> Float32Array:
    """Compute s, [in], of the layers that share an input."""
    input_ranges = _ranges_of(ranges, layers[0].name)
    peak = np.maximum(
        np.maximum(np.abs(input_ranges.low), np.abs(input_ranges.high)), MIN_MAGNITUDE
    )
    weight_peak = np.max([np.abs(layer.weight).max(axis=1) for layer in layers], axis=0)
    damping = np.maximum(weight_peak, MIN_MAGNITUDE) ** (1 - SMOOTHING_ALPHA)
    scale: Float32Array = (peak**SMOOTHING_ALPHA / damping).astype(np.float32)
    return scale


def _smoothed(
    graph: GraphBuilder,
    value: str,
    layers: Sequence[Linear],
    ranges: Mapping[str, ChannelRanges],
) -> tuple[str, list[Linear]]:
    """Divide the input by s and multiply it into the weights, unless an earlier layer has done so."""
    if layers[0].input_scale is not None:
        return value, list(layers)
    scale = _smoothing_scale(ranges, layers)
    inverse = graph.weight(f"{layers[0].name}.smoothing", (1 / scale).astype(np.float32))
    rescaled = [
        replace(layer, weight=layer.weight * scale[:, None], input_scale=scale) for layer in layers
    ]
    return graph.op("Mul", value, inverse), rescaled


def _integer_product(
    graph: GraphBuilder,
    quantized: str,
    scale: str,
    zero_point: str,
    layer: Linear,
    *,
    adds_bias: bool = True,
) -> str:
    """Multiply u8 [T, in] by s8 [in, out] and scale the result back to float32 [T, out]."""
    steps = (np.maximum(np.abs(layer.weight).max(axis=0), MIN_MAGNITUDE) / S8_MAX).astype(
        np.float32
    )
    rounded = np.clip(np.rint(layer.weight / steps), -S8_MAX, S8_MAX).astype(np.int8)
    middle = ""
    if saturates_u8_s8():
        middle = graph.weight("int8.weight_zero_128", np.array(U8_MIDDLE, np.uint8))
        shifted = (rounded.astype(np.int16) + U8_MIDDLE).astype(np.uint8)
        weights = graph.weight(f"{layer.name}.weight_u8", shifted)
    else:
        weights = graph.weight(f"{layer.name}.weight_s8", rounded)
    inputs = [
        quantized,
        weights,
        scale,
        graph.weight(f"{layer.name}.weight_scale", steps),
        zero_point,
    ]
    if middle or adds_bias:
        inputs.append(middle)
    if adds_bias:
        inputs += [graph.weight(f"{layer.name}.bias", layer.bias)]
    return graph.op("MatMulIntegerToFloat", *inputs, domain=CONTRIB_DOMAIN)
