"""Decoders that embedding models are made of: Llama, Mistral (arXiv:2310.06825), Qwen2 (arXiv:2407.10671) and Qwen3.

EuroBERT (arXiv:2503.05500) and NVIDIA's `llama_bidirec` (NeMo's `LlamaBidirectionalModel`) are Llamas with
bidirectional attention, Perplexity's `bidirectional_pplx_qwen3` such a Qwen3. The others are causal, unless config.json
says `is_causal: false`; pooling (mostly of the last token) is the model's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from typing_extensions import override

from nestvec.errors import FormatError
from nestvec.export.families.pre_norm import Decoder, DecoderConfig

LLAMA: Final = Decoder()
QWEN2: Final = Decoder(has_projection_bias=True)
QWEN3: Final = Decoder(has_head_norms=True)
EUROBERT: Final = Decoder(is_causal=False)
LLAMA_BIDIRECTIONAL: Final = Decoder(is_causal=False)
PPLX_QWEN3: Final = Decoder(has_head_norms=True, is_causal=False)
# OLMo 2 (arXiv:2501.00656): norms behind attention and MLP only, and one over all heads of queries, one of keys.
OLMO2: Final = Decoder(
    has_head_norms=True, norms_span_heads=True, has_pre_norms=False, has_post_norms=True
)


@dataclass(frozen=True, slots=True)
class _Phi3(Decoder):
    """Phi-3 (arXiv:2404.14219) and the later models of its kind that rotate whole heads."""

    merges_projections: bool = True

    @override
    def read(self, config: Mapping[str, Any]) -> DecoderConfig:
        """Take the fields out of a config.json.

        Raises:
            FormatError: A field is missing, of the wrong type, or has a value that is not supported.
        """
        rope = config.get("rope_parameters")
        of_rope = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
        for share in (config.get("partial_rotary_factor"), of_rope):
            if share not in (None, 1):
                raise FormatError("config.json: 'partial_rotary_factor' must be 1")
        return DecoderConfig.read(config, is_causal=self.is_causal)


PHI3: Final = _Phi3()
