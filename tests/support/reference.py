"""A BERT forward pass in float64 numpy, one text at a time: shares nothing with the code under test.

Source: BERT (arXiv:1810.04805) and Hugging Face's tensor names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Wide = NDArray[np.float64]


class ReferenceBert:
    """Computes token states and mean-pooled unit vectors.

    Args:
        config: The model's config.json.
        weights: Its tensors by name.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]
    ) -> None:
        self._config = config
        self._weights = {name: tensor.astype(np.float64) for name, tensor in weights.items()}

    def hidden(self, ids: Sequence[int]) -> Wide:
        """Last-layer states of one text; (n, H), float64."""
        weights = self._weights
        state = weights["embeddings.word_embeddings.weight"][list(ids)]
        state = state + weights["embeddings.position_embeddings.weight"][: len(ids)]
        state = state + weights["embeddings.token_type_embeddings.weight"][0]
        state = self._norm(state, "embeddings.LayerNorm")
        for number in range(self._config["num_hidden_layers"]):
            state = self._layer(state, f"encoder.layer.{number}")
        return state

    def vector(self, ids: Sequence[int]) -> Wide:
        """Mean-pooled unit vector of one text; (H,), float64."""
        mean: Wide = self.hidden(ids).mean(axis=0)
        unit: Wide = mean / np.sqrt((mean**2).sum())
        return unit

    def _layer(self, state: Wide, name: str) -> Wide:
        heads = self._config["num_attention_heads"]
        length, size = state.shape
        width = size // heads

        def split(part: str) -> Wide:
            projected = self._linear(state, f"{name}.attention.self.{part}")
            return projected.reshape(length, heads, width).transpose(1, 0, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(width)
        exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = exponents / exponents.sum(axis=-1, keepdims=True)
        context = (shares @ value).transpose(1, 0, 2).reshape(length, size)
        attended = self._linear(context, f"{name}.attention.output.dense")
        state = self._norm(attended + state, f"{name}.attention.output.LayerNorm")
        wide = self._linear(state, f"{name}.intermediate.dense")
        active = wide * 0.5 * (1.0 + erf(wide / np.sqrt(2.0)))
        down = self._linear(active, f"{name}.output.dense")
        return self._norm(down + state, f"{name}.output.LayerNorm")

    def _linear(self, value: Wide, name: str) -> Wide:
        out: Wide = value @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return out

    def _norm(self, value: Wide, name: str) -> Wide:
        centred = value - value.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(
            (centred**2).mean(axis=-1, keepdims=True) + self._config["layer_norm_eps"]
        )
        out: Wide = (
            centred / deviation * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        )
        return out
