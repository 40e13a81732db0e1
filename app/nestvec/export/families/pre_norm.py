"""Llama-like decoders as embedding models: norm before each part, rotary positions, gated MLP, grouped-query attention.

Source: Llama (arXiv:2302.13971); grouped-query attention (arXiv:2305.13245); tensor names as in transformers'
modeling_llama.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import boolean, positive, positive_number, sliding_layers
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_spec import AttentionSpec, HeadNorms
from nestvec.export.layers.blocks import Encoder, feed_forward, rms_norm
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.masks import AttentionMask, attention_mask
from nestvec.export.layers.rotary_embedding import RotaryEmbedding, rotary_embedding
from nestvec.export.layers.rotary_frequencies import RotaryFrequencies, read_frequencies

WORD_EMBEDDINGS: Final = "embed_tokens.weight"
# The last is NV-Embed's.
PREFIXES: Final = ("", "model.", "language_model.", "model.language_model.", "embedding_model.")


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What the graph depends on; fields are named as in Llama's config.json.

    Attributes:
        windows: For each layer, each token attends to tokens at most `window` - 1 away; 0 for no limit.
        frequencies: Of layers with a window (True) and of the others (False).
        score_scale: What scores are multiplied by; None for 1 / sqrt(head_dim).
        is_causal: Whether a token attends to itself and those before it only.
        score_cap: Scaled scores s become cap · tanh(s / cap); None for no cap.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    hidden_act: str
    windows: tuple[int, ...]
    frequencies: Mapping[bool, RotaryFrequencies]
    score_scale: float | None
    is_causal: bool
    score_cap: float | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any], *, is_causal: bool) -> Self:
        """Take the fields out of a config.json.

        Args:
            config: The file's content.
            is_causal: Whether the family is causal, for a file that does not say.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        heads = positive(config, "num_attention_heads")
        hidden_size = positive(config, "hidden_size")
        kv_heads = positive(config, "num_key_value_heads", heads)
        if heads % kv_heads:
            raise FormatError("config.json: 'num_key_value_heads' must divide the query heads")
        layers = positive(config, "num_hidden_layers")
        head_dim = positive(config, "head_dim", hidden_size // heads)
        if head_dim % 2:
            raise FormatError("config.json: 'head_dim' must be even")
        frequencies = read_frequencies(config, head_dim)
        return cls(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=positive(config, "intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            max_position_embeddings=positive(config, "max_position_embeddings"),
            rms_norm_eps=positive_number(config, "rms_norm_eps", 1e-6),
            hidden_act=str(config.get("hidden_act", "silu")),
            windows=_windows(config, layers),
            frequencies={False: frequencies, True: frequencies},
            score_scale=None,
            is_causal=boolean(config, "is_causal", default=is_causal),
        )


@dataclass(frozen=True, slots=True)
class Decoder:
    """How a family differs from Llama.

    Attributes:
        has_projection_bias: Whether queries, keys and values have a bias.
        has_head_norms: Whether each head of queries and keys is normed (QK norm).
        norms_span_heads: Whether that is one norm over all heads together.
        has_pre_norms: Whether what attention and MLP take is normed.
        has_post_norms: Whether what attention and MLP give is normed too, before it is added.
        merges_projections: Whether queries, keys and values are one tensor, and the MLP's two first layers another.
        adds_one_to_norm_scales: Whether norms scale by 1 + weight.
        scales_word_embeddings: Whether word embeddings are multiplied by sqrt(H).
        is_causal: Whether a token attends to itself and those before it only, where config.json does not say.
        prefix: Under which checkpoints with a head keep the decoder.
    """

    has_projection_bias: bool = False
    has_head_norms: bool = False
    norms_span_heads: bool = False
    has_pre_norms: bool = True
    has_post_norms: bool = False
    merges_projections: bool = False
    adds_one_to_norm_scales: bool = False
    scales_word_embeddings: bool = False
    is_causal: bool = True
    prefix: str = "model."

    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take the fields that the graph depends on out of a config.json.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        return DecoderConfig.read(config, is_causal=self.is_causal)

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Read the sizes that serving needs.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        sizes = self.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_position_embeddings)

    def build(self, config: Mapping[str, Any], context: BuildContext) -> Encoder:
        """Add the decoder to a graph: ids [T] to token states [T, H] after each layer, the last one normed.

        Raises:
            FormatError: Configuration and weights do not fit each other.
        """
        sizes = self.read(config)
        prefix = common_prefix(context.weights, WORD_EMBEDDINGS, PREFIXES)
        builder = DecoderLayers(context, prefix, sizes, self)
        shape = (sizes.vocab_size, sizes.hidden_size)
        word_embeddings = context.weights.get(prefix + WORD_EMBEDDINGS, shape)
        if self.scales_word_embeddings:
            word_embeddings = word_embeddings * np.float32(np.sqrt(sizes.hidden_size))
        return builder.behind(context.embed(word_embeddings))


@dataclass(frozen=True, slots=True)
class DecoderLayers:
    """Adds layers to a graph.

    Attributes:
        context: The graph in the making.
        prefix: What stands before the names of the decoder's tensors.
        sizes: The decoder's sizes.
        family: How it differs from Llama.
    """

    context: BuildContext
    prefix: str
    sizes: DecoderConfig
    family: Decoder

    def behind(self, state: str) -> Encoder:
        """Add all layers behind the embeddings of tokens, [T, H]; the last one's states are normed."""
        sizes, graph, inputs = self.sizes, self.context.graph, self.context.inputs
        rotary: dict[int, RotaryEmbedding] = {}
        masks: dict[int, AttentionMask] = {}
        for window in sorted(set(sizes.windows)):
            rotary[window] = rotary_embedding(
                graph,
                inputs,
                sizes.frequencies[window > 0],
                sizes.max_position_embeddings,
                "_window" if window else "",
            )
            masks[window] = attention_mask(
                graph,
                inputs,
                is_causal=sizes.is_causal,
                window=window,
                head_width=sizes.head_dim,
            )
        layers = [
            partial(self.layer, name=f"layers.{number}", rotary=rotary[window], mask=masks[window])
            for number, window in enumerate(sizes.windows)
        ]
        states = self.context.stack(state, layers, sizes.hidden_size)
        return Encoder.finalized(states, sizes.hidden_size, partial(self.norm, name="norm"))

    def layer(self, state: str, name: str, rotary: RotaryEmbedding, mask: AttentionMask) -> str:
        """Add a layer, [T, H] to [T, H]."""
        graph, is_normed = self.context.graph, self.family.has_pre_norms
        normed = self.norm(state, f"{name}.input_layernorm") if is_normed else state
        attended = self._attention(normed, f"{name}.self_attn", rotary, mask)
        if not self.family.has_post_norms:
            state = graph.op("Add", state, attended)
            normed = self.norm(state, f"{name}.post_attention_layernorm")
            return graph.op("Add", state, self._mlp(normed, f"{name}.mlp"))
        state = graph.op("Add", state, self.norm(attended, f"{name}.post_attention_layernorm"))
        normed = self.norm(state, f"{name}.pre_feedforward_layernorm") if is_normed else state
        projected = self._mlp(normed, f"{name}.mlp")
        return graph.op("Add", state, self.norm(projected, f"{name}.post_feedforward_layernorm"))

    def norm(self, state: str, name: str) -> str:
        """Add an RMS norm."""
        scale = self._norm_scale(name, self.sizes.hidden_size)
        return rms_norm(self.context.graph, state, name, scale, self.sizes.rms_norm_eps)

    def _norm_scale(self, name: str, size: int) -> Float32Array:
        scale = self.context.weights.get(f"{self.prefix}{name}.weight", (size,))
        return scale + np.float32(1) if self.family.adds_one_to_norm_scales else scale

    def _attention(
        self, state: str, name: str, rotary: RotaryEmbedding, mask: AttentionMask
    ) -> str:
        sizes = self.sizes
        query_width = sizes.num_attention_heads * sizes.head_dim
        kv_width = sizes.num_key_value_heads * sizes.head_dim
        query, key, value = self._projections(name, query_width, kv_width)
        spec = AttentionSpec(
            query=query,
            key=key,
            value=value,
            output=self._linear(f"{name}.o_proj", sizes.hidden_size, query_width),
            heads=sizes.num_attention_heads,
            kv_heads=sizes.num_key_value_heads,
            mask=mask,
            rotary=rotary,
            norms=self._head_norms(name) if self.family.has_head_norms else None,
            scale=sizes.score_scale,
            score_cap=sizes.score_cap,
        )
        return self_attention(self.context, state, spec)

    def _projections(self, name: str, query_width: int, kv_width: int) -> list[Linear]:
        """Read the layers of queries, keys and values."""
        size, widths = self.sizes.hidden_size, (query_width, kv_width, kv_width)
        if self.family.merges_projections:
            return self.context.parts_of_linear(f"{name}.qkv_proj", widths, size, self.prefix)
        has_bias = self.family.has_projection_bias
        return [
            self._linear(f"{name}.{part}_proj", width, size, has_bias=has_bias)
            for part, width in zip("qkv", widths, strict=True)
        ]

    def _head_norms(self, name: str) -> HeadNorms:
        sizes, spans_heads = self.sizes, self.family.norms_span_heads
        counts = (sizes.num_attention_heads, sizes.num_key_value_heads)
        query, key = (
            self._norm_scale(f"{name}.{part}_norm", sizes.head_dim * (count if spans_heads else 1))
            for part, count in zip("qk", counts, strict=True)
        )
        return HeadNorms(name, query, key, sizes.rms_norm_eps, spans_heads=spans_heads)

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        if self.family.merges_projections:
            widths = (inner, inner)
            first = self.context.parts_of_linear(f"{name}.gate_up_proj", widths, size, self.prefix)
        else:
            first = [self._linear(f"{name}.{part}_proj", inner, size) for part in ("gate", "up")]
        last = self._linear(f"{name}.down_proj", size, inner)
        return feed_forward(self.context, state, first, last, self.sizes.hidden_act)

    def _linear(self, name: str, rows: int, columns: int, *, has_bias: bool = False) -> Linear:
        return self.context.linear(name, rows, columns, prefix=self.prefix, has_bias=has_bias)


def _windows(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """Read each layer's attention window, in tokens; 0 for no limit.

    Raises:
        FormatError: A field is of the wrong type, or asks for kinds of layers that are not supported.
    """
    window = config.get("sliding_window")
    if window is None or not boolean(config, "use_sliding_window", default=True):
        window = 0
    if not isinstance(window, int) or isinstance(window, bool) or window < 0:
        raise FormatError("config.json: 'sliding_window' must be an integer")
    is_sliding = sliding_layers(config, [window > 0] * layers)
    return tuple(window if slides else 0 for slides in is_sliding)
