"""Calibration: the range of every linear layer's input on typical texts."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.collate import collate
from nestvec.engine.text.encoded import Fit
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Item, Layout, Truncation
from nestvec.errors import BackendError, FormatError
from nestvec.export.layers.arithmetic import Ranges

BUNDLED: Final = "calibration.txt"
LEAST_TEXTS: Final = 16
MOST_TEXTS: Final = (
    2000  # ranges hardly move beyond, and a corpus given by mistake would take hours
)
# Values that one batch of a calibration graph may give out: 64 MB.
MOST_VALUES: Final = 16_000_000


def calibration_texts(path: Path | None) -> list[str]:
    """Texts, one a line, empty lines left out; the bundled ones where no file is given.

    Raises:
        FormatError: The file cannot be read, or has too few lines to say anything.
    """
    try:
        text = (
            path.read_text("utf-8") if path else (files(__package__) / BUNDLED).read_text("utf-8")
        )
    except (OSError, ValueError) as error:
        raise FormatError(f"calibration_file {path}: cannot be read ({error})") from error
    lines = [line for line in text.splitlines() if line.strip()][:MOST_TEXTS]
    if len(lines) < LEAST_TEXTS:
        raise FormatError(
            f"calibration_file {path}: {len(lines)} texts, one a line; at least {LEAST_TEXTS} are needed"
        )
    return lines


def calibration_sha256(path: Path | None) -> str:
    """Hash of the texts, for fingerprints."""
    return hashlib.sha256("\n".join(calibration_texts(path)).encode()).hexdigest()


def measure_ranges(
    backend: Backend, channels: Mapping[str, slice], tokenizer: Tokenizer, texts: Sequence[str]
) -> dict[str, Ranges]:
    """Run texts through a calibration graph.

    Args:
        backend: Opened on `export_calibration_graph`'s graph.
        channels: What that function returned.
        tokenizer: The model's.
        texts: Typical ones.

    Returns:
        Ranges by the name of the first layer that takes the input.

    Raises:
        FormatError: The graph fails on them, or gives values that are not finite.
    """
    width = backend.hidden_size
    low, high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    encoded = tokenizer.encode_texts(texts, Fit(Truncation.END))
    items = sorted((Item(ids=e.ids) for e in encoded), key=lambda item: -item.tokens)
    budget = max(items[0].tokens, MOST_VALUES // width)
    for batch in in_batches(items, budget):
        try:
            hidden = backend.run(collate(batch, Layout.PACKED)).hidden
        except BackendError as error:
            raise FormatError(f"calibration failed: {error.__cause__ or error}") from error
        if hidden is None or not np.isfinite(hidden).all():
            raise FormatError("calibration gave values that are not finite")
        low, high = np.minimum(low, hidden.min(axis=0)), np.maximum(high, hidden.max(axis=0))
    return {name: Ranges(low[part], high[part]) for name, part in channels.items()}


def in_batches(items: Sequence[Item], budget: int) -> list[list[Item]]:
    """Items in their order, cut into batches of at most `budget` tokens."""
    batches: list[list[Item]] = []
    filled = budget
    for item in items:
        if filled + item.tokens > budget:
            batches.append([])
            filled = 0
        batches[-1].append(item)
        filled += item.tokens
    return batches
