"""Makes the expected states anew, by transformers and torch in float64: `make families` (needs `.venv-peers`).

For each family a JSON file (configuration, tensors' shapes, seed) and the last states of a few inputs, (n, H). Weights
and ids come from the seed; see `weights.py`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.families.weights import random_ids, random_weights  # noqa: E402 - the path comes first

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
# Buffers and heads that no encoder needs.
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
LEFT_OUT = ("position_ids", "token_type_ids", "pooler.")


def make(family: str, given: dict[str, Any]) -> None:
    """Write one family's files."""
    kind = transformers.AutoConfig.for_model(family, **given, attn_implementation="eager")
    model = transformers.AutoModel.from_config(kind).eval()
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not any(part in name for part in LEFT_OUT)
    }
    tensors = random_weights(shapes, SEED)
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(any(part in name for part in LEFT_OUT) for name in missing), missing
    model = model.double()
    longest = given["max_position_embeddings"]
    if family in AFTER_PADDING:
        longest -= given["pad_token_id"] + 1
    lengths = [1, 2, 17, longest]
    states = []
    for ids in random_ids(lengths, given["vocab_size"], SEED):
        with torch.no_grad():
            states.append(model(torch.tensor([ids])).last_hidden_state[0].numpy())
    content = {
        "config": {"model_type": family, **given},
        "seed": SEED,
        "lengths": lengths,
        "transformers": transformers.__version__,
        "tensors": shapes,
    }
    (HERE / f"{family}.json").write_text(json.dumps(content, indent=1) + "\n")
    np.save(HERE / f"{family}.npy", np.concatenate(states).astype(np.float32))
    print(f"{family}: {sum(lengths)} states")


if __name__ == "__main__":
    for name in sys.argv[1:] or FAMILIES:
        make(name, FAMILIES[name])
