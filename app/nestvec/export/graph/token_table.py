"""Finds the table of token vectors among a model's weights, for reports about its vocabulary."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights

# The last parts of the names that families give the table.
NAMES: Final = (
    *("word_embeddings", "embed_tokens", "tok_embeddings", "shared", "wte", "embedding"),
    "embeddings",
)
# Larger ones are not read for a report: a server has other things to do with its memory.
MAX_TABLE_VALUES: Final = 300_000_000


def read_token_table(
    folder: Path, files: tuple[Path, ...], rows: int
) -> NDArray[np.float32] | None:
    """Return the vectors of a model's tokens, `[V, H]` in their stored dtype; None where they are not found.

    Args:
        folder: The model's folder.
        files: Its files of weights.
        rows: V, the size of the vocabulary.
    """
    try:
        with Weights(folder, files) as weights:
            for name in weights.names():
                if name.removesuffix(".weight").rpartition(".")[2] not in NAMES:
                    continue
                count, *widths = weights.shape(name)
                if len(widths) == 1 and count >= rows and count * widths[0] <= MAX_TABLE_VALUES:
                    return weights.raw(name)[:rows]
    except FormatError:
        return None
    return None
