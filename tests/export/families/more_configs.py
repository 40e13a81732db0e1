"""Configurations of the tiny models of some families; `configs.py` has those of the others."""

from typing import Any

DECODER: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "rms_norm_eps": 1e-5,
}
SPECIAL_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
# Families whose authors took another one's class and let all tokens attend to all.
BIDIRECTIONAL = {"llama_bidirec": "llama", "bidirectional_pplx_qwen3": "qwen3"}
MORE_FAMILIES: dict[str, dict[str, Any]] = {
    "llama_bidirec": {**DECODER, "hidden_act": "silu", "rope_theta": 5000.0},
    "bidirectional_pplx_qwen3": {
        **DECODER,
        "hidden_act": "silu",
        "head_dim": 12,
        "rope_theta": 1e6,
    },
    "gemma": {**DECODER, **SPECIAL_IDS, "head_dim": 12, "hidden_act": "gelu_pytorch_tanh"},
    # The cap is low, so that it shows.
    "gemma2": {
        **DECODER,
        **SPECIAL_IDS,
        "head_dim": 8,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 20,
        "sliding_window": 9,
        "attn_logit_softcapping": 1.5,
    },
    "olmo2": {**DECODER, **SPECIAL_IDS, "hidden_act": "silu", "rope_theta": 5000.0},
    "phi3": {
        **DECODER,
        **SPECIAL_IDS,
        "hidden_act": "silu",
        "sliding_window": 9,
        "original_max_position_embeddings": 40,
    },
    # Three layers of two groups: the first two are the same.
    "albert": {
        **BERT,
        "hidden_act": "gelu_new",
        "embedding_size": 16,
        "num_hidden_layers": 3,
        "num_hidden_groups": 2,
    },
    "ernie": {**BERT, "use_task_id": True, "task_type_vocab_size": 3},
    "mt5": {
        "vocab_size": 128,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "n_positions": 60,
        "relative_attention_num_buckets": 32,
    },
    "m2m_100": {
        "vocab_size": 128,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_ffn_dim": 48,
        "encoder_attention_heads": 4,
        "decoder_layers": 1,
        "decoder_ffn_dim": 16,
        "decoder_attention_heads": 2,
        "activation_function": "relu",
        "max_position_embeddings": 40,
        "scale_embedding": True,
        "pad_token_id": 1,
    },
    "bloom": {
        "vocab_size": 128,
        "hidden_size": 32,
        "n_layer": 2,
        "n_head": 4,
        "layer_norm_epsilon": 1e-5,
        "seq_length": 40,
        **SPECIAL_IDS,
    },
}
NOMIC_MOE: dict[str, Any] = {
    "model_type": "nomic_bert",
    "vocab_size": 128,
    "n_embd": 32,
    "n_inner": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "type_vocab_size": 1,
    "layer_norm_epsilon": 1e-5,
    "rotary_emb_base": 700,
    "activation_function": "gelu",
    "qkv_proj_bias": True,
    "mlp_fc1_bias": True,
    "mlp_fc2_bias": True,
    "num_experts": 8,
    "moe_top_k": 2,
    "moe_every_n_layers": 2,
}
