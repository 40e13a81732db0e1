"""Calibration of int8 graphs: the range of every linear layer's input (its activations) on typical texts."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Item, Layout, Truncation
from nestvec.errors import BackendError, FormatError
from nestvec.export.layers.arithmetic import ChannelRanges
from nestvec.model_store.artefacts.batch_runs import batches_by_length, run_batches
from nestvec.model_store.preparation import Advance, count_nothing

BATCH_TOKENS: Final = 512


def measure_ranges(
    backend: Backend,
    channels: Mapping[str, slice],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    threads: int = 1,
    advance: Advance = count_nothing,
) -> dict[str, ChannelRanges]:
    """Run texts through a calibration graph and measure the range of each channel.

    Args:
        backend: Opened on the calibration graph of `export_reference_graphs`.
        channels: Columns of each layer's input, as that function returned them.
        tokenizer: The model's tokenizer.
        texts: Typical texts.
        threads: How many batches run at once.
        advance: Told how many texts are done.

    Returns:
        ChannelRanges by the name of the first layer that takes an input.

    Raises:
        FormatError: The graph fails on them, or gives values that are not finite.
    """

    def ranges_of(batch: Sequence[Item]) -> FloatArray:
        """Return least value, greatest and mean of each channel, [3, C]."""
        try:
            ranges = backend.run(collate(batch, Layout.PACKED)).hidden
        except BackendError as error:
            raise FormatError(f"calibration failed: {error.__cause__ or error}") from error
        # Of NaN among the values the least and the greatest need not tell; the mean does.
        if ranges is None or not np.isfinite(ranges).all():
            raise FormatError("calibration gave values that are not finite")
        return ranges

    encoded = tokenizer.encode_texts(texts, TokenizeOptions(Truncation.END))
    items = [Item(ids=text.ids) for text in encoded]
    batches = batches_by_length(items, BATCH_TOKENS, backend.info.max_mixed_tokens)
    of_batches = np.stack(run_batches(batches, ranges_of, threads, advance))
    low, high = of_batches[:, 0].min(axis=0), of_batches[:, 1].max(axis=0)
    return {name: ChannelRanges(low[columns], high[columns]) for name, columns in channels.items()}
