"""A tiny ColPali, made from a seed, and the queries and pictures that transformers embedded with it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.engine.pictures.forms import FORMS
from tests.export.families.weights import random_weights
from tests.model_store.vision_language.tiny_folders import write_folder

HERE: Final = Path(__file__).parent
SEED: Final = 52
DIMENSIONS: Final = 16
PAD, EOS, BOS, UNKNOWN, IMAGE = SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")
# The words of Gemma's vocabulary, but few: bytes for what it lacks, and pieces that reach over a prefix's end.
PIECES: Final = ("▁▁", "Qu", "st", "▁a", "th", ":▁", "is")
CHARACTERS: Final = "▁abcdefghijklmnopqrstuvwxyzQD:.,?!\n"
WORDS: Final = (*SPECIAL[:4], *(f"<0x{byte:02X}>" for byte in range(256)), *CHARACTERS, *PIECES)
# Pixels of a side that make no whole number of patches, and a table with more rows than there are tokens.
VISION: Final[dict[str, Any]] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 30,
    "patch_size": 7,
    "vision_use_head": False,
}
TEXT: Final[dict[str, Any]] = {
    "model_type": "gemma",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rope_theta": 5000.0,
}
CONFIG: Final[dict[str, Any]] = {
    "model_type": "colpali",
    "architectures": ["ColPaliForRetrieval"],
    "embedding_dim": DIMENSIONS,
    "vlm_config": {
        "model_type": "paligemma",
        "image_token_index": len(WORDS),
        "projection_dim": 32,
        "hidden_size": 32,
        "text_config": TEXT,
        "vision_config": VISION,
    },
}
PROCESSOR: Final[dict[str, Any]] = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": 30, "width": 30},
    "image_seq_length": 16,
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.4, 0.5],
}
QUERIES: Final = ("a red apple", "", " what is it?\n", "<pad>b <bos>", "Äpfel")
DOCUMENT: Final = "a red apple"
# Inputs: queries as they are, names of `FORMS`, which begin with "@", and a document of text, which begins with "#".
INPUTS: Final = (*QUERIES, *(f"@{form}" for form in FORMS), f"#{DOCUMENT}")


def _layout(whole: str, decoder: str, tower: str) -> Callable[[str], str]:
    def renamed(name: str) -> str:
        if not name.startswith("vlm."):
            return name
        name = name.replace("vlm.language_model.model.", f"vlm.{decoder}")
        name = name.replace("vlm.vision_tower.vision_model.", f"vlm.{tower}")
        return whole + name.removeprefix("vlm.")

    return renamed


# How the names of tensors in files that both versions write become those of others that either takes.
LAYOUTS: Final[Mapping[str, Callable[[str], str]]] = {
    "4.57's memory": _layout("vlm.model.", "language_model.", "vision_tower.vision_model."),
    "5.24's memory": _layout("vlm.", "language_model.", "vision_tower."),
    "without the whole": _layout("", "language_model.", "vision_tower.vision_model."),
}


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer as Gemma's is: blanks are marked, and nothing is put around a text."""
    merges = [("▁", "▁"), ("Q", "u"), ("s", "t"), ("▁", "a"), ("t", "h"), (":", "▁"), ("i", "s")]
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token=UNKNOWN)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in SPECIAL]
    )
    tokenizer.save(str(path))


def tensors() -> dict[str, NDArray[np.float32]]:
    """Return the weights of the tiny model, by the names that both versions write."""
    return random_weights(json.loads((HERE / "colpali.json").read_text())["tensors"], SEED)


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
    special = zip(("pad", "eos", "bos", "unk"), SPECIAL, strict=False)
    contents = {
        "config": CONFIG if config is None else config,
        "preprocessor_config": {**PROCESSOR, **fields},
        "tokenizer_config": {
            "tokenizer_class": "GemmaTokenizer",
            **{f"{name}_token": token for name, token in special},
            "add_bos_token": True,
        },
        "processor_config": processor,
    }
    return write_folder(
        folder, contents, write_tokenizer, tensors() if weights is None else weights
    )
