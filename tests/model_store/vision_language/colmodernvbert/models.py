"""A tiny ColModernVBERT, made from a seed, and the inputs that transformers embedded with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.export.families.weights import random_weights
from tests.model_store.vision_language.tiny_folders import write_folder

HERE: Final = Path(__file__).parent
SEED: Final = 31
FIRST_SPECIAL: Final = 257
# Rows and columns of tiles have tokens up to the third; pictures have up to five, whose names are spelled.
NAMED_SIDES: Final = 3
SPECIAL: Final = (
    *("[CLS]", "[SEP]", "[PAD]", "<fake_token_around_image>", "<global-img>"),
    *(f"<row_{r}_col_{c}>" for r in range(1, 1 + NAMED_SIDES) for c in range(1, 1 + NAMED_SIDES)),
    *("<end_of_utterance>", "<image>"),
)
IDS: Final = {token: FIRST_SPECIAL + number for number, token in enumerate(SPECIAL)}
CONFIG: Final[dict[str, Any]] = {
    "model_type": "colmodernvbert",
    "architectures": ["ColModernVBertForRetrieval"],
    "embedding_dim": 24,
    "vlm_config": {
        "model_type": "modernvbert",
        "image_token_id": IDS["<image>"],
        "pixel_shuffle_factor": 2,
        "text_config": {
            "model_type": "modernbert",
            "vocab_size": 280,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "local_attention": 24,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 5000.0,
            "local_rope_theta": 500.0,
            "pad_token_id": IDS["[PAD]"],
            "bos_token_id": IDS["[CLS]"],
            "cls_token_id": IDS["[CLS]"],
            "eos_token_id": IDS["[SEP]"],
            "sep_token_id": IDS["[SEP]"],
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 16,
            "patch_size": 4,
            "hidden_act": "gelu_pytorch_tanh",
            "vision_use_head": False,
        },
    },
}
IMAGE_PROCESSOR: Final[dict[str, Any]] = {
    "image_processor_type": "Idefics3ImageProcessor",
    "size": {"longest_edge": 74},
    "max_image_size": {"longest_edge": 16},
    "do_image_splitting": True,
    "resample": 1,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
PROCESSOR: Final[dict[str, Any]] = {
    "processor_class": "ColModernVBertProcessor",
    "image_seq_len": 4,
}
# Documents are pictures by their names in `FORMS`, queries are texts.
QUERIES: Final = (
    "red",
    "a red apple",
    "\n\nwhere is it?\n",
    "<global-img> spelled <row_1_col_1>",
    "a long question of many words " * 8,
)
DOCUMENTS: Final = ("wide", "png", "exif-6", "webp")


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer of bytes with one rule, which joins two ends of a line, and tokens around every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: number for number, byte in enumerate([*alphabet, "ĊĊ"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    around = [(token, IDS[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=around
    )
    tokenizer.save(str(path))


def shapes() -> dict[str, list[int]]:
    """Return the names and shapes of the tensors of transformers' class."""
    found: dict[str, list[int]] = json.loads((HERE / "colmodernvbert.json").read_text())["tensors"]
    return found


def tensors() -> dict[str, NDArray[np.float32]]:
    """Return the weights of the tiny model."""
    return random_weights(shapes(), SEED)


def write_model(
    folder: Path,
    weights: Mapping[str, NDArray[np.float32]] | None = None,
    config: Mapping[str, Any] = CONFIG,
    **image_processor: Any,
) -> Path:
    """Write the tiny model as a folder of transformers'.

    Args:
        folder: Where.
        weights: Its tensors; None for those of `tensors`.
        config: Its config.json.
        image_processor: Other fields of preprocessor_config.json.
    """
    contents = {
        "config": config,
        "preprocessor_config": {**IMAGE_PROCESSOR, **image_processor},
        "processor_config": PROCESSOR,
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 480,
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
        },
    }
    return write_folder(
        folder, contents, write_tokenizer, tensors() if weights is None else weights
    )
