"""Sizes of what runs on a device: as they come, or filled up to one of a few that are captured once. Pure.

A small batch costs a device less than starting its kernels one by one does. A captured graph starts them all at once,
but for one size only: so small batches are filled up, with inputs of nothing but padding that nobody reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

ROW_STEP: Final = 16  # what kernels with a bias on scores ask of S, in float32; 8 in float16
LEAST_BUCKET_TOKENS: Final = 16
TOKENS_AN_INPUT: Final = 8  # a bucket has room for so short inputs


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """Sizes of a run.

    Attributes:
        tokens: T.
        inputs: B.
        longest: The most tokens of an input.
    """

    tokens: int
    inputs: int
    longest: int

    @property
    def row(self) -> int:
        """S: the longest, rounded up as some kernels ask."""
        return -(-self.longest // ROW_STEP) * ROW_STEP


def exact_shape(lengths: NDArray[np.int64]) -> Shape:
    """Of a batch as it is, (B,)."""
    return Shape(int(lengths.sum()), len(lengths), int(lengths.max()))


def buckets(max_tokens: int, longest: int) -> list[Shape]:
    """Sizes to capture, powers of two.

    Args:
        max_tokens: T of the largest; 0 for none.
        longest: The most tokens of an input.
    """
    found = []
    tokens = LEAST_BUCKET_TOKENS
    while tokens <= max_tokens:
        found.append(Shape(tokens, max(2, tokens // TOKENS_AN_INPUT), min(tokens, longest)))
        tokens *= 2
    return found


def bucket_for(lengths: NDArray[np.int64], shapes: Iterable[Shape]) -> Shape | None:
    """The smallest size that a batch can be filled up to; None where it fits into none.

    Args:
        lengths: Of its inputs, (B,).
        shapes: Rising.
    """
    tokens, inputs, longest = int(lengths.sum()), len(lengths), int(lengths.max())
    for shape in shapes:
        if shape.tokens < tokens or shape.longest < longest:
            continue
        if inputs + paddings(shape.tokens - tokens, shape.longest) <= shape.inputs:
            return shape
    return None


def paddings(tokens: int, longest: int) -> int:
    """How many inputs of padding make up so many tokens: none may be longer than any input."""
    return -(-tokens // longest)


def filled_up(lengths: NDArray[np.int64], shape: Shape) -> NDArray[np.int64]:
    """Lengths with those of padding behind, then zeros: (shape.inputs,), summing to shape.tokens.

    Raises:
        ValueError: They do not fit.
    """
    left = shape.tokens - int(lengths.sum())
    count = paddings(left, shape.longest) if left > 0 else 0
    if left < 0 or len(lengths) + count > shape.inputs:
        raise ValueError("a batch does not fit into its shape")
    found = np.zeros(shape.inputs, np.int64)
    found[: len(lengths)] = lengths
    for number in range(count):
        found[len(lengths) + number] = min(shape.longest, left - number * shape.longest)
    return found


def padded_shape(lengths: NDArray[np.int64], most: int) -> Shape:
    """Of a padded batch, (B,): rows rounded up to at most an input's tokens, their number to a power of two."""
    longest = min(-(-int(lengths.max()) // ROW_STEP) * ROW_STEP, most)
    inputs = 1 << (len(lengths) - 1).bit_length()
    return Shape(inputs * longest, inputs, longest)


def padded_buckets(max_tokens: int, longest: int) -> list[Shape]:
    """Sizes of padded batches to capture: rows and their length in powers of two, up to so many cells."""
    found = []
    row = LEAST_BUCKET_TOKENS
    rows = {longest}
    while row < longest:
        rows.add(row)
        row *= 2
    for length in sorted(rows):
        inputs = 1
        while inputs * length <= max_tokens:
            found.append(Shape(inputs * length, inputs, length))
            inputs *= 4
    return sorted(found)


def padded_bucket_for(
    lengths: NDArray[np.int64], shapes: Iterable[Shape], most: int
) -> Shape | None:
    """The smallest of those that a padded batch fits into; None where it fits into none, or would be mostly padding."""
    inputs, longest = len(lengths), int(lengths.max())
    fitting = (one for one in shapes if one.inputs >= inputs and one.longest >= longest)
    found = min(fitting, default=None)
    exact = padded_shape(lengths, most)
    return found if found is not None and found.tokens <= 4 * exact.tokens else None
