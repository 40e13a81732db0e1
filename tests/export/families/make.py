"""Computes the expected states by transformers and torch in float64: `make families` (needs `.venv-peers`).

It writes two files for each family and each variant of one (`family~variant`): a JSON file with configuration, shapes
of tensors and seed, and the last states of a few inputs, [n, H]. `weights.py` makes weights and ids from the seed.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.export.families import (  # noqa: E402 - the path comes first
    jina_bert_reference,
    jina_clip_reference,
    nomic_moe_reference,
    nv_embed_reference,
)
from tests.export.families.more_configs import (  # noqa: E402 - the path comes first
    BIDIRECTIONAL,
    MORE_FAMILIES,
    NOMIC_MOE,
)
from tests.export.families.weights import random_ids, random_weights  # noqa: E402 - the path comes first

SEED = 11
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
DECODER: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 40,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
FAMILIES |= {
    "llama": {**DECODER, "rope_theta": 5000.0},
    "mistral": {**DECODER, "sliding_window": 9},
    "qwen2": {**DECODER, "rope_theta": 1e6},
    "qwen3": {**DECODER, "head_dim": 12, "rope_theta": 1e6},
}
SPECIAL_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
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
# Families whose positions count from `pad_token_id` + 1.
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
# Second names of `shared.weight`, and decoders.
TIED = ("encoder.embed_tokens.weight", "decoder.")
ENCODERS = {"t5": transformers.T5EncoderModel, "mt5": transformers.MT5EncoderModel}
REFERENCES = {
    "nvembed": nv_embed_reference,
    "nomic_bert": nomic_moe_reference,
    "jina_bert": jina_bert_reference,
    "jina_clip": jina_clip_reference,
}
# Parts of names of buffers and heads that no encoder needs.
LEFT_OUT = ("position_ids", "token_type_ids", "pooler.", "inv_freq", "embed_scale", "visual.")


def make_by_numpy(family: str, config: dict[str, Any]) -> None:
    """Write the files of a family that transformers does not have."""
    reference = REFERENCES[family.partition("~")[0]]
    shapes = reference.shapes(config)
    tensors = random_weights(shapes, SEED)
    sizes = config.get("text_config", config)
    max_tokens = sizes.get("n_positions") or sizes["max_position_embeddings"]
    lengths = [1, 2, 17, max_tokens]
    states = [
        reference.last_states(config, tensors, ids)
        for ids in random_ids(lengths, sizes["vocab_size"], SEED)
    ]
    write(family, {"config": config, "seed": SEED, "lengths": lengths, "tensors": shapes}, states)


def make(family: str, config: dict[str, Any]) -> None:
    """Write the files of a family that transformers has."""
    model_type = family.partition("~")[0]
    hf_config = transformers.AutoConfig.for_model(
        BIDIRECTIONAL.get(model_type, model_type), **config, attn_implementation="eager"
    )
    encoder = ENCODERS.get(model_type, transformers.AutoModel.from_config)
    model = encoder(hf_config).eval()
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not any(part in name for part in LEFT_OUT) and not name.startswith(TIED)
    }
    tensors = random_weights(shapes, SEED)
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(
        any(part in name for part in LEFT_OUT) or name.startswith(TIED) for name in missing
    ), missing
    model.tie_weights()
    model = model.double()
    positions = ("max_position_embeddings", "n_positions", "seq_length")
    fields = config.get("text_config", config)
    max_tokens = next(fields[name] for name in positions if name in fields)
    if model_type in AFTER_PADDING:
        max_tokens -= config["pad_token_id"] + 1
    lengths = [1, 2, 17, max_tokens]
    states = []
    for ids in random_ids(lengths, fields["vocab_size"], SEED):
        with torch.no_grad():
            mask = {}
            if model_type in BIDIRECTIONAL:
                mask = {"attention_mask": torch.zeros(1, 1, len(ids), len(ids))}
            run = model.get_encoder() if model_type == "m2m_100" else model
            states.append(run(torch.tensor([ids]), **mask).last_hidden_state[0].numpy())
    content = {
        "config": {"model_type": model_type, **config},
        "seed": SEED,
        "lengths": lengths,
        "transformers": transformers.__version__,
        "tensors": shapes,
    }
    write(family, content, states)


def make_text_tower(family: str, config: dict[str, Any]) -> None:
    """Write the files of a model of two towers: the projected states of its tower of texts."""
    hf_config = transformers.AutoConfig.for_model(family, **config, attn_implementation="eager")
    model = transformers.AutoModel.from_config(hf_config).eval()
    is_text = ("text_model.", "text_projection.")
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name.startswith(is_text) and "position_ids" not in name
    }
    tensors = random_weights(shapes, SEED)
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert not any(name.startswith(is_text) and "position_ids" not in name for name in missing)
    model = model.double()
    fields = config["text_config"]
    lengths = [1, 2, 17, fields["max_position_embeddings"]]
    states = []
    project = model.text_projection if family == "clip" else model.text_model.head
    for ids in random_ids(lengths, fields["vocab_size"], SEED):
        with torch.no_grad():
            hidden = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state
            states.append(project(hidden)[0].numpy())
    content = {
        "config": {"model_type": family, **config},
        "seed": SEED,
        "lengths": lengths,
        "transformers": transformers.__version__,
        "tensors": shapes,
    }
    write(family, content, states)


def make_patch_model(family: str, config: dict[str, Any], place: str, runs: str) -> None:
    """Write the files of a model that compares patches: the states of its texts, before they are projected.

    Args:
        family: The family's name.
        config: Its configuration.
        place: Path of the model of texts in the class.
        runs: Path of the model that makes its mask.
    """
    hf_config = transformers.AutoConfig.for_model(
        family, **json.loads(json.dumps(config)), attn_implementation="eager"
    )
    model = transformers.AutoModelForPreTraining.from_config(hf_config).eval()
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name.startswith(f"{place}.")
    }
    tensors = random_weights(shapes, SEED)
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert not any(name.startswith(f"{place}.") for name in missing)
    texts = model.double().get_submodule(runs)
    fields = texts.config.get_text_config()
    lengths = [1, 2, 17, fields.max_position_embeddings]
    states = []
    for ids in random_ids(lengths, fields.vocab_size, SEED):
        with torch.no_grad():
            states.append(texts(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy())
    content = {
        "config": {"model_type": family, **config},
        "vocabulary": fields.vocab_size,
        "seed": SEED,
        "lengths": lengths,
        "transformers": transformers.__version__,
        "tensors": shapes,
    }
    write(family, content, states)


def write(family: str, content: dict[str, Any], states: list[Any]) -> None:
    """Write a family's two files."""
    (HERE / f"{family}.json").write_text(json.dumps(content, indent=1) + "\n")
    np.save(HERE / f"{family}.npy", np.concatenate(states).astype(np.float32))
    print(f"{family}: {sum(map(len, states))} states")


if __name__ == "__main__":
    known = [name for name in PATCH_MODELS if name in transformers.CONFIG_MAPPING]
    for name in sys.argv[1:] or [*FAMILIES, *NUMPY_REFERENCES, *TWO_TOWERS, *known]:
        if name in NUMPY_REFERENCES:
            make_by_numpy(name, NUMPY_REFERENCES[name])
        elif name in TWO_TOWERS:
            make_text_tower(name, TWO_TOWERS[name])
        elif name in PATCH_MODELS:
            make_patch_model(name, *PATCH_MODELS[name])
        else:
            make(name, FAMILIES[name])
