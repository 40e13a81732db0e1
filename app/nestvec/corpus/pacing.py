"""How much is asked for at a time: sizes of calls by tokens and by the rate that is observed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nestvec.engine.pictures.picture import Picture

# Until a model has told: four bytes of UTF-8 a token, as English has; other scripts have about the same.
FIRST_TOKENS_PER_BYTE: Final = 0.25
# How much of what is known a new observation replaces, where it would make calls larger.
WEIGHT: Final = 0.5
# The patches of a picture, of the commonest size.
PICTURE_TOKENS: Final = 197.0
# Of one call: their files are in memory, and in the body of a request.
MAX_PICTURES: Final = 64
PICTURE_BYTES: Final = 4 * 1024 * 1024
GROWTH: Final = 2.0


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """What calls are kept within.

    Attributes:
        target_s: How long a call should take, in seconds, the others in flight counted in.
        in_flight: How many calls run at once, after the first.
        first_tokens: Size of the first call, in tokens, when no rate is known.
        max_tokens: Size of the largest call, in tokens.
        max_texts: Most texts of a call.
    """

    target_s: float
    in_flight: int
    first_tokens: int
    max_tokens: int
    max_texts: int


class CallPacer:
    """Sizes calls so that each takes about as long as wanted, whatever the model and the machine.

    The first call is small and alone. A call that took too long makes the next ones smaller at once; fast ones make
    them larger step by step.

    Args:
        limits: What calls are kept within.
        clock: Monotonic seconds.
    """

    def __init__(self, limits: PaceLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self.clock = clock
        self._tokens_per_byte = FIRST_TOKENS_PER_BYTE
        self._size_tokens = float(limits.first_tokens)
        self._has_observed = False
        # Most tokens that the model reads of a text.
        self.tokens_per_text = limits.max_tokens

    @property
    def in_flight(self) -> int:
        """How many calls may run at once."""
        return self._limits.in_flight if self._has_observed else 1

    @property
    def size_tokens(self) -> float:
        """Size of the next call, in estimated tokens."""
        return self._size_tokens

    @property
    def max_texts(self) -> int:
        """Most texts of a call."""
        return self._limits.max_texts

    def estimate(self, text: str | Picture, *, is_whole: bool = False) -> float:
        """Return about how many tokens the model will read of a text; of all of it, where it will be cut.

        A picture counts for its share of what a call may hold of pictures, at least.
        """
        if isinstance(text, Picture):
            share = max(1 / MAX_PICTURES, len(text.data) / PICTURE_BYTES)
            return max(PICTURE_TOKENS, self._size_tokens * share)
        size_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        tokens = max(1.0, size_bytes * self._tokens_per_byte)
        return tokens if is_whole else min(self.tokens_per_text, tokens)

    def take(self, texts: Sequence[str | Picture], start: int = 0) -> int:
        """Return how many of the texts from `start` make up the next call: at least one, if there is one."""
        sizes = [self.estimate(text) for text in texts[start : start + self._limits.max_texts]]
        if sum(sizes) <= 2 * self._size_tokens:  # a small rest is not left for a call of its own
            return len(sizes)
        tokens = 0.0
        for count, size in enumerate(sizes, start=1):
            tokens += size
            if tokens >= self._size_tokens:
                return count
        return len(sizes)

    def done(self, texts: Sequence[str | Picture], tokens: int, took_s: float) -> None:
        """Learn from a call that has ended.

        Args:
            texts: The call's texts and pictures.
            tokens: How many tokens the model read of them.
            took_s: How long it took, in seconds.
        """
        estimated = sum(map(self.estimate, texts))
        if estimated and tokens and Picture not in set(map(type, texts)):
            ratio = min(4.0, max(0.25, tokens / estimated))
            self._tokens_per_byte *= 1 + WEIGHT * (ratio - 1)
        ideal = tokens * self._limits.target_s / max(took_s, 1e-6)
        if not self._has_observed:
            # The others in flight will share what this call had alone.
            ideal /= self._limits.in_flight
            self._has_observed = True
        if ideal < self._size_tokens:
            self._size_tokens = ideal
        elif tokens > self._size_tokens / 2:  # what was far smaller says little of larger ones
            self._size_tokens += WEIGHT * (
                min(ideal, GROWTH * self._size_tokens * 2) - self._size_tokens
            )
        self._keep_bounds()

    def too_much(self, texts: Sequence[str | Picture]) -> None:
        """Learn that a call was more than could be done: the next ones are at most half of it."""
        self._has_observed = True
        self._size_tokens = min(self._size_tokens, sum(map(self.estimate, texts)) / 2)
        self._keep_bounds()

    def _keep_bounds(self) -> None:
        self._size_tokens = min(float(self._limits.max_tokens), max(1.0, self._size_tokens))
