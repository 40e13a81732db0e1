"""NV-Embed in numpy, float64, written from its paper (arXiv:2405.17428) and its authors' code.

transformers has no such model.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.export.families.reference_layers import Float64Array, gelu, layer_norm, softmax

LATENT = "latent_attention_model."


def shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return the shape of every tensor."""
    text, latent = config["text_config"], config["latent_attention_config"]
    size, inner = text["hidden_size"], text["intermediate_size"]
    width = size // text["num_attention_heads"]
    narrow = text["num_key_value_heads"] * width
    cross = latent["num_cross_heads"] * latent["cross_dim_head"]
    shapes = {
        "embedding_model.embed_tokens.weight": [text["vocab_size"], size],
        "embedding_model.norm.weight": [size],
        f"{LATENT}latents": [latent["num_latents_value"], size],
        f"{LATENT}cross_attend_blocks.0.fn.to_q.weight": [cross, size],
        f"{LATENT}cross_attend_blocks.0.fn.to_kv.weight": [2 * cross, size],
        f"{LATENT}cross_attend_blocks.0.fn.to_out.weight": [size, cross],
        f"{LATENT}cross_attend_blocks.1.fn.net.0.weight": [8 * size, size],
        f"{LATENT}cross_attend_blocks.1.fn.net.0.bias": [8 * size],
        f"{LATENT}cross_attend_blocks.1.fn.net.2.weight": [size, 4 * size],
        f"{LATENT}cross_attend_blocks.1.fn.net.2.bias": [size],
    }
    for norm in ("0.norm", "0.norm_context", "1.norm"):
        for kind in ("weight", "bias"):
            shapes[f"{LATENT}cross_attend_blocks.{norm}.{kind}"] = [size]
    for number in range(text["num_hidden_layers"]):
        layer = f"embedding_model.layers.{number}."
        for part, rows in (("q", size), ("k", narrow), ("v", narrow), ("o", size)):
            shapes[f"{layer}self_attn.{part}_proj.weight"] = [rows, size]
        for part, shape in (
            ("gate", [inner, size]),
            ("up", [inner, size]),
            ("down", [size, inner]),
        ):
            shapes[f"{layer}mlp.{part}_proj.weight"] = shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{norm}.weight"] = [size]
    return shapes


def last_states(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], ids: list[int]
) -> Float64Array:
    """Compute the states of one input behind the latent attention, [n, H]."""
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    state = _decoder(config["text_config"], wide, ids)
    latent = config["latent_attention_config"]
    heads, width = latent["num_cross_heads"], latent["cross_dim_head"]
    block = f"{LATENT}cross_attend_blocks."

    norm = partial(layer_norm, tensors=wide, epsilon=1e-5)
    query = norm(state, f"{block}0.norm") @ wide[f"{block}0.fn.to_q.weight"].T
    context = norm(wide[f"{LATENT}latents"], f"{block}0.norm_context")
    both = context @ wide[f"{block}0.fn.to_kv.weight"].T
    keys, values = both[:, : heads * width], both[:, heads * width :]
    mixed = np.empty_like(query)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        mixed[:, part] = (
            softmax(query[:, part] @ keys[:, part].T / math.sqrt(width)) @ values[:, part]
        )
    state = mixed @ wide[f"{block}0.fn.to_out.weight"].T + state
    inner = norm(state, f"{block}1.norm") @ wide[f"{block}1.fn.net.0.weight"].T
    inner = inner + wide[f"{block}1.fn.net.0.bias"]
    value, gate = np.split(inner, 2, axis=1)
    narrow = (value * gelu(gate)) @ wide[f"{block}1.fn.net.2.weight"].T + wide[
        f"{block}1.fn.net.2.bias"
    ]
    states: Float64Array = narrow + state
    return states


def _decoder(
    text: Mapping[str, Any], wide: Mapping[str, Float64Array], ids: list[int]
) -> Float64Array:
    """Compute the states of a Mistral without its causal mask."""
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    state = wide["embedding_model.embed_tokens.weight"][ids]
    width = state.shape[1] // heads

    def norm(value: Float64Array, name: str) -> Float64Array:
        root = np.sqrt((value**2).mean(-1, keepdims=True) + text["rms_norm_eps"])
        normed: Float64Array = value / root * wide[f"embedding_model.{name}.weight"]
        return normed

    frequencies = text["rope_theta"] ** -(np.arange(0, width, 2) / width)
    angles = np.arange(len(ids))[:, None] * frequencies
    angle = np.concatenate([angles, angles], axis=1)[:, None, :]

    def rotated(value: Float64Array) -> Float64Array:
        first, second = np.split(value, 2, axis=-1)
        swapped = np.concatenate([-second, first], -1)
        result: Float64Array = value * np.cos(angle) + swapped * np.sin(angle)
        return result

    for number in range(text["num_hidden_layers"]):
        layer = f"layers.{number}"
        tensors = {
            name.rpartition(f"{layer}.")[2]: tensor
            for name, tensor in wide.items()
            if f"model.{layer}." in name
        }
        normed = norm(state, f"{layer}.input_layernorm")
        query, key, value = (
            (normed @ tensors[f"self_attn.{part}_proj.weight"].T).reshape(len(ids), -1, width)
            for part in "qkv"
        )
        query, key = rotated(query), rotated(key)
        mixed = np.empty_like(query)
        for head in range(heads):
            source = head // (heads // kv_heads)
            shares = softmax(query[:, head] @ key[:, source].T / math.sqrt(width))
            mixed[:, head] = shares @ value[:, source]
        state = state + mixed.reshape(len(ids), -1) @ tensors["self_attn.o_proj.weight"].T
        normed = norm(state, f"{layer}.post_attention_layernorm")
        gate = normed @ tensors["mlp.gate_proj.weight"].T
        up = normed @ tensors["mlp.up_proj.weight"].T
        state = state + (gate / (1 + np.exp(-gate)) * up) @ tensors["mlp.down_proj.weight"].T
    return norm(state, "norm")
