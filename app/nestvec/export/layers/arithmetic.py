"""How linear layers compute: in floats, or 8-bit integers with scales that no batch-mate can change.

All 8-bit kinds quantise activations to u8 and weights to s8 per output channel, multiplied by MatMulIntegerToFloat
(u8 x s8 has fast kernels on CPUs with VNNI and without; s8 x s8 has none). Activations are smoothed first: channel j
is divided by s_j and the weight's row j multiplied by it, so that outlier channels do not eat the range.

Source: SmoothQuant (arXiv:2211.10438) for smoothing and its alpha; LLM.int8 (arXiv:2208.07339) for scales per row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.graph.builder import MICROSOFT, GraphBuilder

Floats = NDArray[np.float32]

# s_j = amax_j^alpha / wmax_j^(1 - alpha); measured best among 0.5 … 0.9 on texts of STS-B's dev set and others.
SMOOTHING_ALPHA: Final = 0.75
U8_MAX: Final = 255
U8_MIDDLE: Final = 128
S8_MAX: Final = 127
ONE_SIDED: Final = 0.25  # least over greatest value, in the median channel
LEAST: Final = 1e-8  # a channel that never fires, a weight row of zeros


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer.

    Attributes:
        weight: (in, out), float32.
        bias: (out,), float32.
        input_scale: What an earlier layer has divided this one's input by already, (in,); None for nothing.
    """

    name: str
    weight: Floats
    bias: Floats
    input_scale: Floats | None = None


def split_linear(name: str, weight: Floats, bias: Floats, count: int) -> list[Linear]:
    """The layers whose rows a torch Linear holds one after the other.

    Args:
        name: The layers are called `name.0`, `name.1`, ….
        weight: (count·out, in), as torch keeps it.
        bias: (count·out,).
        count: Number of layers.
    """
    parts = zip(np.split(weight, count), np.split(bias, count), strict=True)
    return [Linear(f"{name}.{number}", rows.T, shift) for number, (rows, shift) in enumerate(parts)]


@dataclass(frozen=True, slots=True)
class Ranges:
    """Least and greatest value of each channel of a layer's input on calibration texts; (in,), float32."""

    low: Floats
    high: Floats

    @property
    def is_one_sided(self) -> bool:
        """Whether most channels hardly go below zero, as after GELU or ReLU."""
        return bool(-np.median(self.low) < ONE_SIDED * np.median(self.high))

    def over(self, scale: Floats) -> "Ranges":
        """Of the input divided by a scale, (in,)."""
        return Ranges(self.low / scale, self.high / scale)


class Arithmetic(Protocol):
    """A way of computing linear layers."""

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """X W + b for layers that share their input (T, in).

        Returns:
            A value (T, out) for each layer.
        """

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """Move the smoothing of a layer's input into the layer before it; only linear steps may lie between.

        Returns:
            Both, rescaled so that their product is the same.
        """


class Floating:
    """The graph's own floats.

    One Gemm a layer on CPU: faster than MatMul + Add, whose Add is its own pass. On a device it is the other way round:
    there Gemm writes the bias first and reads it again, and what comes next takes it for nothing (`fusion.py`).
    """

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """See `Arithmetic`."""
        return [self._one(graph, value, layer) for layer in layers]

    @staticmethod
    def _one(graph: GraphBuilder, value: str, layer: Linear) -> str:
        weight = graph.weight(f"{layer.name}.weight", layer.weight)
        if not graph.is_for_device:
            return graph.op("Gemm", value, weight, graph.weight(f"{layer.name}.bias", layer.bias))
        product = graph.op("MatMul", value, weight)
        if not layer.bias.any():
            return product
        return graph.op("Add", product, graph.weight(f"{layer.name}.bias", layer.bias))

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """See `Arithmetic`; nothing to gain."""
        return producer, consumer


@dataclass
class Observed(Floating):
    """Floats that remember the inputs of its layers, for calibration.

    Attributes:
        inputs: Name of the first layer that takes it → value and width, in the graph's order.
    """

    inputs: dict[str, tuple[str, int]] = field(default_factory=dict)

    @override
    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """See `Arithmetic`."""
        self.inputs[layers[0].name] = (value, len(layers[0].weight))
        return super().apply(graph, value, layers)


@dataclass(frozen=True)
class StaticInt8:
    """One scale and zero point for each layer's input, fixed by calibration; the fastest.

    Attributes:
        ranges: By the name of the first layer that takes the input.
    """

    ranges: Mapping[str, Ranges]

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """See `Arithmetic`; smoothing that costs nothing at run time."""
        scale = _smoothing(self.ranges, [consumer])
        return (
            replace(producer, weight=producer.weight / scale, bias=producer.bias / scale),
            replace(consumer, weight=consumer.weight * scale[:, None], input_scale=scale),
        )

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """See `Arithmetic`."""
        name = layers[0].name
        value, layers = _smoothed(graph, value, layers, self.ranges)
        found = _ranges(self.ranges, name).over(_input_scale(layers[0]))
        # Zero must be exact: it lies within the range whatever was seen.
        low, high = min(float(found.low.min()), 0.0), max(float(found.high.max()), 0.0)
        step = max(high - low, LEAST) / U8_MAX
        scale = _scalar(graph, f"{name}.input_scale", step)
        zero = graph.weight(f"{name}.input_zero", np.array(round(-low / step), np.uint8))
        quantised = graph.op("QuantizeLinear", value, scale, zero)
        return [_integer_product(graph, quantised, scale, zero, layer) for layer in layers]


