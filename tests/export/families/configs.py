"""Configurations of the tiny models of families and of their variants; `more_configs.py` has those of some others."""

from typing import Any

from tests.export.families import jina_clip_reference
from tests.export.families.more_configs import DECODER as PLAIN_DECODER
from tests.export.families.more_configs import MORE_FAMILIES, NOMIC_MOE, SPECIAL_IDS

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {**SIZES, "max_position_embeddings": 40, "type_vocab_size": 2, "pad_token_id": 0},
    "roberta": {**SIZES, "max_position_embeddings": 42},
    "xlm-roberta": {**SIZES, "max_position_embeddings": 42},
    "camembert": {**SIZES, "max_position_embeddings": 42},
    "electra": {
        **SIZES,
        "max_position_embeddings": 40,
        "embedding_size": 16,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    },
    "mpnet": {
        **{k: v for k, v in SIZES.items() if k != "type_vocab_size"},
        "max_position_embeddings": 202,
        "relative_attention_num_buckets": 32,
    },
    "distilbert": {
        "vocab_size": 128,
        "dim": 32,
        "hidden_dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "activation": "gelu",
        "max_position_embeddings": 40,
        "pad_token_id": 0,
    },
}
DECODER: dict[str, Any] = {**PLAIN_DECODER, "hidden_act": "silu"}
FAMILIES |= {
    "llama": {**DECODER, "rope_theta": 5000.0},
    "mistral": {**DECODER, "sliding_window": 9},
    "qwen2": {**DECODER, "rope_theta": 1e6},
    "qwen3": {**DECODER, "head_dim": 12, "rope_theta": 1e6},
}
FAMILIES |= {
    "nomic_bert": {
        **{k: v for k, v in DECODER.items() if k not in ("num_key_value_heads", "rms_norm_eps")},
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
    },
    "eurobert": {**DECODER, **SPECIAL_IDS, "mask_token_id": 4},
    "modernbert": {
        **{
            k: v
            for k, v in DECODER.items()
            if k not in ("num_key_value_heads", "rms_norm_eps", "hidden_act")
        },
        **SPECIAL_IDS,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "num_hidden_layers": 4,
        "local_attention": 10,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 5000.0,
        "local_rope_theta": 300.0,
        "norm_eps": 1e-5,
    },
}
ROTARY: dict[str, Any] = {
    **SIZES,
    "max_position_embeddings": 40,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0},
}
FAMILIES |= {
    "gte": ROTARY,
    "jina_embeddings_v3": {**ROTARY, "bos_token_id": 2, "eos_token_id": 3},
    "deberta-v2": {
        **SIZES,
        "max_position_embeddings": 60,
        "position_biased_input": False,
        "relative_attention": True,
        "position_buckets": 8,
        "max_relative_positions": -1,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "layer_norm_eps": 1e-7,
        "type_vocab_size": 0,
        "pad_token_id": 0,
    },
    "gemma3_text": {
        **{k: v for k, v in DECODER.items() if k != "hidden_act"},
        **SPECIAL_IDS,
        "head_dim": 12,
        "num_hidden_layers": 3,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 20,
        "sliding_window": 10,
        "sliding_window_pattern": 3,
        "use_bidirectional_attention": True,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
}
JINA_BERT: dict[str, Any] = {
    **{k: v for k, v in SIZES.items() if k != "hidden_act"},
    "model_type": "bert",
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
NV_EMBED: dict[str, Any] = {
    "model_type": "nvembed",
    "vocab_size": 128,
    "text_config": {**DECODER, "rope_theta": 5000.0},
    "latent_attention_config": {
        "num_latents_value": 7,
        "num_cross_heads": 2,
        "cross_dim_head": 10,
        "hidden_dim": 32,
        "latent_dim": 32,
    },
}
NUMPY_REFERENCES: dict[str, dict[str, Any]] = {
    "nvembed": NV_EMBED,
    "nomic_bert~experts": NOMIC_MOE,
    "jina_bert": JINA_BERT,
    "jina_bert~six-heads": {**JINA_BERT, "hidden_size": 36, "num_attention_heads": 6},
    "jina_clip": jina_clip_reference.ROTARY,
    "jina_clip~alibi": jina_clip_reference.ALIBI,
}
TEXT_TOWER: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
# Their towers of pictures are compared in tests/model_store/two_towers.
TWO_TOWERS: dict[str, dict[str, Any]] = {
    "clip": {"text_config": TEXT_TOWER, "projection_dim": 24},
    "siglip": {"text_config": {**TEXT_TOWER, "projection_size": 24}},
    "siglip2": {"text_config": {**TEXT_TOWER, "projection_size": 24}},
}
# Its pictures are compared in tests/model_store/vision_language.
FAMILIES |= {
    "qwen3_vl": {
        "text_config": {
            **DECODER,
            "head_dim": 12,
            "rope_theta": 5000.0,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 2, 2]},
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_heads": 1,
            "patch_size": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 4,
            "deepstack_visual_indexes": [0],
        },
    },
}
# Models of queries and of pictures' patches: configuration, where in the library's class the model of texts is, and
# what makes its mask. Their pictures are compared in tests/model_store/vision_language.
PATCH_MODELS: dict[str, tuple[dict[str, Any], str, str]] = {
    # Of version 5 of transformers.
    "colmodernvbert": (
        {
            "vlm_config": {
                "model_type": "modernvbert",
                "text_config": {**FAMILIES["modernbert"], "pad_token_id": 0},
                "vision_config": {
                    "hidden_size": 8,
                    "intermediate_size": 8,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 1,
                    "image_size": 8,
                    "patch_size": 2,
                },
                "pixel_shuffle_factor": 2,
            },
        },
        "vlm.text_model",
        "vlm.text_model",
    ),
    "colqwen2": (
        {
            "vlm_config": {
                "model_type": "qwen2_vl",
                "text_config": {
                    **DECODER,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 1,
                    "rope_theta": 5000.0,
                    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
                },
                "vision_config": {
                    "model_type": "qwen2_vl",
                    "depth": 1,
                    "embed_dim": 8,
                    "hidden_size": 32,
                    "num_heads": 1,
                    "patch_size": 2,
                },
            },
        },
        "vlm.model.language_model",
        "vlm.model.language_model",
    ),
    "colpali": (
        {
            "vlm_config": {
                "model_type": "paligemma",
                "projection_dim": 32,
                "text_config": {
                    **{k: v for k, v in DECODER.items() if k != "hidden_act"},
                    "num_key_value_heads": 1,
                    "head_dim": 12,
                    "rope_theta": 5000.0,
                },
                "vision_config": {
                    "model_type": "siglip_vision_model",
                    "hidden_size": 8,
                    "intermediate_size": 8,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 1,
                    "image_size": 4,
                    "patch_size": 2,
                },
            },
        },
        "vlm.model.language_model",
        "vlm.model",
    ),
}
T5: dict[str, Any] = {
    "vocab_size": 128,
    "d_model": 32,
    "d_kv": 6,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "n_positions": 200,
    "feed_forward_proj": "relu",
    "relative_attention_num_buckets": 32,
}
FAMILIES |= {"t5": T5}
# Variants with features that a family's first configuration does not have.
FAMILIES |= {
    "deberta-v2~own-projections": {
        **FAMILIES["deberta-v2"],
        "share_att_key": False,
        "position_buckets": -1,
        "max_relative_positions": 12,
        "norm_rel_ebd": "none",
        "pos_att_type": "c2p|p2c",
        "type_vocab_size": 2,
    },
    "gemma3_text~causal": {
        **FAMILIES["gemma3_text"],
        "use_bidirectional_attention": False,
    },
    "t5~gated": {**T5, "feed_forward_proj": "gated-gelu", "n_positions": 60},
    "gte~no-types": {**ROTARY, "type_vocab_size": 0},
    "llama~llama3": {
        **DECODER,
        "max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 5000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "llama~linear": {
        **DECODER,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0},
    },
    "qwen2~yarn": {
        **DECODER,
        "max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
}
FAMILIES |= MORE_FAMILIES
