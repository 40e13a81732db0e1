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
from tests.export.families.configs import (  # noqa: E402 - the path comes first
    FAMILIES,
    NUMPY_REFERENCES,
    PATCH_MODELS,
    TWO_TOWERS,
)
from tests.export.families.more_configs import BIDIRECTIONAL  # noqa: E402 - the path comes first
from tests.export.families.weights import random_ids, random_weights  # noqa: E402 - the path comes first

SEED = 11
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
