"""Sequences in blocks."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def blocks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield a sequence in slices of at most `size` items, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
