"""A tiny SigLIP 2 NaFlex, made from a seed, and pictures of all shapes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.engine.pictures.forms import FORMS, colours, encoded
from tests.export.families.weights import random_weights
from tests.support.tiny import write_json

HERE: Final = Path(__file__).parent
SEED: Final = 23
# By the major version of transformers that computed what is expected.
VERSIONS: Final = (4, 5)
TEXTS: Final = ("", "a", "red and green", "The One of THREE, é", "red " * 80)
LAYERS: Final = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CONFIG: Final[dict[str, Any]] = {
    "model_type": "siglip2",
    "text_config": {
        **LAYERS,
        "hidden_size": 32,
        "vocab_size": 300,
        "max_position_embeddings": 64,
        "projection_size": 40,
    },
    # Positions of 5 rows and columns: pictures have fewer and more of both.
    "vision_config": {**LAYERS, "hidden_size": 40, "patch_size": 8, "num_patches": 25},
}
PROCESSOR: Final[dict[str, Any]] = {
    "image_processor_type": "Siglip2ImageProcessor",
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
    "max_num_patches": 36,
    "patch_size": 8,
    "resample": 2,
    "rescale_factor": 1 / 255,
}
# As the authors' folders have them.
TOKENIZER_CONFIG: Final[dict[str, Any]] = {
    "tokenizer_class": "GemmaTokenizer",
    "add_bos_token": False,
    "add_eos_token": True,
    "do_lower_case": True,
    "model_input_names": ["input_ids"],
    "model_max_length": 64,
    "padding_side": "right",
    **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")},
}


def _of_size(width: int, height: int) -> Callable[[], bytes]:
    return lambda: encoded(colours(width, height), "PNG")


# Width and height; the last but two have more pixels than the budget, the last but one exactly as many as it.
SHAPES: Final[Mapping[str, tuple[int, int]]] = {
    "square": (64, 64),
    "1:5": (30, 150),
    "5:1": (150, 30),
    "7:3": (210, 90),
    "3x200": (3, 200),
    "200x3": (200, 3),
    "one pixel": (1, 1),
    "1:200": (1, 200),
    "many pixels": (640, 480),
    "as it is": (48, 48),
    "over by a pixel": (49, 48),
}
PICTURES: Final[Mapping[str, Callable[[], bytes]]] = {
    **FORMS,
    **{name: _of_size(*size) for name, size in SHAPES.items()},
}


def write_tokenizer(path: Path) -> None:
    """Write a tokenizer of Gemma's kind: pairs of letters and of bytes, an end token behind each text."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["▁", *"abdefghnorstTRHE", "re", "red", "▁red"]
    vocabulary = {piece: number for number, piece in enumerate([*special, *pieces, *letters])}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[("r", "e"), ("re", "d"), ("▁", "red")],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B:1 <eos>:1", special_tokens=[("<eos>", 1)]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(path))


def tensors() -> dict[str, NDArray[np.float32]]:
    """Return the weights of the model."""
    shapes = json.loads((HERE / "expected-4.json").read_text())["tensors"]
    return random_weights(shapes, SEED)


def write_texts(folder: Path, **config: Any) -> Path:
    """Write what says how texts are tokenized.

    Args:
        folder: Where.
        config: Other fields of config.json.
    """
    write_json(folder / "config.json", {**CONFIG, **config})
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)
    write_tokenizer(folder / "tokenizer.json")
    return folder


def write_naflex(folder: Path, config: Mapping[str, Any] | None = None, **processor: Any) -> Path:
    """Write the model as a folder of transformers'.

    Args:
        folder: Where.
        config: Other fields of config.json.
        processor: Other fields of preprocessor_config.json.
    """
    write_texts(folder, **(config or {}))
    write_json(folder / "preprocessor_config.json", {**PROCESSOR, **processor})
    save_file(tensors(), folder / "model.safetensors")
    return folder
