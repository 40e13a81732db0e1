"""A BERT forward pass in float64 numpy, one text at a time, that shares nothing with the code under test.

Source: BERT (arXiv:1810.04805) and Hugging Face's tensor names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Float64Array = NDArray[np.float64]


class ReferenceBert:
    """Computes token states and mean-pooled unit vectors.

    Args:
        config: The model's config.json.
        weights: The model's tensors by name.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]
    ) -> None:
        self._config = config
        self._weights = {name: tensor.astype(np.float64) for name, tensor in weights.items()}

    def hidden(self, ids: Sequence[int]) -> Float64Array:
        """Return the last layer's states of one text, `[T, H]`, float64."""
        weights = self._weights
        state = weights["embeddings.word_embeddings.weight"][list(ids)]
        state = state + weights["embeddings.position_embeddings.weight"][: len(ids)]
        state = state + weights["embeddings.token_type_embeddings.weight"][0]
        state = self._norm(state, "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            state = self._layer(state, f"encoder.layer.{number}")
        return state

    def vector(self, ids: Sequence[int]) -> Float64Array:
        """Return the mean-pooled unit vector of one text, `[H]`, float64."""
        mean: Float64Array = self.hidden(ids).mean(axis=0)
        unit: Float64Array = mean / np.sqrt((mean**2).sum())
        return unit

    def _layer(self, state: Float64Array, name: str) -> Float64Array:
        """Return the states `[T, H]` after a layer."""
        heads = self._config["num_attention_heads"]
        length, size = state.shape
        width = size // heads

        def split(part: str) -> Float64Array:
            projection = self._linear(state, f"{name}.attention.self.{part}")
            return projection.reshape(length, heads, width).transpose(1, 0, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(width)
        exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
        context = (probabilities @ value).transpose(1, 0, 2).reshape(length, size)
        attended = self._linear(context, f"{name}.attention.output.dense")
        state = self._norm(attended + state, f"{name}.attention.output.LayerNorm")
        inner = self._linear(state, f"{name}.intermediate.dense")
        activated = inner * 0.5 * (1.0 + erf(inner / np.sqrt(2.0)))
        down = self._linear(activated, f"{name}.output.dense")
        return self._norm(down + state, f"{name}.output.LayerNorm")

    def _linear(self, value: Float64Array, name: str) -> Float64Array:
        """Return a linear layer's output."""
        out: Float64Array = (
            value @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        )
        return out

    def _norm(self, value: Float64Array, name: str) -> Float64Array:
        """Return a layer norm's output."""
        centred = value - value.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(
            (centred**2).mean(axis=-1, keepdims=True) + self._config["layer_norm_eps"]
        )
        out: Float64Array = (
            centred / deviation * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        )
        return out
