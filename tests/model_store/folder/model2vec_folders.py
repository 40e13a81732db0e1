"""Folders as model2vec writes them, with the tensors of a quantised vocabulary, made from a seed."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.tiny import write_json, write_tokenizer

EXPECTED: Final = Path(__file__).parent / "expected_model2vec.json"
TEXTS: Final = ["alpha beta", "the red \u732b one", "a", "query: the two of them and one more"]
TOKENS: Final = 128
ROWS: Final = 20
VARIANTS: Final = {
    "mapping": (True, False, np.float32),
    "weights": (False, True, np.float32),
    "both": (True, True, np.float32),
    "float16": (True, True, np.float16),
    "int8": (True, True, np.int8),
}


def tensors(name: str) -> dict[str, NDArray[Any]]:
    """Return a variant's tensors."""
    has_mapping, has_weights, dtype = VARIANTS[name]
    random = np.random.default_rng(6)
    table = 40 * random.standard_normal((ROWS if has_mapping else TOKENS, 12))
    found = {"embeddings": table.clip(-120, 120).astype(dtype)}
    if has_mapping:
        found["mapping"] = random.integers(0, ROWS, TOKENS)
    if has_weights:
        found["weights"] = random.random(TOKENS).astype(np.float32)
    return found


def write_variant(folder: Path, name: str) -> None:
    """Write a variant's folder."""
    write_json(folder / "config.json", {"model_type": "model2vec", "hidden_dim": 12})
    write_tokenizer(folder / "tokenizer.json")
    save_file(tensors(name), folder / "model.safetensors")
