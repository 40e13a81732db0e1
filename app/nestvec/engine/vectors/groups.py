"""Groups: consecutive inputs of a call that make one vector together, each with a weight. Pure.

A query and its expansions, a document and its parts, or relevance feedback, where what is to be kept away from has a
negative weight (Rocchio, The SMART Retrieval System, 1971, chapter 14).
"""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import InputError

GROUPS: Final = "groups"
WEIGHTS: Final = "weights"
# A weighted sum that is shorter than this, in shares of the weights' sum, is what rounding has left.
MIN_NORM: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Groups:
    """Which inputs of a call make a vector together.

    Attributes:
        sizes: How many consecutive inputs each group has, at least one; all together as many as the call has.
        weights: The weight of each input; empty where all weigh the same. Some may be negative, if those of a group
            sum to more than zero.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def check(self, inputs: int) -> None:
        """Refuse groups that do not fit a call.

        Args:
            inputs: How many inputs the call has.

        Raises:
            InputError: Names the field, and the place in it where there is one.
        """
        small = next((index for index, size in enumerate(self.sizes) if size < 1), None)
        if small is not None:
            raise InputError("a group has at least one input", param=GROUPS, input_index=small)
        if sum(self.sizes) != inputs:
            raise InputError(
                f"'{GROUPS}' must add up to the number of inputs, {inputs}, and comes to {sum(self.sizes)}",
                param=GROUPS,
            )
        if not self.weights:
            return
        if len(self.weights) != inputs:
            raise InputError(
                f"'{WEIGHTS}' must hold a weight for each of the {inputs} inputs, and holds {len(self.weights)}",
                param=WEIGHTS,
            )
        wrong = next(
            (n for n, weight in enumerate(self.weights) if not math.isfinite(weight)), None
        )
        if wrong is not None:
            raise InputError("a weight must be finite", param=WEIGHTS, input_index=wrong)
        sums = np.add.reduceat(self._scaled(), self._starts())
        if (sums <= 0).any():
            raise InputError(
                f"the weights of group {int(np.argmax(sums <= 0))} must sum to more than zero: a weight may be "
                "negative, to lead away from a text, where the others outweigh it",
                param=WEIGHTS,
            )

    def part(self, start: int, stop: int) -> "Groups":
        """Return the groups from one to before another, with their inputs' weights."""
        first, last = sum(self.sizes[:start]), sum(self.sizes[:stop])
        return Groups(self.sizes[start:stop], self.weights[first:last])

    def combine(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vector of each group: the weighted sum of its inputs' unit vectors, at unit length.

        Args:
            vectors: The inputs' vectors, of any length, (B, D), float32.

        Returns:
            (G, D), float32. Where all vectors of a group are zeros, so is its own.

        Raises:
            InputError: The vectors of a group cancel each other out; names the group.
        """
        wide = vectors.astype(np.float64)
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        wide *= self._scaled()[:, None] / np.where(norms > 0, norms, 1)
        sums = np.add.reduceat(wide, self._starts(), axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        shares = np.add.reduceat(np.abs(self._scaled()) * (norms[:, 0] > 0), self._starts())
        lost = (lengths[:, 0] <= MIN_NORM * shares) & (shares > 0)
        if lost.any():
            raise InputError(
                "the vectors of this group cancel each other out; change its weights",
                param=GROUPS,
                input_index=int(np.argmax(lost)),
            )
        unit: NDArray[np.float32] = (sums / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return unit

    def _scaled(self) -> NDArray[np.float64]:
        """The weights, (B,), such that the greatest of a group is 1: no sum of them overflows."""
        if not self.weights:
            return np.ones(sum(self.sizes))
        weights = np.asarray(self.weights, np.float64)
        greatest = np.maximum.reduceat(np.abs(weights), self._starts())
        return np.asarray(weights / np.repeat(np.where(greatest > 0, greatest, 1), self.sizes))

    def _starts(self) -> NDArray[np.int64]:
        """Index of the first input of each group, (G,)."""
        sizes = np.asarray(self.sizes, np.int64)
        return np.asarray(np.cumsum(sizes) - sizes)


def whole_groups(sizes: Sequence[int], most: int) -> int:
    """Return how many groups from the first on come to no more than so many inputs; at least one."""
    sums = list(itertools.accumulate(sizes))
    return max(1, bisect.bisect_right(sums, most))


def is_of_group(error: InputError) -> bool:
    """Return whether the index of a refusal is that of a group, also of one that a server has told of."""
    return (error.param or "").startswith(GROUPS)
