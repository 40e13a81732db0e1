"""A tiny ColQwen2, made from a seed, and the queries and pictures that transformers embedded with it."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.engine.pictures.forms import FORMS
from tests.export.families.weights import random_weights
from tests.model_store.vision_language.models import END, IDS, PROCESSOR, SPECIAL
from tests.model_store.vision_language.tiny_folders import write_folder

HERE: Final = Path(__file__).parent
SEED: Final = 41
DIMENSIONS: Final = 16
TEXT: Final[dict[str, Any]] = {
    "vocab_size": 272,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
}
VISION: Final[dict[str, Any]] = {
    "model_type": "qwen2_vl",
    "depth": 2,
    "embed_dim": 24,
    "hidden_size": 64,
    "hidden_act": "quick_gelu",
    "mlp_ratio": 2,
    "num_heads": 3,
    "in_channels": 3,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
CONFIG: Final[dict[str, Any]] = {
    "model_type": "colqwen2",
    "architectures": ["ColQwen2ForRetrieval"],
    "embedding_dim": DIMENSIONS,
    "vlm_config": {
        "model_type": "qwen2_vl",
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "text_config": {"model_type": "qwen2_vl_text", **TEXT},
        "vision_config": VISION,
    },
}
QUERIES: Final = ("a red apple", "", "what does the table on page 3 say?", "x")
# Inputs: queries as they are, and names of `FORMS`, which begin with "@".
INPUTS: Final = (*QUERIES, *(f"@{form}" for form in FORMS))


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer of bytes, which puts nothing around a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: number for number, byte in enumerate([*alphabet, "ĊĊ"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(path))


def tensors() -> dict[str, NDArray[np.float32]]:
    """Return the weights of the tiny model."""
    return random_weights(json.loads((HERE / "colqwen2.json").read_text())["tensors"], SEED)


def write_model(
    folder: Path,
    config: dict[str, Any] | None = None,
    weights: dict[str, NDArray[np.float32]] | None = None,
    processor: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write the tiny model as a folder of transformers 4.57's.

    Args:
        folder: Where.
        config: Another config.json.
        weights: Other tensors.
        processor: Content of processor_config.json; none is written without.
        fields: Other fields of preprocessor_config.json.
    """
    contents = {
        "config": CONFIG if config is None else config,
        "preprocessor_config": {**PROCESSOR, **fields},
        "tokenizer_config": {"pad_token": END, "model_max_length": 400},
        "processor_config": processor,
    }
    return write_folder(
        folder, contents, write_tokenizer, tensors() if weights is None else weights
    )
