"""JinaBERT in numpy, float64, written from its paper (arXiv:2310.19923) and its authors' code.

transformers has no such model.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.export.families.reference_layers import Float64Array, gelu, layer_norm, linear, softmax


def shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the shape of every tensor."""
    size, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": [config["vocab_size"], size],
        "embeddings.token_type_embeddings.weight": [config["type_vocab_size"], size],
        "embeddings.LayerNorm.weight": [size],
        "embeddings.LayerNorm.bias": [size],
    }
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{layer}attention.{part}.weight"] = [size, size]
            shapes[f"{layer}attention.{part}.bias"] = [size]
        for norm in ("attention.output.LayerNorm", "mlp.layernorm"):
            shapes[f"{layer}{norm}.weight"] = [size]
            shapes[f"{layer}{norm}.bias"] = [size]
        shapes[f"{layer}mlp.gated_layers.weight"] = [2 * inner, size]
        shapes[f"{layer}mlp.wo.weight"] = [size, inner]
        shapes[f"{layer}mlp.wo.bias"] = [size]
    return shapes


def last_states(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], ids: list[int]
) -> Float64Array:
    """Compute the last states of one input, [n, H]."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]

    norm = partial(layer_norm, tensors=wide, epsilon=epsilon)
    project = partial(linear, tensors=wide)
    words = wide["embeddings.word_embeddings.weight"][ids]
    state = norm(words + wide["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    positions = np.arange(len(ids))
    distances = np.abs(positions[:, None] - positions[None, :])
    width = state.shape[1] // heads
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            project(state, f"{layer}.attention.self.{part}").reshape(len(ids), heads, width)
            for part in ("query", "key", "value")
        )
        mixed = np.empty_like(query)
        for head in range(heads):
            slope = _slopes(heads)[head]
            scores = query[:, head] @ key[:, head].T / math.sqrt(width) - slope * distances
            mixed[:, head] = softmax(scores) @ value[:, head]
        attended = project(mixed.reshape(len(ids), -1), f"{layer}.attention.output.dense")
        state = norm(attended + state, f"{layer}.attention.output.LayerNorm")
        both = state @ wide[f"{layer}.mlp.gated_layers.weight"].T
        inner = both.shape[1] // 2
        narrow = project(gelu(both[:, :inner]) * both[:, inner:], f"{layer}.mlp.wo")
        state = norm(narrow + state, f"{layer}.mlp.layernorm")
    return state


def _slopes(heads: int) -> list[float]:
    """Compute the slopes by the authors' function, which is ALiBi's (arXiv:2108.12409)."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return _slopes(closest) + _slopes(2 * closest)[0::2][: heads - closest]
