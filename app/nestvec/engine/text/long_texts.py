"""Long texts to tokens, in slices: exactly the tokens of the whole, of which no more are made than a cut needs.

A text of few tokens may have millions of characters (blanks, or a word that no vocabulary holds), so that nothing but
tokenizing tells what is left of it after truncation. What cannot be told is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.settling import nudges_of
from nestvec.engine.text.slicing import SafeCuts, Slice, slices, slices_from_end
from nestvec.engine.text.tokenizer_library import GuardedLibrary
from nestvec.engine.text.truncation import lengths_tell_order
from nestvec.engine.types import IdArray, Pair, Truncation
from nestvec.errors import DeadlineError, InputError, RequestTooLargeError

# How much is tokenized between two looks at the clock: at most two tenths of a second.
SLICE_CHARS: Final = 100_000
# How much of one text is read: about ten seconds of work, and half as much again in the worst case.
MAX_CHARS: Final = 10_000_000
# How much is read where a text cannot be cut safely: nothing stops the library within a call of it, and work must end
# within a second of its deadline.
MAX_STRETCH_CHARS: Final = 600_000
# Where a text cannot be cut safely for longer than two slices, its first so many characters are tokenized, then so many
# times more, …
FIRST_CHARS: Final = 8_000
GROWTH: Final = 4
# … until the tokens wanted are there and so many more, since a cut within a word changes tokens before it (WordPiece
# has one unknown token for a word of over 100 characters), and are the same wherever the part could end (`settling`).
MARGIN_TOKENS: Final = 256
NUDGES_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Goal:
    """How much of a text is wanted.

    Attributes:
        tokens: Number of tokens without special ones that settle what is asked; None for all of the text.
        from_end: Whether the last tokens are wanted rather than the first.
        count_chars: Tokens are counted in this many characters at least, be it settled or not.
    """

    tokens: int | None
    from_end: bool = False
    count_chars: int = 0


@dataclass(frozen=True, slots=True)
class ReadText:
    """What was read of a text.

    Attributes:
        encoding: Its tokens without special ones; those at the end that is not wanted may be others than the text has.
        tokens: How many of them are sure: the first ones, or the last.
        start: Index of the first of those.
        chars: How many characters of the text were read: the first ones, or the last.
        is_whole: Whether they are all tokens of the text.
    """

    encoding: Encoding
    tokens: int
    chars: int
    is_whole: bool
    start: int = 0

    def limited(self, max_tokens: int) -> "ReadText":
        """The text as if it ended after its first `max_tokens`, of which it has been read at least as far."""
        return ReadText(self.encoding, min(self.tokens, max_tokens), self.chars, is_whole=True)


class LongTextEncoder:
    """Tokenizes texts in slices; safe to call from several threads.

    Args:
        library: The tokenizer's library.
        cuts: Where its texts can be cut.
        dropped_id: Id of tokens that do not count; None if all do.
    """

    def __init__(self, library: GuardedLibrary, cuts: SafeCuts, dropped_id: int | None) -> None:
        self._library = library
        self._cuts = cuts
        self._dropped_id = dropped_id

    @cached_property
    def _nudges(self) -> Sequence[int] | None:
        """By how many characters a part is shortened; None where its tokens cannot be told from it."""
        return nudges_of(self._library, MARGIN_TOKENS)

    def encode(self, text: str, goal: Goal, options: TokenizeOptions, index: int) -> ReadText:
        """Tokenize a text as far as is wanted.

        Args:
            text: The text, the prompt before it.
            goal: How much of it is wanted.
            options: Whose ticket and budget count.
            index: The input's index, for errors.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline passed, or would pass before the text is tokenized.
            RequestTooLargeError: More of the text would have to be read than is.
        """
        if not text:
            return ReadText(self._encode([text])[0], 0, 0, is_whole=True)
        cut = slices_from_end if goal.from_end else slices
        parts: list[ReadText] = []
        count = chars = 0
        is_whole = True
        for part in cut(text, self._cuts, SLICE_CHARS, MAX_CHARS):
            options.check_going_on()
            wanted = None if goal.tokens is None else max(0, goal.tokens - count)
            is_open = part.is_open or part.chars > MAX_STRETCH_CHARS
            if wanted == 0 and (chars >= goal.count_chars or is_open):
                is_whole = False
                break
            if is_open and wanted is None:
                raise too_many_chars(text, index)
            readable = _end_of(text[part.start : part.stop], MAX_STRETCH_CHARS, goal)
            read = self._encode_slice(readable, wanted, goal, options)
            if is_open and read.is_whole:
                raise too_many_chars(text, index)
            parts.append(read)
            count += len(self._counted(read.encoding))
            chars += read.chars
            is_whole = read.is_whole
            if not is_whole:
                break
        if goal.from_end:
            parts.reverse()
        encoding = Encoding.merge([part.encoding for part in parts])
        tokens = sum(part.tokens for part in parts)
        start = len(encoding) - tokens if goal.from_end else 0
        return ReadText(encoding, tokens, chars, is_whole, start)

    def whole_slices(self, text: str, options: TokenizeOptions, index: int) -> Iterator[Slice]:
        """Yield the slices of a text of which all is tokenized.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline passed.
            RequestTooLargeError: The text has more characters than are read, or than are read without a cut.
        """
        for part in slices(text, self._cuts, SLICE_CHARS, MAX_CHARS):
            options.check_going_on()
            if part.is_open or part.chars > MAX_STRETCH_CHARS:
                raise too_many_chars(text, index)
            yield part

    def whole(self, text: str, options: TokenizeOptions, index: int) -> IdArray:
        """Tokenize all of a text, without special tokens; (n,), int32.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline passed.
            RequestTooLargeError: The text has more characters than are read, or than are read without a cut.
        """
        parts = [np.zeros(0, np.int32)]
        for part in self.whole_slices(text, options, index):
            (encoding,) = self._encode([text[part.start : part.stop]])
            parts.append(np.asarray(encoding.ids, np.int32))
        return np.concatenate(parts)

    def whole_with_starts(
        self, text: str, options: TokenizeOptions, index: int
    ) -> tuple[IdArray, NDArray[np.int64]]:
        """Tokenize all of a text as `whole_with_spans` does; gives the ids and where their tokens start, (n,)."""
        ids, spans = self.whole_with_spans(text, options, index)
        return ids, spans[:, 0]

    def whole_with_spans(
        self, text: str, options: TokenizeOptions, index: int
    ) -> tuple[IdArray, NDArray[np.int64]]:
        """Tokenize all of a text, and tell where its tokens lie.

        Returns:
            The ids, (n,), and where each token starts and stops in the text, in characters, (n, 2), neither of which
            ever falls.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline passed.
            RequestTooLargeError: The text has more characters than are read, or than are read without a cut.
        """
        ids, spans = [np.zeros(0, np.int32)], [np.zeros((0, 2), np.int64)]
        for part in self.whole_slices(text, options, index):
            texts = [text[part.start : part.stop]]
            (encoding,) = self._library.encode_batch(texts, add_special_tokens=False)
            ids.append(np.asarray(encoding.ids, np.int32))
            spans.append(np.array(encoding.offsets, np.int64).reshape(-1, 2) + part.start)
        # Parts of one character may be said to start one behind the other's end.
        return np.concatenate(ids), np.maximum.accumulate(np.concatenate(spans))

    def check_prompt(self, options: TokenizeOptions, max_length: int) -> None:
        """Refuse a prompt that leaves no room for any text in `max_length` tokens.

        Raises:
            InputError: It leaves none, or is longer than is read.
        """
        wanted = max_length + MARGIN_TOKENS
        try:
            read = self.encode(options.prompt, Goal(wanted), options, 0)
        except RequestTooLargeError as error:
            raise InputError("the prompt is longer than is read", param="prompt") from error
        if read.tokens >= wanted:
            raise InputError(
                f"the prompt leaves no room for a text: it has at least {read.tokens} tokens, and an input at most "
                f"{max_length} with it",
                param="prompt",
                code="context_length_exceeded",
            )

    def encode_pair(
        self, pair: Pair, max_tokens: int, options: TokenizeOptions, index: int
    ) -> tuple[ReadText, ReadText]:
        """Tokenize two texts as far as cutting them to `max_tokens` together needs, the longer one first.

        Raises:
            DeadlineError: The deadline passed, or would pass before they are tokenized.
            RequestTooLargeError: More of a text would have to be read than is.
        """
        goal = goal_of(options, max_tokens, 0)
        max_second = options.max_second_tokens
        first = self.encode(pair.first, goal, options, index)
        if max_second is not None:
            second = self.encode(pair.second, Goal(max_second), options, index).limited(max_second)
        else:
            second = self.encode(pair.second, goal, options, index)
        is_whole = first.is_whole and second.is_whole
        if not is_whole and not lengths_tell_order(first.tokens, second.tokens, max_tokens):
            # Which of the two is longer decides on one token.
            everything = replace(goal, tokens=None)
            first = self.encode(pair.first, everything, options, index)
            if not second.is_whole:
                second = self.encode(pair.second, everything, options, index)
        return first, second

    def _encode_slice(
        self, text: str, wanted: int | None, goal: Goal, options: TokenizeOptions
    ) -> ReadText:
        """Tokenize a slice; one that is very long no further than is wanted."""
        size = FIRST_CHARS
        spent_s = 0.0
        if wanted is not None and len(text) > 2 * SLICE_CHARS and self._nudges is None:
            wanted = None
        while True:
            options.ticket.check()
            left_s = options.ticket.seconds_left()
            if left_s is not None and left_s < spent_s * GROWTH:
                raise DeadlineError("The deadline would pass before this input is tokenized.")
            # Beyond this, showing that a part settles the tokens costs as much as tokenizing all of the text.
            parts_chars = size * (1 + len(self._nudges or ()))
            if wanted is None or len(text) <= max(2 * SLICE_CHARS, parts_chars):
                (encoding,) = self._encode([text])
                return ReadText(encoding, len(encoding), len(text), is_whole=True)
            (encoding,) = self._encode([_end_of(text, size, goal)])
            settled = self._settled(encoding, text, size, wanted, goal)
            if settled is not None:
                return ReadText(encoding, settled, size, is_whole=False)
            if left_s is not None:
                spent_s = left_s - (options.ticket.seconds_left() or 0.0)
            size *= GROWTH

    def _settled(
        self, encoding: Encoding, text: str, size: int, wanted: int, goal: Goal
    ) -> int | None:
        """With how many tokens of a part that ends anywhere the wanted ones are there; None if that cannot be told."""
        counted = self._counted(encoding)
        if len(counted) < wanted + MARGIN_TOKENS:
            return None
        tokens = 0
        if wanted:
            tokens = len(encoding) - counted[-wanted] if goal.from_end else counted[wanted - 1] + 1
        kept = slice(len(encoding) - tokens, None) if goal.from_end else slice(tokens)
        ids = encoding.ids[kept]
        nudges = self._nudges or ()
        for start in range(0, len(nudges), NUDGES_AT_ONCE):
            shorter = [size - nudge for nudge in nudges[start : start + NUDGES_AT_ONCE]]
            for other in self._encode([_end_of(text, chars, goal) for chars in shorter]):
                first = max(0, len(other.ids) - tokens) if goal.from_end else 0
                if other.ids[first : first + tokens] != ids:
                    return None
        return tokens

    def _counted(self, encoding: Encoding) -> Sequence[int]:
        """The positions of the tokens that count."""
        if self._dropped_id is None:
            return range(len(encoding))
        positions: list[int] = np.flatnonzero(np.asarray(encoding.ids) != self._dropped_id).tolist()
        return positions

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self._library.encode_batch_fast(texts, add_special_tokens=False)


def cut_pair(
    whole: Encoding, texts: Sequence[ReadText], kept: Sequence[int], *, from_end: bool
) -> tuple[list[int], list[int]]:
    """Cut two texts behind the library's back, which would keep what is cut off, in all its combinations.

    Args:
        whole: All tokens of both, special tokens included.
        texts: The texts.
        kept: How many tokens of each are kept.
        from_end: Whether those are the last ones.

    Returns:
        The ids and the type ids of what is left.
    """
    is_kept = np.asarray(whole.special_tokens_mask) == 1
    content = np.flatnonzero(~is_kept)  # one text's tokens, then the other's
    for text, tokens in zip(texts, kept, strict=True):
        start = text.start + (text.tokens - tokens if from_end else 0)
        is_kept[content[start : start + tokens]] = True
        content = content[len(text.encoding) :]
    ids: list[int] = np.asarray(whole.ids)[is_kept].tolist()
    type_ids: list[int] = np.asarray(whole.type_ids)[is_kept].tolist()
    return ids, type_ids


def _end_of(text: str, chars: int, goal: Goal) -> str:
    return text[-chars:] if goal.from_end else text[:chars]


def too_many_chars(text: str, index: int) -> RequestTooLargeError:
    """The error for a text of which more would have to be read than is."""
    return RequestTooLargeError(
        f"this input has {len(text)} characters, which do not settle its tokens: at most {MAX_CHARS} are read, and "
        f"{MAX_STRETCH_CHARS} of them without a place to cut, such as a space between words; split it",
        param="input",
        input_index=index,
    )


def check_chars(text: str, index: int) -> None:
    """Refuse a text that is read whole and has more characters than are read.

    Raises:
        RequestTooLargeError: It has.
    """
    if len(text) > MAX_CHARS:
        raise too_many_chars(text, index)


def goal_of(options: TokenizeOptions, tokens: int, count_chars: int) -> Goal:
    """What truncation needs to know of a text.

    Args:
        options: What to do beyond the limit.
        tokens: Maximum number of its tokens without special ones.
        count_chars: In how many characters tokens are counted, where they are not cut off at the end.
    """
    is_counted = options.truncate in (Truncation.START, Truncation.ERROR)
    return Goal(
        tokens + 1,
        from_end=options.truncate is Truncation.START,
        count_chars=count_chars if is_counted else 0,
    )
