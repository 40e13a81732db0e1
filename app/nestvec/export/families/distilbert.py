"""DistilBERT (arXiv:1910.01108): BERT's blocks under other names, without token types."""

from typing import Final

from nestvec.export.families.post_norm import PostNormEncoder

DISTILBERT: Final = PostNormEncoder(
    "distilbert.",
    layer="transformer.layer.{}",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    mlp_up="ffn.lin1",
    mlp_down="ffn.lin2",
    mlp_norm="output_layer_norm",
    fields={
        "hidden_size": "dim",
        "embedding_size": "dim",
        "intermediate_size": "hidden_dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "hidden_act": "activation",
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-12,
    },
)
