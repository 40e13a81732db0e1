"""Merges models: weighted averages of their tensors, or points on the arc between two models.

Source: model soups (arXiv:2203.05482); SLERP of each tensor, as merging tools do it.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.model_store.sources.checkpoints import (
    Tensors,
    read_tensors,
    weight_hashes,
    write_checkpoint,
)
from nestvec.model_store.sources.hashes import file_sha256
from nestvec.system.json_files import read_json


def merge_models(
    folders: Sequence[Path], weights: Sequence[float], out: Path, *, method: str = "average"
) -> int:
    """Write a model that lies between others of one architecture.

    Args:
        folders: At least two models; files beside the weights are copied from the first.
        weights: One for each model; they are scaled to a sum of 1.
        out: The new folder.
        method: "average", or "slerp" of two models.

    Returns:
        Number of tensors of the new model.

    Raises:
        FormatError: They do not fit, or weights make no sense.
        ArtefactError: The folder exists or cannot be written.
    """
    shares = _shares(folders, weights)
    if method == "slerp" and len(folders) != 2:  # noqa: PLR2004 - of two points
        raise FormatError("slerp takes two models")
    mix: Callable[[list[NDArray[np.float32]]], NDArray[np.float32]]
    if method == "slerp":
        mix = lambda parts: _slerp(parts[0], parts[1], shares[1])  # noqa: E731 - one of two
    else:
        mix = lambda parts: _average(parts, shares)  # noqa: E731 - the other
    _check_alike(folders)
    models = [read_tensors(folder) for folder in folders]
    for other, folder in zip(models[1:], folders[1:], strict=True):
        if differing := sorted(set(models[0]) ^ set(other)):
            raise FormatError(f"{folder}: tensor '{differing[0]}' is in one model only")
    merged: Tensors = {}
    for name, first in models[0].items():
        parts = [model[name] for model in models]
        if any(part.shape != first.shape for part in parts):
            raise FormatError(f"tensor '{name}' has other shapes in other models")
        if not np.issubdtype(first.dtype, np.inexact) and first.dtype.kind in "iub":
            merged[name] = first
            continue
        merged[name] = mix([part.astype(np.float32) for part in parts]).astype(first.dtype)
    provenance = {
        "made_by": method,
        "weights": shares,
        "models": [weight_hashes(folder) for folder in folders],
    }
    write_checkpoint(folders[0], merged, out, provenance)
    return len(merged)


def _shares(folders: Sequence[Path], weights: Sequence[float]) -> list[float]:
    """Scale weights to a sum of 1."""
    if len(folders) < 2:  # noqa: PLR2004 - one is merged already
        raise FormatError("merging takes at least two models")
    if len(weights) != len(folders):
        raise FormatError(f"{len(folders)} models take as many weights, not {len(weights)}")
    total = math.fsum(weights)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not total > 0:
        raise FormatError("weights must be numbers of at least 0, and not all 0")
    return [weight / total for weight in weights]


def _average(parts: Sequence[NDArray[np.float32]], shares: Sequence[float]) -> NDArray[np.float32]:
    total = np.zeros(parts[0].shape, np.float64)
    for part, share in zip(parts, shares, strict=True):
        total += share * part.astype(np.float64)
    return total.astype(np.float32)


def _slerp(
    first: NDArray[np.float32], second: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    """Interpolate along the arc between two tensors' directions; straight where those are the same or opposite."""
    start, end = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(start), np.linalg.norm(end)
    if not min(norms) > 0:
        return _average([first, second], [1 - share, share])
    cosine = float(np.clip((start * end).sum() / (norms[0] * norms[1]), -1, 1))
    angle = math.acos(cosine)
    if math.sin(angle) < 1e-6:  # noqa: PLR2004 - the arc has no length, or no direction
        return _average([first, second], [1 - share, share])
    mixed = math.sin((1 - share) * angle) * start + math.sin(share * angle) * end
    return (mixed / math.sin(angle)).astype(np.float32)


def _check_alike(folders: Sequence[Path]) -> None:
    """Refuse models of different sizes, or whose tokens differ.

    Raises:
        FormatError: They differ; names the field or the file.
    """
    first = read_json(folders[0] / "config.json")
    for folder in folders[1:]:
        config = read_json(folder / "config.json")
        fields = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
        for name in fields:
            if config.get(name) != first.get(name):
                raise FormatError(
                    f"{folder}/config.json: '{name}' is {config.get(name)!r}, the first model's {first.get(name)!r}"
                )
        tokenizers = [path / "tokenizer.json" for path in (folders[0], folder)]
        if (
            all(path.is_file() for path in tokenizers)
            and len(set(map(file_sha256, tokenizers))) > 1
        ):
            raise FormatError(f"{tokenizers[1]}: another tokenizer than the first model's")
