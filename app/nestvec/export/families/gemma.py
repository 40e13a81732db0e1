"""Gemma (arXiv:2403.08295), Gemma 2 (arXiv:2408.00118), Gemma 3 (arXiv:2503.19786) and EmbeddingGemma.

EmbeddingGemma (arXiv:2509.20354) is a Gemma 3 with bidirectional attention.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.config.config_fields import (
    Overlaid,
    boolean,
    check_fixed,
    positive,
    positive_number,
    sliding_layers,
)
from nestvec.export.families.pre_norm import Decoder, DecoderConfig
from nestvec.export.layers.rotary_frequencies import frequencies_by_layer_type

# Defaults of transformers' configuration_gemma3.py, for fields that config.json may leave out.
DEFAULTS: Final[Mapping[str, Any]] = {
    "head_dim": 256,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}
# The same of Gemma and Gemma 2, by configuration_gemma.py and configuration_gemma2.py.
FIRST_DEFAULTS: Final[Mapping[str, Any]] = {
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
}
SECOND_DEFAULTS: Final[Mapping[str, Any]] = {
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
}
# What a file without the field means; null means no cap.
SCORE_CAP: Final = 50.0
# Fields that both know, and the value of each that is supported: `is_causal` says it here.
FIXED: Final[Mapping[str, object]] = {
    "attention_bias": False,
    "use_bidirectional_attention": False,
}


def _with_defaults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config.json with values for fields that it leaves out or has as null."""
    return Overlaid(
        {name: value for name, value in defaults.items() if config.get(name) is None}, config
    )


def _windows(fields: Mapping[str, Any], slides_unsaid: list[bool], window: int) -> tuple[int, ...]:
    """Return each layer's window, 0 for none: those that slide are listed, or known where nothing says it."""
    return tuple(window if slides else 0 for slides in sliding_layers(fields, slides_unsaid))


@dataclass(frozen=True, slots=True)
class _AnyGemma(Decoder):
    """What all of them differ in from Llama."""

    adds_one_to_norm_scales: bool = True
    scales_word_embeddings: bool = True


@dataclass(frozen=True, slots=True)
class _FirstGemma(_AnyGemma):
    """Gemma's own differences."""

    @override
    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take the fields out of a config.json; the activation is `hidden_act`, as transformers 4.57 and 5.24 read it.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        fields = _with_defaults(config, FIRST_DEFAULTS)
        check_fixed(fields, {**FIXED, "hidden_activation": fields["hidden_act"]})
        own = dict.fromkeys(("layer_types", "sliding_window"))
        return DecoderConfig.read(Overlaid(own, fields), is_causal=self.is_causal)


@dataclass(frozen=True, slots=True)
class _SecondGemma(_AnyGemma):
    """Gemma 2's own differences: norms on both sides, capped scores, and a window in every second layer."""

    has_post_norms: bool = True

    @override
    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take the fields out of a config.json; layers with windows alternate with others unless it says otherwise.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        check_fixed(config, FIXED)
        fields = _with_defaults(config, SECOND_DEFAULTS)
        own = {
            **dict.fromkeys(("layer_types", "sliding_window")),
            "hidden_act": str(fields["hidden_activation"]),
        }
        sizes = DecoderConfig.read(Overlaid(own, fields), is_causal=self.is_causal)
        slides = [number % 2 == 0 for number in range(sizes.num_hidden_layers)]
        has_cap = fields.get("attn_logit_softcapping", SCORE_CAP) is not None
        cap = positive_number(fields, "attn_logit_softcapping", SCORE_CAP) if has_cap else None
        return replace(
            sizes,
            windows=_windows(fields, slides, positive(fields, "sliding_window")),
            score_scale=positive_number(fields, "query_pre_attn_scalar", 256.0) ** -0.5,
            score_cap=cap,
        )


@dataclass(frozen=True, slots=True)
class Gemma(_AnyGemma):
    """Gemma 3's own differences."""

    has_head_norms: bool = True
    has_post_norms: bool = True

    @override
    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take the fields out of a config.json; windows, rotary bases and the scale of scores have fields of their own.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        for name in ("attn_logit_softcapping", "attention_bias"):
            if config.get(name):
                raise FormatError(f"config.json: '{name}' is not supported")
        fields = _with_defaults(config, DEFAULTS)
        is_causal = not boolean(fields, "use_bidirectional_attention", default=False)
        act = fields.get("hidden_activation")
        own = {
            **dict.fromkeys(("rope_parameters", "rope_scaling", "layer_types", "sliding_window")),
            "hidden_act": "gelu_pytorch_tanh" if act is None else str(act),
            "is_causal": is_causal,
        }
        sizes = DecoderConfig.read(Overlaid(own, fields), is_causal=is_causal)
        # The last of every `pattern` layers has full attention.
        pattern = positive(fields, "sliding_window_pattern")
        pattern = positive(fields, "_sliding_window_pattern", pattern)
        window = positive(fields, "sliding_window")
        if not is_causal:
            # Half of the window lies to each side.
            window = window // 2 + 1
        slides = [(number + 1) % pattern > 0 for number in range(sizes.num_hidden_layers)]
        query_scalar = positive_number(fields, "query_pre_attn_scalar", 256.0)
        return replace(
            sizes,
            windows=_windows(fields, slides, window),
            frequencies=frequencies_by_layer_type(
                fields,
                sizes.head_dim,
                full=("rope_theta", 1_000_000.0),
                sliding=("rope_local_base_freq", 10_000.0),
            ),
            score_scale=query_scalar**-0.5,
        )


GEMMA: Final = _FirstGemma()
GEMMA2: Final = _SecondGemma()
GEMMA3: Final = Gemma()
