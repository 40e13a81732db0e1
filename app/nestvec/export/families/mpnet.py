"""MPNet (arXiv:2004.09297): BERT's blocks with a relative position bias beside position embeddings."""

from typing import Final

from nestvec.export.families.post_norm import PostNormEncoder
from nestvec.export.layers.relative_positions import BucketBias

MPNET: Final = PostNormEncoder(
    "mpnet.",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    fields={"type_vocab_size": 0, "relative_buckets": "relative_attention_num_buckets"},
    positions_after_padding=True,
    relative_positions=BucketBias("encoder.relative_attention_bias"),
)
