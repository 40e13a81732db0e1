"""Names of inputs and outputs that graphs may have, whatever runs them. Pure."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import FormatError

TOKEN_OUTPUTS: Final = ("hidden", "last_hidden_state", "token_embeddings")
POOLED_OUTPUTS: Final = ("pooled", "sentence_embedding")
# Which attention; depends on the machine, so it is the backend's to feed and not collation's.
SHORT_ROWS: Final = "has_short_rows"
# How many layers to run; the graph says in its metadata how many there are, and may give earlier states out too.
LAYERS: Final = "layers"
LAYERS_PROPERTY: Final = "nestvec.layers"
EXIT: Final = "exit_"
# What can be fed; a graph that needs more is refused at start, not at the first request.
KNOWN_INPUTS: Final = {
    Layout.PACKED: {
        "ids",
        "positions",
        "gather",
        "scatter",
        "lengths",
        "has_equal_lengths",
        "types",
        SHORT_ROWS,
        LAYERS,
    },
    Layout.PADDED: {"input_ids", "attention_mask", "token_type_ids"},
    Layout.ROWS: {"rows"},
}


def feedable(path: Path, layout: Layout, names: Iterable[str]) -> set[str]:
    """A graph's inputs, checked.

    Raises:
        FormatError: Nothing can feed one of them.
    """
    found = set(names)
    if unknown := found - KNOWN_INPUTS[layout]:
        raise FormatError(f"{path}: inputs nothing can feed: {', '.join(sorted(unknown))}")
    return found


def token_output(path: Path | str, names: Iterable[str]) -> str:
    """The output to ask for: token states where there are any, else pooled vectors.

    Raises:
        FormatError: None has a known name.
    """
    found = list(names)
    known = [name for name in (*TOKEN_OUTPUTS, *POOLED_OUTPUTS) if name in found]
    if not known:
        raise FormatError(
            f"{path}: no output named {', '.join((*TOKEN_OUTPUTS, *POOLED_OUTPUTS))}; it has {', '.join(found)}"
        )
    return known[0]


def packed_states(batch: Batch, name: str, output: FloatArray) -> RawOutput:
    """An output as the engine wants it: pooled (B, H), or token states (T, H) without padding."""
    if name in POOLED_OUTPUTS:
        return RawOutput(pooled=output)
    if batch.layout is Layout.PADDED:
        is_token = batch.arrays["attention_mask"].astype(bool)
        return RawOutput(hidden=np.ascontiguousarray(output[is_token]))
    return RawOutput(hidden=output)
