"""Inputs as token ids, and how they are made to fit: what a tokenizer takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Chunk, IdArray, Truncation
from nestvec.errors import InputTooLongError


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input as the model will see it.

    Attributes:
        ids: (n,), int32, special tokens included.
        is_truncated: Whether tokens were cut off.
        skip_tokens: Leading tokens that belong to a prompt.
        spans: Parts that are pooled each for itself, as (start, stop); none: the whole.
        second_start: Where the second text of a pair begins; 0 for single texts, and where the model has no types.
        expansion: Trailing tokens that are not seen by the others.
        token_mask: Which tokens' vectors count, (n,), bool; None for all.
        dropped_tokens: How many were cut off.
        drops_more: Whether that is the least, since only a leading part was tokenised.
        chunks: Of a document that was cut here, where its spans lie in characters.
        windows: Where it was too long and read in overlapping parts: each of them, which run in its place.
    """

    ids: IdArray
    is_truncated: bool
    skip_tokens: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    second_start: int = 0
    expansion: int = 0
    token_mask: NDArray[np.bool_] | None = None
    dropped_tokens: int = 0
    drops_more: bool = False
    chunks: tuple[Chunk, ...] = ()
    windows: "Windows | None" = None


@dataclass(frozen=True, slots=True)
class Windows:
    """How an input was cut into overlapping windows.

    Attributes:
        parts: Each window as the model sees it, with the special tokens (and the prompt) around it.
        bounds: Of each, in the input's own tokens.
        lead: Tokens before each window; `tail` behind.
    """

    parts: tuple[Encoded, ...]
    bounds: tuple[tuple[int, int], ...]
    lead: int
    tail: int

    @property
    def tokens(self) -> int:
        """Tokens run, those in several windows as often."""
        return sum(len(part.ids) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Fit:
    """How ids are made to fit.

    Attributes:
        truncate: What to do beyond `max_tokens`.
        max_tokens: Fewer than the model takes, special tokens included; None: as many.
        adds_special: Whether texts get the model's special tokens.
        prefix: A prompt put before each text.
        max_second_tokens: Fewer of a pair's second text; None: as many as fit.
    """

    truncate: Truncation
    max_tokens: int | None = None
    adds_special: bool = True
    prefix: str = ""
    max_second_tokens: int | None = None

    def check(self, tokens: int, room: int, index: int, *, is_lower_bound: bool) -> None:
        """Refuse an input beyond the limit, where nothing is to be cut off.

        Args:
            tokens: Of the input.
            room: The limit.
            index: Of the input.
            is_lower_bound: Whether only a leading part was counted.

        Raises:
            InputTooLongError: Names the index and both numbers.
        """
        if self.truncate is Truncation.ERROR and (tokens > room or is_lower_bound):
            raise InputTooLongError(
                got_tokens=max(tokens, room + 1),
                limit_tokens=room,
                input_index=index,
                is_lower_bound=is_lower_bound,
            )


@dataclass(frozen=True, slots=True)
class TokenCount:
    """What a text was cut into, special tokens apart.

    Attributes:
        words: Runs of letters and figures.
        whole_words: Those that are one token, and not an unknown one.
        unknown: Tokens that stand for what the vocabulary lacks, fallback bytes included.
    """

    ids: Sequence[int]
    words: int
    whole_words: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text, for people.

    Attributes:
        text: The part of the text it stands for; a special token's own spelling.
        start: Where that part starts and stops in the text, in characters; None for special tokens.
    """

    id: int
    text: str
    is_special: bool
    start: int | None
    stop: int | None
