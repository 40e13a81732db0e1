"""Layers in numpy, float64, that the references of several families have in common."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


def layer_norm(
    value: Float64Array, name: str, tensors: Mapping[str, Float64Array], epsilon: float
) -> Float64Array:
    """Bring each row to mean 0 and variance 1, then scale and move it (arXiv:1607.06450)."""
    centred = value - value.mean(-1, keepdims=True)
    root = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    normed: Float64Array = centred / root * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
    return normed


def linear(value: Float64Array, name: str, tensors: Mapping[str, Float64Array]) -> Float64Array:
    """Multiply rows, and add the bias."""
    result: Float64Array = value @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
    return result


def gelu(value: Float64Array) -> Float64Array:
    """Weigh values by the normal distribution (arXiv:1606.08415)."""
    result: Float64Array = value * 0.5 * (1 + np.vectorize(math.erf)(value / math.sqrt(2)))
    return result


def softmax(scores: Float64Array) -> Float64Array:
    """Make shares of each row's scores."""
    raised = np.exp(scores - scores.max(-1, keepdims=True))
    shares: Float64Array = raised / raised.sum(-1, keepdims=True)
    return shares
