"""NV-Embed (arXiv:2405.17428): a Mistral whose tokens see each other, and latent attention before the pooling.

Each token attends to a trained table of latents, then goes through a gated MLP; the mean of that is the vector (section
3.1). As the latents are fixed, so are the keys and values that are made of them: they are computed at export.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.families.pre_norm import Decoder
from nestvec.export.layers.arithmetic import Floating, Linear
from nestvec.export.layers.blocks import Encoder, activation, layer_norm, normed_rows
from nestvec.export.layers.build_context import Site

Floats = NDArray[np.float32]
TEXT: Final = "text_config"
LATENT: Final = "latent_attention_config"
PREFIX: Final = "latent_attention_model."
CROSS: Final = f"{PREFIX}cross_attend_blocks.0"
MLP: Final = f"{PREFIX}cross_attend_blocks.1"
NORM_EPSILON: Final = 1e-5  # torch's own


@dataclass(frozen=True, slots=True)
class NvEmbed:
    """The family."""

    decoder: Decoder
    prefix: str = ""

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
        """
        found = self.decoder.dimensions(_inner(config, TEXT))
        _latent_sizes(config, found.hidden_size)
        return found

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add it to a graph: ids (T,) to token states (T, H) after each layer, the last one behind the latents.

        Raises:
            FormatError: Configuration and weights do not make one.
        """
        encoder = self.decoder.build(_inner(config, TEXT), site)
        size = encoder.hidden_size
        sizes = _latent_sizes(config, size)
        graph, inner = site.graph, encoder.end

        def latent(state: str) -> str:
            state = graph.op("Add", _cross(site, state, size, sizes), state)
            return graph.op("Add", _mlp(site, state, size), state)

        def end(state: str) -> str:
            return latent(state if inner is None else inner(state))

        return Encoder((*encoder.states[:-1], latent(encoder.states[-1])), size, end)


NV_EMBED: Final = NvEmbed(Decoder(is_causal=False))


@dataclass(frozen=True, slots=True)
class _LatentSizes:
    latents: int
    heads: int
    width: int


def _inner(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    if not isinstance(found, dict):
        raise FormatError(f"config.json: '{name}' must be an object")
    return found


def _latent_sizes(config: Mapping[str, Any], size: int) -> _LatentSizes:
    latent = _inner(config, LATENT)
    for name in ("hidden_dim", "latent_dim"):
        if positive(latent, name) != size:
            raise FormatError(f"config.json: '{LATENT}.{name}' must be {size}")
    return _LatentSizes(
        positive(latent, "num_latents_value"),
        positive(latent, "num_cross_heads"),
        positive(latent, "cross_dim_head"),
    )


def _cross(site: Site, state: str, size: int, sizes: _LatentSizes) -> str:
    """Tokens attend to the latents: (T, H) to (T, H)."""
    graph, weights = site.graph, site.weights
    inner = sizes.heads * sizes.width
    latents = weights.get(f"{PREFIX}latents", (sizes.latents, size))
    context = normed_rows(latents, *_norm(site, f"{CROSS}.norm_context", size), NORM_EPSILON)
    both = context @ weights.get(f"{CROSS}.fn.to_kv.weight", (2 * inner, size)).T
    keys, values = (
        part.reshape(sizes.latents, sizes.heads, sizes.width) for part in np.split(both, 2, axis=1)
    )
    query = weights.get(f"{CROSS}.fn.to_q.weight", (inner, size)).T / math.sqrt(sizes.width)
    scale, bias = _norm(site, f"{CROSS}.norm", size)
    normed = layer_norm(graph, state, f"{CROSS}.norm", scale, bias, NORM_EPSILON)
    projected = _product(site, normed, "latent.query", query)
    heads = graph.split_heads(projected, sizes.heads, sizes.width)  # (T, n, d)
    heads = graph.op("Transpose", heads, perm=[1, 0, 2])
    table = graph.weight("latent.keys", np.ascontiguousarray(keys.transpose(1, 2, 0)))
    shares = graph.op("Softmax", graph.op("MatMul", heads, table), axis=-1)  # (n, T, latents)
    table = graph.weight("latent.values", np.ascontiguousarray(values.transpose(1, 0, 2)))
    mixed = graph.op("Transpose", graph.op("MatMul", shares, table), perm=[1, 0, 2])
    flat = graph.op("Reshape", mixed, graph.weight("latent.flat", np.array([-1, inner], np.int64)))
    return _product(
        site, flat, "latent.output", weights.get(f"{CROSS}.fn.to_out.weight", (size, inner)).T
    )


def _mlp(site: Site, state: str, size: int) -> str:
    """A gated MLP, the gate second: (T, H) to (T, H)."""
    graph, weights = site.graph, site.weights
    scale, bias = _norm(site, f"{MLP}.norm", size)
    normed = layer_norm(graph, state, f"{MLP}.norm", scale, bias, NORM_EPSILON)
    inner = weights.shape(f"{MLP}.fn.net.0.weight")[0] // 2
    wide = _product(
        site,
        normed,
        "latent.wide",
        weights.get(f"{MLP}.fn.net.0.weight", (2 * inner, size)).T,
        weights.get(f"{MLP}.fn.net.0.bias", (2 * inner,)),
    )
    value, gate = graph.split(wide, 2)
    mixed = graph.op("Mul", value, activation(graph, gate, "gelu"))
    return _product(
        site,
        mixed,
        "latent.narrow",
        weights.get(f"{MLP}.fn.net.2.weight", (size, inner)).T,
        weights.get(f"{MLP}.fn.net.2.bias", (size,)),
    )


def _product(site: Site, value: str, name: str, weight: Floats, bias: Floats | None = None) -> str:
    """X W + b, in float32 whatever the precision: a layer's work of dozens."""
    shift = np.zeros(weight.shape[1], np.float32) if bias is None else bias
    return Floating().apply(site.graph, value, [Linear(name, weight, shift)])[0]


def _norm(site: Site, name: str, size: int) -> tuple[Floats, Floats]:
    return site.weights.get(f"{name}.weight", (size,)), site.weights.get(f"{name}.bias", (size,))
