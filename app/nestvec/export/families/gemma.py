"""Gemma 3 (arXiv:2503.19786) and EmbeddingGemma (arXiv:2509.20354), which is one whose tokens see each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import positive, positive_number, sliding_layers
from nestvec.export.families.pre_norm import Decoder, DecoderConfig
from nestvec.export.layers.frequencies import frequencies_by_kind

# By transformers' own defaults, which config.json may leave out.
DEFAULTS: Final[Mapping[str, Any]] = {
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}


@dataclass(frozen=True, slots=True)
class Gemma(Decoder):
    """The family."""

    norms_heads: bool = True
    norms_results: bool = True
    lifts_norms: bool = True
    lifts_words: bool = True

    @override
    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """See `Decoder.read`: windows, bases and the scale of scores have fields of their own."""
        for name in ("attn_logit_softcapping", "attention_bias"):
            if config.get(name):
                raise FormatError(f"config.json: '{name}' is not supported")
        given = {**DEFAULTS, **{k: v for k, v in config.items() if v is not None}}
        is_causal = not given.get("use_bidirectional_attention", False)
        plain = {
            name: value
            for name, value in given.items()
            if name not in ("rope_parameters", "rope_scaling", "layer_types", "sliding_window")
        }
        plain["hidden_act"] = str(given.get("hidden_activation", "gelu_pytorch_tanh"))
        plain["is_causal"] = is_causal
        sizes = DecoderConfig.read(plain, is_causal=is_causal)
        every = positive(given, "sliding_window_pattern")
        every = positive(given, "_sliding_window_pattern", every)
        window = positive(given, "sliding_window")
        if not is_causal:
            window = window // 2 + 1  # to each side
        slides = sliding_layers(
            given, [(number + 1) % every > 0 for number in range(sizes.num_hidden_layers)]
        )
        scalar = positive_number(given, "query_pre_attn_scalar", 256.0)
        return replace(
            sizes,
            windows=tuple(window if one else 0 for one in slides),
            frequencies=frequencies_by_kind(
                given,
                sizes.head_dim,
                full=("rope_theta", 1_000_000.0),
                sliding=("rope_local_base_freq", 10_000.0),
            ),
            score_factor=scalar**-0.5,
        )


GEMMA3: Final = Gemma()
