"""Folders of tiny models that compare patches, as transformers writes them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.tiny import write_json


def write_folder(
    folder: Path,
    contents: Mapping[str, Mapping[str, Any] | None],
    write_tokenizer: Callable[[Path], None],
    weights: Mapping[str, NDArray[np.float32]],
) -> Path:
    """Write a model's folder, and return it.

    Args:
        folder: Where.
        contents: Of JSON files, by name without its ending; none is written of None.
        write_tokenizer: Writes a tokenizer.json.
        weights: The tensors.
    """
    for name, content in contents.items():
        if content is not None:
            write_json(folder / f"{name}.json", dict(content))
    write_tokenizer(folder / "tokenizer.json")
    save_file(dict(weights), folder / "model.safetensors")
    return folder