@dataclass(frozen=True)
class PerRowInt8:
    """A scale for each token's own row, so nothing is clipped; slower and more accurate.

    Inputs that hardly go below zero, as after GELU, are shifted by a constant and use all 255 steps upwards; the
    bias takes the shift back. Others are smoothed and use 127 steps either way.

    Attributes:
        ranges: By the name of the first layer that takes the input.
    """

    ranges: Mapping[str, Ranges]

    def balance(self, producer: Linear, consumer: Linear) -> tuple[Linear, Linear]:
        """See `Arithmetic`."""
        return StaticInt8(self.ranges).balance(producer, consumer)

    def apply(self, graph: GraphBuilder, value: str, layers: Sequence[Linear]) -> list[str]:
        """See `Arithmetic`."""
        found = _ranges(self.ranges, layers[0].name)
        if layers[0].input_scale is None and found.is_one_sided:
            low = float(found.low.min())
            lifted = graph.op("Sub", value, _scalar(graph, f"{layers[0].name}.low", low))
            quantised, zero, row = _quantised_rows(graph, lifted, lifted, U8_MAX, 0)
            layers = [replace(x, bias=x.bias + low * x.weight.sum(axis=0)) for x in layers]
        else:
            value, layers = _smoothed(graph, value, layers, self.ranges)
            magnitude = graph.op("Abs", value)
            quantised, zero, row = _quantised_rows(graph, value, magnitude, S8_MAX, U8_MIDDLE)
        one = _scalar(graph, "int8.one", 1.0)
        products = []
        for layer in layers:
            product = _integer_product(graph, quantised, one, zero, layer, adds_bias=False)
            bias = graph.weight(f"{layer.name}.bias", layer.bias)
            products.append(graph.op("Add", graph.op("Mul", product, row), bias))
        return products


def _quantised_rows(
    graph: GraphBuilder, value: str, magnitude: str, steps: int, middle: int
) -> tuple[str, str, str]:
    """Each row of (T, in) scaled so that its greatest magnitude is `steps`, around `middle`.

    Returns:
        u8 (T, in), its zero point, the rows' scales (T, 1).
    """
    last = graph.weight("last", np.array([-1], np.int64))
    peak = graph.op("ReduceMax", magnitude, last, keepdims=1)
    row = graph.op(
        "Mul",
        graph.op("Max", peak, _scalar(graph, "int8.least", LEAST)),
        _scalar(graph, f"int8.step_of_{steps}", 1 / steps),
    )
    scaled = graph.op("Mul", value, graph.op("Reciprocal", row))
    zero = graph.weight(f"int8.zero_{middle}", np.array(middle, np.uint8))
    return graph.op("QuantizeLinear", scaled, _scalar(graph, "int8.one", 1.0), zero), zero, row


def _scalar(graph: GraphBuilder, name: str, value: float) -> str:
    return graph.weight(name, np.array(value, np.float32))


def _ranges(ranges: Mapping[str, Ranges], name: str) -> Ranges:
    if name not in ranges:
        raise FormatError(f"no calibration for layer '{name}'")
    return ranges[name]


def _input_scale(layer: Linear) -> Floats:
    return np.ones(1, np.float32) if layer.input_scale is None else layer.input_scale


def _smoothing(ranges: Mapping[str, Ranges], layers: Sequence[Linear]) -> Floats:
    """S (in,), shared by all layers that share the input."""
    found = _ranges(ranges, layers[0].name)
    peak = np.maximum(np.maximum(np.abs(found.low), np.abs(found.high)), LEAST)
    weight_peak = np.max([np.abs(layer.weight).max(axis=1) for layer in layers], axis=0)
    damping = np.maximum(weight_peak, LEAST) ** (1 - SMOOTHING_ALPHA)
    scale: Floats = (peak**SMOOTHING_ALPHA / damping).astype(np.float32)
    return scale


def _smoothed(
    graph: GraphBuilder, value: str, layers: Sequence[Linear], ranges: Mapping[str, Ranges]
) -> tuple[str, list[Linear]]:
    """Divide the input by s and multiply it into the weights, unless an earlier layer did."""
    if layers[0].input_scale is not None:
        return value, list(layers)
    scale = _smoothing(ranges, layers)
    inverse = graph.weight(f"{layers[0].name}.smoothing", (1 / scale).astype(np.float32))
    rescaled = [
        replace(layer, weight=layer.weight * scale[:, None], input_scale=scale) for layer in layers
    ]
    return graph.op("Mul", value, inverse), rescaled


def _integer_product(
    graph: GraphBuilder,
    quantised: str,
    scale: str,
    zero: str,
    layer: Linear,
    *,
    adds_bias: bool = True,
) -> str:
    """u8 (T, in) times s8 (in, out), scaled back to float32 (T, out)."""
    steps = (np.maximum(np.abs(layer.weight).max(axis=0), LEAST) / S8_MAX).astype(np.float32)
    rounded = np.clip(np.rint(layer.weight / steps), -S8_MAX, S8_MAX).astype(np.int8)
    inputs = [
        quantised,
        graph.weight(f"{layer.name}.weight_s8", rounded),
        scale,
        graph.weight(f"{layer.name}.weight_scale", steps),
        zero,
    ]
    if adds_bias:
        inputs += ["", graph.weight(f"{layer.name}.bias", layer.bias)]
    return graph.op("MatMulIntegerToFloat", *inputs, domain=MICROSOFT)
