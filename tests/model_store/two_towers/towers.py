"""Tiny models of two towers, made from a seed, and what transformers gave for them."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.export.families.weights import random_weights
from tests.support.tiny import write_json

HERE: Final = Path(__file__).parent
SEED: Final = 17
TEXTS: Final = ("", "a", "red and green", "two blue alpha beta gamma", "The One of THREE")
LAYERS: Final = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "clip": {
        "model_type": "clip",
        "projection_dim": 24,
        "text_config": {
            **LAYERS,
            "hidden_size": 32,
            "vocab_size": 64,
            "max_position_embeddings": 16,
            "eos_token_id": 1,
            "bos_token_id": 0,
        },
        "vision_config": {**LAYERS, "hidden_size": 40, "image_size": 28, "patch_size": 8},
    },
    "siglip": {
        "model_type": "siglip",
        "text_config": {
            **LAYERS,
            "hidden_size": 32,
            "vocab_size": 64,
            "max_position_embeddings": 16,
        },
        "vision_config": {**LAYERS, "hidden_size": 32, "image_size": 32, "patch_size": 8},
    },
}
PROCESSORS: Final[dict[str, dict[str, Any]]] = {
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 30},
        "crop_size": {"height": 28, "width": 28},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
    "siglip": {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
}
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(path: Path, kind: str) -> None:
    """Write a tokenizer of words, with the special tokens of the kind around each text."""
    words = [START, END, "<pad>", "<unk>", "a", "and", "the", "of"]
    words += ["red", "green", "blue", "one", "two", "three", "alpha", "beta", "gamma"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    frame = f"{START} $A {END}" if kind == "clip" else f"$A {END}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=frame, special_tokens=[(START, 0), (END, 1)]
    )
    tokenizer.add_special_tokens([START, END, "<pad>"])
    tokenizer.save(str(path))


def tensors(kind: str) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a kind's tiny model."""
    shapes = json.loads((HERE / f"{kind}.json").read_text())["tensors"]
    return random_weights(shapes, SEED)


def write_model(folder: Path, kind: str, **processor: Any) -> Path:
    """Write a kind's tiny model as a folder of transformers'.

    Args:
        folder: Where.
        kind: A key of `CONFIGS`.
        processor: Other fields of preprocessor_config.json.
    """
    write_json(folder / "config.json", CONFIGS[kind])
    write_json(folder / "preprocessor_config.json", {**PROCESSORS[kind], **processor})
    write_json(folder / "tokenizer_config.json", {"pad_token": "<pad>", "model_max_length": 16})
    write_tokenizer(folder / "tokenizer.json", kind)
    save_file(tensors(kind), folder / "model.safetensors")
    return folder
