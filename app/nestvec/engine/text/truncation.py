"""Where texts and pairs are cut before and after they are tokenized, and padding that a model reads. Pure."""

from dataclasses import dataclass, replace

import numpy as np

from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.slicing import last_safe_cut
from nestvec.engine.types import IdArray, Truncation
from nestvec.errors import InputError


@dataclass(frozen=True, slots=True)
class TextPadding:
    """How texts are padded, by tokens that the others attend to.

    Attributes:
        tokens: To how many tokens.
        token_id: The id of the token that stands for nothing.
        is_left: Whether it stands before the text; else behind it.
    """

    tokens: int
    token_id: int
    is_left: bool = False

    def padded(self, ids: IdArray) -> IdArray:
        """Return ids, (n,), with padding, (tokens,); longer ones as they are."""
        missing = self.tokens - len(ids)
        if missing <= 0:
            return ids
        around = (missing, 0) if self.is_left else (0, missing)
        return np.pad(ids, around, constant_values=self.token_id)


@dataclass(frozen=True, slots=True)
class IdCutter:
    """Cuts the ids of an input to a limit, around the special tokens, and leaves out those that a model does not take.

    Attributes:
        prefix_tokens: Number of special tokens before a text.
        suffix_tokens: Number of those behind it.
        unknown_id: Id that stands for a text without any token; None if there is none.
        dropped_id: Id of tokens that are left out; None for none.
        padding: How inputs are padded, by tokens that are read; None where they are not.
        end_id: Id with whose first place an input ends; None where it goes on.
    """

    prefix_tokens: int
    suffix_tokens: int
    unknown_id: int | None
    dropped_id: int | None
    padding: TextPadding | None = None
    end_id: int | None = None

    def without_dropped(self, ids: IdArray) -> IdArray:
        """Return the ids but for those of tokens that are left out."""
        return ids if self.dropped_id is None else ids[ids != self.dropped_id]

    def padded(self, ids: IdArray) -> IdArray:
        """Return the ids with the padding that the model reads."""
        return ids if self.padding is None else self.padding.padded(ids)

    def encoded(
        self,
        ids: IdArray,
        options: TokenizeOptions,
        max_length: int,
        index: int,
        *,
        is_lower_bound: bool,
    ) -> Encoded:
        """Return an input of a text's tokens, without those that are left out, cut to the limit as `cut` does."""
        kept = self.without_dropped(ids)
        cut = self.cut(kept, options, max_length, index, is_lower_bound=is_lower_bound)
        left_out = len(ids) - len(kept)
        if not left_out:
            return cut
        return replace(cut, unseen_unknown=cut.unseen_unknown + left_out)

    def cut(
        self,
        ids: IdArray,
        options: TokenizeOptions,
        max_length: int,
        index: int,
        *,
        is_lower_bound: bool = False,
    ) -> Encoded:
        """Cut ids to `max_length`, keeping the special tokens at both ends.

        Raises:
            InputTooLongError: They are too many and truncation is off; names the index and both numbers.
            InputError: There are none.
        """
        if self.end_id is not None:
            ids = ids[: _first_place(ids, self.end_id) + 1]
        excess = len(ids) - max_length
        if not len(ids) and not options.allows_nothing:
            if self.unknown_id is None:
                raise InputError("this input has no token", param="input", input_index=index)
            stand_in = np.array([self.unknown_id], np.int32)
            return Encoded(self.padded(stand_in), is_truncated=False, unseen_unknown=-1)
        options.check_length(len(ids), max_length, index, is_lower_bound=is_lower_bound)
        if excess <= 0:
            return Encoded(self.padded(ids), is_truncated=False)
        adds_special = options.adds_special_tokens
        start = self.prefix_tokens if adds_special else 0
        stop = len(ids) - (self.suffix_tokens if adds_special else 0)
        cuts_start = options.truncate is Truncation.START
        kept = ids[start + excess : stop] if cuts_start else ids[start : stop - excess]
        return Encoded(
            self.padded(np.concatenate([ids[:start], kept, ids[stop:]])),
            is_truncated=True,
            dropped_tokens=excess,
            drops_more=is_lower_bound,
        )


def _first_place(ids: IdArray, token_id: int) -> int:
    """Return where an id stands first; the last place where it stands nowhere."""
    places = np.flatnonzero(ids == token_id)
    return int(places[0]) if len(places) else len(ids) - 1


def longest_first(first: int, second: int, max_tokens: int) -> tuple[int, int]:
    """How many tokens of each text of a pair are kept, so that the longer one loses first.

    This is the `tokenizers` library's own rule, reimplemented because the library keeps its truncation as state that
    concurrent calls would share.

    Args:
        first: Number of tokens of the first text.
        second: Number of tokens of the second text.
        max_tokens: Number of tokens that both may have together.
    """
    shorter, longer = sorted((first, second))
    longer = max(shorter, max_tokens - shorter) if shorter <= max_tokens else shorter
    if shorter + longer > max_tokens:
        shorter = max_tokens // 2
        longer = shorter + max_tokens % 2
    return (longer, shorter) if first > second else (shorter, longer)


def leading_words(text: str, chars: int) -> str:
    """The whole words in the first `chars` characters; the whole text if it is little longer or cannot be cut there."""
    if len(text) < 1.5 * chars:
        return text
    end = last_safe_cut(text, chars)
    return text if end is None else text[:end]


def lengths_tell_order(first: int, second: int, max_tokens: int) -> bool:
    """Whether `longest_first` gives the same for all greater numbers, so that texts need not be counted to their ends.

    Where both are beyond `max_tokens` each has half of it; an odd token goes to the longer text.
    """
    return max_tokens % 2 == 0 or min(first, second) <= max_tokens
