"""Decoders of Llama's kind as embedding models: norm before each part, rotary positions, gated MLP, shared key heads.

Source: Llama (arXiv:2302.13971); grouped queries (arXiv:2305.13245); tensor names as in Hugging Face's classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number, sliding_layers
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import common_prefix
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention import self_attention
from nestvec.export.layers.attention_layers import Attention, HeadNorms
from nestvec.export.layers.blocks import Encoder, feed_forward, rms_norm
from nestvec.export.layers.build_context import Site
from nestvec.export.layers.frequencies import Frequencies, read_frequencies
from nestvec.export.layers.masks import Sight, sight
from nestvec.export.layers.rotary import Turn, rotary

Floats = NDArray[np.float32]
WORDS: Final = "embed_tokens"
PREFIXES: Final = (
    *("", "model.", "language_model.", "model.language_model."),
    "embedding_model.",  # NV-Embed
)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """What the graph depends on.

    Attributes:
        num_key_value_heads: Each shared by as many query heads as it takes.
        windows: Of each layer, how many tokens back it sees, itself included; 0 for all.
        frequencies: Of layers with a window (True) and of the others.
        score_factor: What scores are multiplied by; None for 1 / sqrt(head_dim).
        is_causal: Whether a token sees those before it only.
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
    frequencies: Mapping[bool, Frequencies]
    score_factor: float | None
    is_causal: bool

    @classmethod
    def read(cls, config: Mapping[str, Any], *, is_causal: bool) -> Self:
        """Take the fields out of a config.json.

        Args:
            config: The file's content.
            is_causal: Whether the family is, where the file does not say.

        Raises:
            FormatError: A field is missing, of the wrong type, or asks for what this graph is not.
        """
        heads = positive(config, "num_attention_heads")
        hidden = positive(config, "hidden_size")
        key_heads = positive(config, "num_key_value_heads", heads)
        if heads % key_heads:
            raise FormatError("config.json: 'num_key_value_heads' must divide the query heads")
        layers = positive(config, "num_hidden_layers")
        said = config.get("is_causal")
        head_dim = positive(config, "head_dim", hidden // heads)
        if head_dim % 2:
            raise FormatError("config.json: 'head_dim' must be even")
        same = read_frequencies(config, head_dim)
        return cls(
            vocab_size=positive(config, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=positive(config, "intermediate_size"),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            head_dim=head_dim,
            max_position_embeddings=positive(config, "max_position_embeddings"),
            rms_norm_eps=positive_number(config, "rms_norm_eps", 1e-6),
            hidden_act=str(config.get("hidden_act", "silu")),
            windows=_windows(config, layers),
            frequencies={False: same, True: same},
            score_factor=None,
            is_causal=is_causal if said is None else bool(said),
        )


@dataclass(frozen=True, slots=True)
class Decoder:
    """What tells a family from Llama.

    Attributes:
        has_projection_bias: Whether queries, keys and values have one.
        norms_heads: Whether each head of queries and keys is normed.
        norms_results: Whether what a part gives is normed too, before it is added.
        lifts_norms: Whether norms are scaled by 1 + weight.
        lifts_words: Whether word vectors are multiplied by sqrt(H).
        is_causal: Whether a token sees those before it only, where config.json does not say.
    """

    has_projection_bias: bool = False
    norms_heads: bool = False
    norms_results: bool = False
    lifts_norms: bool = False
    lifts_words: bool = False
    is_causal: bool = True
    prefix: str = "model."

    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take what the graph depends on out of a config.json.

        Raises:
            FormatError: As for `DecoderConfig.read`.
        """
        return DecoderConfig.read(config, is_causal=self.is_causal)

    def dimensions(self, config: Mapping[str, Any]) -> Dimensions:
        """Sizes that serving needs.

        Raises:
            FormatError: As for `DecoderConfig.read`.
        """
        sizes = self.read(config)
        return Dimensions(sizes.hidden_size, sizes.vocab_size, sizes.max_position_embeddings)

    def build(self, config: Mapping[str, Any], site: Site) -> Encoder:
        """Add it to a graph: ids (T,) to token states (T, H) after each layer, the last one normed.

        Raises:
            FormatError: Configuration and weights do not make one.
        """
        sizes = self.read(config)
        graph, inputs = site.graph, site.inputs
        part = _Part(site, common_prefix(site.weights, f"{WORDS}.weight", PREFIXES), sizes, self)
        shape = (sizes.vocab_size, sizes.hidden_size)
        words = site.weights.get(f"{part.prefix}{WORDS}.weight", shape)
        if self.lifts_words:
            words = words * np.float32(np.sqrt(sizes.hidden_size))
        word = graph.op("Gather", graph.weight("words", words), inputs.ids, axis=0)
        ways = {
            window: (
                rotary(
                    graph,
                    inputs.positions,
                    sizes.frequencies[window > 0],
                    sizes.max_position_embeddings,
                    "_window" if window else "",
                ),
                sight(graph, inputs, is_causal=sizes.is_causal, window=window),
            )
            for window in sorted(set(sizes.windows))
        }
        layers = [
            partial(part.layer, name=f"layers.{number}", way=ways[window])
            for number, window in enumerate(sizes.windows)
        ]
        states = site.stack(word, layers, sizes.hidden_size)

        def end(state: str) -> str:
            return part.norm(state, "norm")

        return Encoder((*states[:-1], end(states[-1])), sizes.hidden_size, end)


@dataclass(frozen=True, slots=True)
class _Part:
    """Adds layers to a graph."""

    site: Site
    prefix: str
    sizes: DecoderConfig
    family: Decoder

    def layer(self, state: str, name: str, way: tuple[Turn, Sight]) -> str:
        """(T, H) to (T, H)."""
        graph, (turn, seen) = self.site.graph, way
        normed = self.norm(state, f"{name}.input_layernorm")
        attended = self._attention(normed, f"{name}.self_attn", turn, seen)
        if not self.family.norms_results:
            state = graph.op("Add", state, attended)
            normed = self.norm(state, f"{name}.post_attention_layernorm")
            return graph.op("Add", state, self._mlp(normed, f"{name}.mlp"))
        state = graph.op("Add", state, self.norm(attended, f"{name}.post_attention_layernorm"))
        normed = self.norm(state, f"{name}.pre_feedforward_layernorm")
        mixed = self._mlp(normed, f"{name}.mlp")
        return graph.op("Add", state, self.norm(mixed, f"{name}.post_feedforward_layernorm"))

    def norm(self, state: str, name: str) -> str:
        """RMS norm over the last axis."""
        scale = self._scale(name, self.sizes.hidden_size)
        return rms_norm(self.site.graph, state, name, scale, self.sizes.rms_norm_eps)

    def _scale(self, name: str, size: int) -> Floats:
        """Of a norm, (size,)."""
        scale = self.site.weights.get(f"{self.prefix}{name}.weight", (size,))
        return scale + np.float32(1) if self.family.lifts_norms else scale

    def _attention(self, state: str, name: str, turn: Turn, seen: Sight) -> str:
        sizes = self.sizes
        wide = sizes.num_attention_heads * sizes.head_dim
        narrow = sizes.num_key_value_heads * sizes.head_dim
        has_bias = self.family.has_projection_bias
        layers = Attention(
            query=self._linear(f"{name}.q_proj", wide, sizes.hidden_size, has_bias=has_bias),
            key=self._linear(f"{name}.k_proj", narrow, sizes.hidden_size, has_bias=has_bias),
            value=self._linear(f"{name}.v_proj", narrow, sizes.hidden_size, has_bias=has_bias),
            output=self._linear(f"{name}.o_proj", sizes.hidden_size, wide),
            heads=sizes.num_attention_heads,
            key_heads=sizes.num_key_value_heads,
            sight=seen,
            turn=turn,
            norms=self._head_norms(name) if self.family.norms_heads else None,
            scale=sizes.score_factor,
        )
        return self_attention(
            self.site.graph, state, layers, arithmetic=self.site.arithmetic, inputs=self.site.inputs
        )

    def _head_norms(self, name: str) -> HeadNorms:
        query, key = (self._scale(f"{name}.{one}_norm", self.sizes.head_dim) for one in "qk")
        return HeadNorms(name, query, key, self.sizes.rms_norm_eps)

    def _mlp(self, state: str, name: str) -> str:
        inner, size = self.sizes.intermediate_size, self.sizes.hidden_size
        first = [self._linear(f"{name}.{one}_proj", inner, size) for one in ("gate", "up")]
        down = self._linear(f"{name}.down_proj", size, inner)
        return feed_forward(self.site, state, first, down, self.sizes.hidden_act)

    def _linear(self, name: str, rows: int, columns: int, *, has_bias: bool = False) -> Linear:
        """A torch Linear, whose weight is (out, in)."""
        full = f"{self.prefix}{name}"
        bias = (
            self.site.weights.get(f"{full}.bias", (rows,))
            if has_bias
            else np.zeros(rows, np.float32)
        )
        return Linear(name, self.site.weights.get(f"{full}.weight", (rows, columns)).T, bias)


def _windows(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """How far each layer sees.

    Raises:
        FormatError: Kinds of layers that this graph does not have.
    """
    window = config.get("sliding_window")
    if window is None or config.get("use_sliding_window") is False:
        window = 0
    if not isinstance(window, int) or isinstance(window, bool) or window < 0:
        raise FormatError("config.json: 'sliding_window' must be an integer")
    is_sliding = sliding_layers(config, [window > 0] * layers)
    return tuple(window if slides else 0 for slides in is_sliding)
