"""Calibration of int8 graphs: the range of every linear layer's input (its activations) on typical texts."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Item, Layout, Truncation
from nestvec.errors import BackendError, FormatError
from nestvec.export.layers.arithmetic import ChannelRanges

# Values that one batch of a calibration graph may give out: 64 MB.
MAX_BATCH_VALUES: Final = 16_000_000


def measure_ranges(
    backend: Backend, channels: Mapping[str, slice], tokenizer: Tokenizer, texts: Sequence[str]
) -> dict[str, ChannelRanges]:
    """Run texts through a calibration graph and measure the range of each channel.

    Args:
        backend: Opened on `export_calibration_graph`'s graph.
        channels: Columns of each layer's input, as that function returned them.
        tokenizer: The model's tokenizer.
        texts: Typical texts.

    Returns:
        ChannelRanges by the name of the first layer that takes an input.

    Raises:
        FormatError: The graph fails on them, or gives values that are not finite.
    """
    width = backend.info.hidden_size
    low, high = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    encoded = tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
    items = sorted((Item(ids=text.ids) for text in encoded), key=lambda item: -item.tokens)
    max_tokens = max(items[0].tokens, MAX_BATCH_VALUES // width)
    for batch in batches_within(items, max_tokens):
        try:
            hidden = backend.run(collate(batch, Layout.PACKED)).hidden
        except BackendError as error:
            raise FormatError(f"calibration failed: {error.__cause__ or error}") from error
        if hidden is None or not np.isfinite(hidden).all():
            raise FormatError("calibration gave values that are not finite")
        low, high = np.minimum(low, hidden.min(axis=0)), np.maximum(high, hidden.max(axis=0))
    return {name: ChannelRanges(low[columns], high[columns]) for name, columns in channels.items()}


def batches_within(items: Sequence[Item], max_tokens: int) -> list[list[Item]]:
    """Cut items, in their order, into batches of at most `max_tokens` tokens."""
    batches: list[list[Item]] = []
    batch_tokens = max_tokens
    for item in items:
        if batch_tokens + item.tokens > max_tokens:
            batches.append([])
            batch_tokens = 0
        batches[-1].append(item)
        batch_tokens += item.tokens
    return batches
