"""Names of the inputs and outputs that graphs may have, whatever runs them. Pure."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import FormatError

TOKEN_OUTPUTS: Final = ("hidden", "last_hidden_state", "token_embeddings")
POOLED_OUTPUTS: Final = ("pooled", "sentence_embedding")
# Chooses the attention. It depends on the machine, so the backend feeds it and not collation.
SHORT_ROWS: Final = "has_short_rows"
# How many layers to run. The graph says in its metadata how many there are, and may give the states of earlier layers.
LAYERS: Final = "layers"
LAYERS_PROPERTY: Final = "nestvec.layers"
EXIT: Final = "exit_"
# Inputs that can be fed; a graph that needs others is refused at start, not at the first request.
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
    """Return the names of a graph's inputs as a set, all of which can be fed.

    Raises:
        FormatError: Nothing can feed one of them.
    """
    inputs = set(names)
    if unknown := inputs - KNOWN_INPUTS[layout]:
        raise FormatError(f"{path}: inputs nothing can feed: {', '.join(sorted(unknown))}")
    return inputs


def token_output(path: Path | str, names: Iterable[str]) -> str:
    """Return the name of the output to ask for: token states where there are any, else pooled vectors.

    Raises:
        FormatError: No output has a known name.
    """
    outputs = list(names)
    known = [name for name in (*TOKEN_OUTPUTS, *POOLED_OUTPUTS) if name in outputs]
    if not known:
        raise FormatError(
            f"{path}: no output named {', '.join((*TOKEN_OUTPUTS, *POOLED_OUTPUTS))}; it has {', '.join(outputs)}"
        )
    return known[0]


def packed_states(batch: Batch, name: str, output: FloatArray) -> RawOutput:
    """Return an output as the engine wants it: pooled vectors (B, H), or token states (T, H) without padding."""
    if name in POOLED_OUTPUTS:
        return RawOutput(pooled=output)
    if batch.layout is Layout.PADDED:
        is_token = batch.arrays["attention_mask"].astype(bool)
        return RawOutput(hidden=np.ascontiguousarray(output[is_token]))
    return RawOutput(hidden=output)
