"""Decoders that embedding models are made of: Llama, Mistral (arXiv:2310.06825), Qwen2 (arXiv:2407.10671) and Qwen3.

EuroBERT (arXiv:2503.05500) is a Llama whose tokens see each other. The others are causal, unless config.json says
`is_causal: false`; pooling (of the last token, mostly) is the model's own.
"""

from typing import Final

from nestvec.export.families.pre_norm import Decoder

LLAMA: Final = Decoder()
QWEN2: Final = Decoder(has_projection_bias=True)
QWEN3: Final = Decoder(norms_heads=True)
EUROBERT: Final = Decoder(is_causal=False)
