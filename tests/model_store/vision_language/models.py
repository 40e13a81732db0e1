"""A tiny Qwen3-VL, made from a seed, and the inputs that transformers embedded with it."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.engine.pictures.forms import FORMS
from tests.export.families.weights import random_weights
from tests.support.tiny import write_json

HERE: Final = Path(__file__).parent
SEED: Final = 29
END: Final = "<|endoftext|>"
SPECIAL: Final = (
    *(END, "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
FIRST_SPECIAL: Final = 257
IDS: Final = {token: FIRST_SPECIAL + number for number, token in enumerate(SPECIAL)}
INSTRUCTION: Final = "Represent the user's input."
# Rows and columns of the table of positions are fewer than those of most pictures, and more than those of small ones.
CONFIG: Final[dict[str, Any]] = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": IDS["<|image_pad|>"],
    "video_token_id": IDS["<|video_pad|>"],
    "vision_start_token_id": IDS["<|vision_start|>"],
    "vision_end_token_id": IDS["<|vision_end|>"],
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "qwen3_vl_text",
        "vocab_size": 272,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5000.0,
        "rope_scaling": {
            "rope_type": "default",
            "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
        },
    },
    "vision_config": {
        "model_type": "qwen3_vl",
        "depth": 3,
        "hidden_size": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": 40,
        "num_heads": 3,
        "in_channels": 3,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 32,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 2],
    },
}
PROCESSOR: Final[dict[str, Any]] = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "size": {"shortest_edge": 256, "longest_edge": 2048},
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
# What Qwen3-VL's own template makes of a system and a user's message.
CHAT_TEMPLATE: Final = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for content in message.content %}"
    "{%- if content.type == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif 'text' in content %}{{- content.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Inputs: an instruction, and texts and names of `FORMS`, which begin with "@".
INPUTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "text": (INSTRUCTION, ("a red apple",)),
    "line": (INSTRUCTION, ("\n\na red apple\n",)),
    "query": ("Find what is asked for.", ("a red apple",)),
    "wide": (INSTRUCTION, ("@wide",)),
    "small": (INSTRUCTION, ("@small",)),
    "before": (INSTRUCTION, ("@png", "a red apple")),
    "behind": (INSTRUCTION, ("a red apple", "@png")),
    "two": ("Find what is asked for.", ("one", "@wide", " or two", "@jpeg", "\n")),
    **{form: (INSTRUCTION, (f"@{form}",)) for form in FORMS if form not in ("wide", "small")},
}


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer of bytes with one rule, which joins two ends of a line; a text ends with a token of its end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: number for number, byte in enumerate([*alphabet, "ĊĊ"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, IDS[END])]),
        ]
    )
    tokenizer.save(str(path))


def tensors() -> dict[str, NDArray[np.float32]]:
    """Return the weights of the tiny model."""
    return random_weights(json.loads((HERE / "qwen3_vl.json").read_text())["tensors"], SEED)


def write_model(folder: Path, **processor: Any) -> Path:
    """Write the tiny model as a folder of transformers', with sentence-transformers' pooling.

    Args:
        folder: Where.
        processor: Other fields of preprocessor_config.json.
    """
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "preprocessor_config.json", {**PROCESSOR, **processor})
    write_json(
        folder / "tokenizer_config.json",
        {"pad_token": END, "model_max_length": 400, "chat_template": CHAT_TEMPLATE},
    )
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True},
    )
    write_tokenizer(folder / "tokenizer.json")
    save_file(tensors(), folder / "model.safetensors")
    return folder
