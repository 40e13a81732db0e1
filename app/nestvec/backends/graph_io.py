"""Names of the inputs and outputs that graphs may have, whatever runs them. Pure."""

import json
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.attention_blocks import BLOCK_INPUTS, AttentionBlocks
from nestvec.engine.backend import AttentionKind
from nestvec.engine.core.prefix_backend import PICTURE_ROWS
from nestvec.engine.types import Batch, FloatArray, Layout, RawOutput
from nestvec.errors import FormatError

# The last is of graphs to calibrate by: [3, C] instead of a row a token.
TOKEN_OUTPUTS: Final = ("hidden", "last_hidden_state", "token_embeddings", "ranges")
POOLED_OUTPUTS: Final = ("pooled", "sentence_embedding")
EQUAL_LENGTHS: Final = "has_equal_lengths"
# Chooses the attention. It depends on the machine, so the backend feeds it and not collation.
SHORT_ROWS: Final = "has_short_rows"
PIXELS: Final = "pixels"  # of pictures
GRIDS: Final = "grids"  # of pictures in their own shapes
# Of pictures among a decoder's tokens: places of patches, and of tokens, and the rows that stand for the latter.
PATCH_GRID: Final = "patch_grid"
TOKEN_AXES: Final = "axes"  # noqa: S105 - of a graph
PICTURE_PLACES: Final = "picture_places"
# How many layers to run. The graph says in its metadata how many there are, and may give the states of earlier layers.
LAYERS: Final = "layers"
LAYERS_PROPERTY: Final = "nestvec.layers"
EXIT: Final = "exit_"
# What the layers compute, which decides what batches cost, and the window that is laid out in blocks.
KINDS_PROPERTY: Final = "nestvec.attention"
WINDOW_PROPERTY: Final = "nestvec.window"
# Inputs that can be fed; a graph that needs others is refused at start, not at the first request.
KNOWN_INPUTS: Final = {
    Layout.PACKED: {
        "ids",
        "positions",
        "gather",
        "scatter",
        "lengths",
        EQUAL_LENGTHS,
        "types",
        SHORT_ROWS,
        LAYERS,
        PIXELS,
        GRIDS,
        PATCH_GRID,
        TOKEN_AXES,
        PICTURE_PLACES,
        PICTURE_ROWS,
        *BLOCK_INPUTS,
    },
    Layout.PADDED: {"input_ids", "attention_mask", "token_type_ids"},
    Layout.ROWS: {"rows"},
}


def attention_kinds(metadata: Mapping[str, str]) -> tuple[AttentionKind, ...]:
    """Return what a graph's layers compute, as its metadata says; empty where it does not."""
    rows = json.loads(metadata.get(KINDS_PROPERTY, "[]"))
    return tuple(AttentionKind(layers, window, is_causal) for layers, window, is_causal in rows)


def attention_blocks(metadata: Mapping[str, str], inputs: Set[str]) -> AttentionBlocks | None:
    """Return how a graph's windows are laid out in blocks; None where they are not."""
    window = metadata.get(WINDOW_PROPERTY)
    if window is None or not inputs >= BLOCK_INPUTS:
        return None
    return AttentionBlocks.parse(window, has_branches=EQUAL_LENGTHS in inputs)


def feedable(path: Path, layout: Layout, names: Iterable[str]) -> set[str]:
    """Return the names of a graph's inputs as a set, all of which can be fed.

    Raises:
        FormatError: Nothing can feed one of them.
    """
    inputs = set(names)
    if unknown := inputs - KNOWN_INPUTS[layout]:
        raise FormatError(f"{path}: inputs nothing can feed: {', '.join(sorted(unknown))}")
    return inputs


def feeds_of(
    batch: Batch, inputs: Set[str], blocks: AttentionBlocks | None
) -> dict[str, NDArray[Any]]:
    """Return what a graph is fed of a batch, by its inputs' names.

    Args:
        batch: The batch.
        inputs: Names of the graph's inputs.
        blocks: How its windows are laid out in blocks; None where they are not.
    """
    feeds = {name: batch.arrays[name] for name in inputs if name in batch.arrays}
    if blocks is not None:
        feeds.update(blocks.arrays(batch.lengths, batch.arrays["lengths"]))
    return feeds


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
