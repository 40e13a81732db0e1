"""Decoders that embedding models are made of: Llama, Mistral (arXiv:2310.06825), Qwen2 (arXiv:2407.10671) and Qwen3.

EuroBERT (arXiv:2503.05500) is a Llama with bidirectional attention. The others are causal, unless config.json says
`is_causal: false`; pooling (mostly of the last token) is the model's own.
"""

from typing import Final

from nestvec.export.families.pre_norm import Decoder

LLAMA: Final = Decoder()
QWEN2: Final = Decoder(has_projection_bias=True)
QWEN3: Final = Decoder(has_head_norms=True)
EUROBERT: Final = Decoder(is_causal=False)
