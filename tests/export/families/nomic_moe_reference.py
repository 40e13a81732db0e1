"""NomicBERT with experts in numpy, float64, written from its paper (arXiv:2502.07972) and its authors' code.

transformers' own NomicBERT has no experts.
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
    size, inner, experts = config["n_embd"], config["n_inner"], config["num_experts"]
    shapes = {
        "embeddings.word_embeddings.weight": [config["vocab_size"], size],
        "embeddings.token_type_embeddings.weight": [config["type_vocab_size"], size],
        "emb_ln.weight": [size],
        "emb_ln.bias": [size],
    }
    for number in range(config["n_layer"]):
        layer = f"encoder.layers.{number}."
        layers = {"attn.Wqkv": (3 * size, size), "attn.out_proj": (size, size)}
        if number % config["moe_every_n_layers"] == 1:
            shapes[f"{layer}mlp.router.layer.weight"] = [experts, size]
            shapes[f"{layer}mlp.experts.mlp.w1"] = [experts * inner, size]
            shapes[f"{layer}mlp.experts.mlp.w2"] = [experts * inner, size]
            shapes[f"{layer}mlp.experts.bias"] = [size]
        else:
            layers |= {"mlp.fc1": (inner, size), "mlp.fc2": (size, inner)}
        for part, (rows, columns) in layers.items():
            shapes[f"{layer}{part}.weight"] = [rows, columns]
            shapes[f"{layer}{part}.bias"] = [rows]
        for norm in ("norm1", "norm2"):
            shapes[f"{layer}{norm}.weight"] = [size]
            shapes[f"{layer}{norm}.bias"] = [size]
    return shapes


def last_states(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], ids: list[int]
) -> Float64Array:
    """Compute the last states of one input, [n, H]."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    epsilon = config["layer_norm_epsilon"]

    norm = partial(layer_norm, tensors=wide, epsilon=epsilon)
    project = partial(linear, tensors=wide)
    words = wide["embeddings.word_embeddings.weight"][ids]
    state = norm(words + wide["embeddings.token_type_embeddings.weight"][0], "emb_ln")
    for number in range(config["n_layer"]):
        layer = f"encoder.layers.{number}"
        qkv = project(state, f"{layer}.attn.Wqkv")
        mixed = _attention(qkv, config["n_head"], config["rotary_emb_base"])
        state = norm(project(mixed, f"{layer}.attn.out_proj") + state, f"{layer}.norm1")
        if number % config["moe_every_n_layers"] == 1:
            projected = _experts(config, wide, state, f"{layer}.mlp")
        else:
            projected = project(gelu(project(state, f"{layer}.mlp.fc1")), f"{layer}.mlp.fc2")
        state = norm(projected + state, f"{layer}.norm2")
    return state


def _attention(qkv: Float64Array, heads: int, base: float) -> Float64Array:
    """Mix values by rotated queries and keys, [n, 3 * H] to [n, H]."""
    count, size = len(qkv), qkv.shape[1] // 3
    width = size // heads
    query, key, value = (part.reshape(count, heads, width) for part in np.split(qkv, 3, axis=1))
    angles = np.outer(np.arange(count), base ** (-np.arange(0, width, 2) / width))
    cos, sin = (np.tile(table, 2)[:, None] for table in (np.cos(angles), np.sin(angles)))

    def rotated(part: Float64Array) -> Float64Array:
        turned = np.concatenate([-part[..., width // 2 :], part[..., : width // 2]], axis=-1)
        result: Float64Array = part * cos + turned * sin
        return result

    query, key = rotated(query), rotated(key)
    mixed = np.empty_like(value)
    for head in range(heads):
        scores = query[:, head] @ key[:, head].T / math.sqrt(width)
        mixed[:, head] = softmax(scores) @ value[:, head]
    return mixed.reshape(count, size)


def _experts(
    config: Mapping[str, Any], wide: Mapping[str, Float64Array], state: Float64Array, name: str
) -> Float64Array:
    """Send each token through the experts that its router finds most likely, weighed by these likelihoods."""
    count, inner = config["num_experts"], config["n_inner"]
    up = wide[f"{name}.experts.mlp.w1"].reshape(count, inner, -1)
    down = wide[f"{name}.experts.mlp.w2"].reshape(count, inner, -1)
    likely = softmax(state @ wide[f"{name}.router.layer.weight"].T)
    result = np.zeros_like(state)
    for row, token in enumerate(state):
        for expert in np.argsort(-likely[row])[: config["moe_top_k"]]:
            result[row] += likely[row, expert] * (gelu(up[expert] @ token) @ down[expert])
    summed: Float64Array = result + wide[f"{name}.experts.bias"]
    return summed
