"""Sizes of runs on a device: as batches come, or padded to one of a few that have a CUDA graph. Pure.

Starting the kernels of a small batch one by one takes longer than computing it. A captured CUDA graph starts them all
at once, but for one size only: so small batches are padded with inputs whose results nobody reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# S must be a multiple of this for kernels that add a bias to the scores: of 16 in float32, of 8 in float16.
ROW_STEP: Final = 16
MIN_BUCKET_TOKENS: Final = 16
# A bucket has room for inputs of this many tokens on average.
TOKENS_PER_INPUT: Final = 8
# Sizes double up to here. Larger batches may keep a device busy, where padding costs what it adds.
MAX_DOUBLED_TOKENS: Final = 256
STEP: Final = 1.25


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """Sizes of a run.

    Attributes:
        tokens: T, number of tokens of all inputs.
        inputs: B, number of inputs.
        longest: Most tokens that an input may have.
    """

    tokens: int
    inputs: int
    longest: int

    @property
    def row_length(self) -> int:
        """S: the longest input's tokens, rounded up as some kernels ask."""
        return -(-self.longest // ROW_STEP) * ROW_STEP


def exact_shape(lengths: NDArray[np.int64]) -> Shape:
    """Return the shape of a batch as it is.

    Args:
        lengths: Number of tokens of each input, (B,), int64.
    """
    return Shape(int(lengths.sum()), len(lengths), int(lengths.max()))


def buckets(max_tokens: int, longest: int) -> list[Shape]:
    """Return the sizes to capture, rising: they double at first, then grow by a quarter.

    Args:
        max_tokens: T of the largest; 0 for none.
        longest: Most tokens of an input.
    """
    shapes = []
    tokens = MIN_BUCKET_TOKENS
    while tokens <= max_tokens:
        shapes.append(Shape(tokens, max(2, tokens // TOKENS_PER_INPUT), min(tokens, longest)))
        if tokens < MAX_DOUBLED_TOKENS:
            tokens *= 2
        else:
            tokens = -(-int(tokens * STEP) // ROW_STEP) * ROW_STEP
    return shapes


def bucket_for(lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
    """Return the smallest size that a batch can be padded to; None where it fits into none.

    Args:
        lengths: Number of tokens of each input, (B,), int64.
        shapes: Sizes to choose from, rising.
    """
    tokens, inputs, longest = int(lengths.sum()), len(lengths), int(lengths.max())
    for shape in shapes:
        if shape.tokens < tokens or shape.longest < longest:
            continue
        if inputs + padding_inputs(shape.tokens - tokens, shape.longest) <= shape.inputs:
            return shape
    return None


def padding_inputs(tokens: int, longest: int) -> int:
    """Return how many inputs of padding make up so many tokens, as none may be longer than the longest."""
    return -(-tokens // longest)


def padded_lengths(lengths: NDArray[np.int64], shape: Shape) -> NDArray[np.int64]:
    """Append inputs of padding to a batch's lengths, then zeros.

    Args:
        lengths: Number of tokens of each input, (B,), int64.
        shape: Sizes to fill.

    Returns:
        Lengths (shape.inputs,), int64, whose sum is shape.tokens.

    Raises:
        ValueError: The batch does not fit.
    """
    missing = shape.tokens - int(lengths.sum())
    count = padding_inputs(missing, shape.longest) if missing > 0 else 0
    if missing < 0 or len(lengths) + count > shape.inputs:
        raise ValueError("a batch does not fit into its shape")
    padded = np.zeros(shape.inputs, np.int64)
    padded[: len(lengths)] = lengths
    for number in range(count):
        padded[len(lengths) + number] = min(shape.longest, missing - number * shape.longest)
    return padded


def padded_shape(lengths: NDArray[np.int64], max_tokens: int) -> Shape:
    """Return the shape of a padded batch: rows rounded up, and their number rounded up to a power of two.

    Args:
        lengths: Number of tokens of each input, (B,), int64.
        max_tokens: Most tokens of an input; no row is longer.
    """
    longest = min(-(-int(lengths.max()) // ROW_STEP) * ROW_STEP, max_tokens)
    inputs = 1 << (len(lengths) - 1).bit_length()
    return Shape(inputs * longest, inputs, longest)
