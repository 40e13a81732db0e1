"""Texts to token ids with the `tokenizers` library, and exact truncation.

The library's own truncation is state of the shared tokenizer object, while each call may want another; so it
is switched off and ids are cut here, around the special tokens, with the same result.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, processors
from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.encoded import Encoded, Fit, Token, TokenCount
from nestvec.engine.text.tokenizer_library import GuardedLibrary, guarded
from nestvec.engine.text.truncation import cut_chars, leading_words, longest_first
from nestvec.engine.types import IdArray, Pair, Truncation
from nestvec.errors import BackendError, FormatError, InputError
from nestvec.system.unicode import replace_lone_surrogates

# No tokenizer in use makes one token of more characters than this on average, so a longer text is too long
# for certain, or may be cut before tokenising: 10 MB otherwise costs seconds (TEI has the same factor).
MAX_CHARS_PER_TOKEN: Final = 250

# Where the end of a long text is to be cut off, its leading part is tokenised alone: texts of several times the limit
# are common in ingestion, and tokenising all of one costs a tenth of its int8 forward pass. So many characters a token
# are taken; a text that has fewer tokens in them is tokenised whole.
LEADING_CHARS_PER_TOKEN: Final = 6
# The last tokens of a part need not be those of the whole: an added token may span the cut.
UNSETTLED_TOKENS: Final = 16
WORD: Final = re.compile(r"\w+")
FALLBACK_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")


# A tokenizer that fails on one of these is refused when it is read, rather than when a caller meets it.
PROBES: Final = ("", " ", "a", "Z9!", "é漢字", "🙂\u0301", "x" * 300, "[MASK] <s> ##a")


class Tokenizer:
    """A model's tokenizer; safe to call from several threads, since nothing in it changes.

    Args:
        path: The folder's `tokenizer.json`.
        max_tokens: The most tokens an input may have, special tokens included.
        vocabulary_size: Rows of the model's embedding table; ids must be below.
        adds_special: Whether texts get the file's special tokens; a static model averages them in otherwise.
        drops_unknown: Whether unknown tokens are left out of texts, unless nothing else is in one.

    Raises:
        FormatError: The file is missing or cannot be read.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_tokens: int,
        vocabulary_size: int,
        adds_special: bool = True,
        drops_unknown: bool = False,
    ) -> None:
        try:
            library = guarded(lambda: LibraryTokenizer.from_file(str(path)))
        except BackendError as error:
            reason = error.__cause__
            raise FormatError(f"{path}: not a readable tokenizer.json ({reason})") from error
        library.no_padding()
        library.no_truncation()
        if not adds_special:
            library.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
        self._unknown = _unknown_id(library)
        self._dropped = self._unknown if drops_unknown else None
        self._library = GuardedLibrary(library)
        self._is_wordwise = _is_wordwise(library)
        self.max_tokens = max_tokens
        self.vocabulary_size = vocabulary_size
        highest = max(library.get_vocab(with_added_tokens=True).values(), default=-1)
        if highest >= vocabulary_size:
            raise FormatError(
                f"{path}: the tokenizer has {highest + 1} tokens but the model only {vocabulary_size} embeddings"
            )
        try:
            found = self._library.encode_batch(PROBES, add_special_tokens=adds_special)
            mask = self._library.encode("a").special_tokens_mask
        except BackendError as error:
            raise FormatError(f"{path}: the tokenizer fails on plain texts") from error
        if any(number >= vocabulary_size for encoding in found for number in encoding.ids):
            raise FormatError(
                f"{path}: the tokenizer gives ids that the model has no embedding for"
            )
        content = [i for i, is_special in enumerate(mask) if not is_special]
        self._lead = content[0] if content else len(mask)
        self._tail = len(mask) - 1 - content[-1] if content else 0
        if max_tokens <= self._lead + self._tail:
            raise FormatError(
                f"{path}: {max_tokens} tokens leave no room beside {self._lead + self._tail} special ones"
            )

    def encode_texts(self, texts: Sequence[str], fit: Fit) -> list[Encoded]:
        """Tokenise texts.

        Args:
            texts: Any Unicode but lone surrogates; an empty one gives the special tokens only.
            fit: What to do beyond the limit, and what stands before and around.

        Raises:
            InputTooLongError: An input is too long and truncation is off; names its index and length.
            InputError: The limit leaves no room for a token, or an input has none.
        """
        room = self.room(fit)
        most_chars = MAX_CHARS_PER_TOKEN * room
        prepared = [cut_chars(fit.prefix + text, most_chars, fit.truncate) for text in texts]
        parts = prepared
        if fit.truncate is Truncation.END and self._is_wordwise and self._dropped is None:
            found, parts = self._encode_leading(prepared, fit, room)
        else:
            found = self._encode(prepared, fit)
        return [
            self._fit(
                self._known(np.asarray(encoding.ids, np.int32)),
                fit,
                room,
                index,
                is_lower_bound=len(fit.prefix) + len(texts[index]) > len(parts[index]),
            )
            for index, encoding in enumerate(found)
        ]

    def check_ids(self, inputs: Sequence[Sequence[int]], fit: Fit) -> list[Encoded]:
        """Take ids of the model's own vocabulary exactly as given.

        Raises:
            InputError: An id is outside the vocabulary, or an input is empty.
            InputTooLongError: As for texts.
        """
        room = self.room(fit)
        checked = []
        for index, ids in enumerate(inputs):
            if not ids:
                raise InputError(
                    "a token array needs at least one id", param="input", input_index=index
                )
            if not (min(ids) >= 0 and max(ids) < self.vocabulary_size):
                raise InputError(
                    f"token ids must be 0 to {self.vocabulary_size - 1}, this model's vocabulary",
                    param="input",
                    input_index=index,
                )
            checked.append(self._fit(np.asarray(ids, np.int32), fit, room, index))
        return checked

    def cut_chars(self, text: str, fit: Fit) -> str:
        """As much of a text as could be tokens at all."""
        return cut_chars(text, MAX_CHARS_PER_TOKEN * self.room(fit), fit.truncate)

    def encode_with_stops(
        self, text: str, *, adds_special: bool
    ) -> tuple[IdArray, list[int | None]]:
        """Ids of a text, none cut off, and where each ends in it, in characters; None for special tokens."""
        found = self._library.encode(text, add_special_tokens=adds_special)
        rows = zip(found.special_tokens_mask, found.offsets, strict=True)
        stops = [None if is_special else stop for is_special, (_, stop) in rows]
        return np.asarray(found.ids, np.int32), stops

    def encode_pair(self, pair: Pair, fit: Fit, index: int) -> Encoded:
        """Tokenise two texts as one input; where they are too long, the longer loses its end first.

        Raises:
            InputTooLongError: They are too long and truncation is off; names the index.
            InputError: The limit leaves no room for a token of each.
        """
        room = self.room(fit)
        most_chars = MAX_CHARS_PER_TOKEN * room
        texts = [cut_chars(text, most_chars, fit.truncate) for text in (pair.first, pair.second)]
        first, second = self._library.encode_batch(texts, add_special_tokens=False)
        if fit.max_second_tokens is not None and len(second) > fit.max_second_tokens:
            second.truncate(fit.max_second_tokens)
        special = self._library.num_special_tokens_to_add(is_pair=True) if fit.adds_special else 0
        most = room - special
        if most < 2:  # noqa: PLR2004 - one of each
            raise InputError(f"{room} tokens leave no room for a pair", param="max_tokens")
        is_cut = max(map(len, (pair.first, pair.second))) > most_chars
        over = len(first) + len(second) - most
        fit.check(room + over, room, index, is_lower_bound=is_cut)
        if over > 0:
            direction = "left" if fit.truncate is Truncation.START else "right"
            kept = longest_first(len(first), len(second), most)
            first.truncate(kept[0], direction=direction)
            second.truncate(kept[1], direction=direction)
        whole = self._library.post_process(first, second, fit.adds_special)
        return Encoded(
            np.asarray(whole.ids, np.int32),
            is_truncated=over > 0 or is_cut,
            second_start=whole.type_ids.index(1) if 1 in whole.type_ids else 0,
        )

    def frame(self, fit: Fit) -> tuple[IdArray, IdArray]:
        """The special tokens before a text and behind it."""
        ids = np.asarray(self._library.encode("").ids if fit.adds_special else [], np.int32)
        lead = self._lead if fit.adds_special else 0
        return ids[:lead], ids[lead:]

    def encode_plain(self, texts: Sequence[str]) -> list[IdArray]:
        """Ids of texts, none cut off, without special tokens."""
        found = self._library.encode_batch_fast(texts, add_special_tokens=False)
        return [self._known(np.asarray(encoding.ids, np.int32)) for encoding in found]

    def encode_with_starts(self, text: str) -> tuple[IdArray, NDArray[np.int64]]:
        """Ids of a text, none cut off, without special tokens, and where each starts in it, in characters, rising."""
        found = self._library.encode(text, add_special_tokens=False)
        ids = np.asarray(found.ids, np.int32)
        # Parts of one character may be said to start one behind the other's end.
        starts = np.maximum.accumulate(np.array([a for a, _ in found.offsets], np.int64))
        kept = np.ones(len(ids), bool) if self._dropped is None else ids != self._dropped
        return ids[kept], starts[kept]

    def describe(self, text: str, *, adds_special: bool) -> list[Token]:
        """Every token of a text, not truncated."""
        encoding = self._library.encode(text, add_special_tokens=adds_special)
        rows = zip(
            encoding.ids,
            encoding.tokens,
            encoding.special_tokens_mask,
            encoding.offsets,
            strict=True,
        )
        return [
            Token(number, token, is_special=True, start=None, stop=None)
            if is_special
            else Token(number, text[start:stop], is_special=False, start=start, stop=stop)
            for number, token, is_special, (start, stop) in rows
        ]

    def decode(self, ids: Sequence[int], *, skips_special: bool = True) -> str:
        """The text of ids.

        Raises:
            InputError: An id is outside the vocabulary.
        """
        if ids and not (min(ids) >= 0 and max(ids) < self.vocabulary_size):
            raise InputError(
                f"token ids must be 0 to {self.vocabulary_size - 1}, this model's vocabulary",
                param="input",
            )
        text: str = self._library.decode(ids, skip_special_tokens=skips_special)
        return text

    @property
    def special_tokens(self) -> int:
        """How many each text gets."""
        return self._lead + self._tail

    def count(self, texts: Sequence[str]) -> list[TokenCount]:
        """What texts are cut into, none truncated; for reports on a tokenizer."""
        counts = []
        known = [replace_lone_surrogates(text) for text in texts]
        encodings = self._library.encode_batch(known, add_special_tokens=False)
        for text, encoding in zip(known, encodings, strict=True):
            lacking = [
                number == self._unknown or FALLBACK_BYTE.fullmatch(token) is not None
                for number, token in zip(encoding.ids, encoding.tokens, strict=True)
            ]
            # Some tokenizers hold the space before a word in its first token.
            spans = {
                (stop - len(text[start:stop].lstrip()), stop)
                for (start, stop), lacks in zip(encoding.offsets, lacking, strict=True)
                if not lacks
            }
            words = [found.span() for found in WORD.finditer(text)]
            whole = sum(word in spans for word in words)
            counts.append(TokenCount(encoding.ids, len(words), whole, sum(lacking)))
        return counts

    def count_prompt_tokens(self, prompt: str) -> int:
        """Leading tokens of an input that a prompt accounts for, leading special tokens included."""
        return len(self._library.encode(prompt).ids) - self._tail

    def _encode_leading(
        self, texts: Sequence[str], fit: Fit, room: int
    ) -> tuple[list[Encoding], list[str]]:
        """At least the first `room` tokens of each text, without many beyond them; and the parts tokenised."""
        least = room + UNSETTLED_TOKENS
        parts = [leading_words(text, LEADING_CHARS_PER_TOKEN * least) for text in texts]
        found = self._encode(parts, fit)
        dense = [
            index
            for index, encoding in enumerate(found)
            if len(parts[index]) < len(texts[index]) and len(encoding) < least
        ]
        if dense:
            whole = self._encode([texts[index] for index in dense], fit)
            for index, encoding in zip(dense, whole, strict=True):
                found[index] = encoding
                parts[index] = texts[index]
        return found, parts

    def _known(self, ids: IdArray) -> IdArray:
        """Without those that are left out."""
        return ids if self._dropped is None else ids[ids != self._dropped]

    def _encode(self, texts: Sequence[str], fit: Fit) -> list[Encoding]:
        found: list[Encoding] = self._library.encode_batch_fast(
            texts, add_special_tokens=fit.adds_special
        )
        return found

    def room(self, fit: Fit) -> int:
        """The most tokens of an input.

        Raises:
            InputError: No token would fit beside the special ones.
        """
        if fit.max_tokens is None:
            return self.max_tokens
        least = (self._lead + self._tail if fit.adds_special else 0) + 1
        if fit.max_tokens < least:
            raise InputError(
                f"'max_tokens' must be at least {least}: special tokens count", param="max_tokens"
            )
        return min(self.max_tokens, fit.max_tokens)

    def _fit(
        self, ids: IdArray, fit: Fit, room: int, index: int, *, is_lower_bound: bool = False
    ) -> Encoded:
        """Cut ids to `room`, keeping the special tokens at both ends."""
        over = len(ids) - room
        if not len(ids):
            if self._unknown is None:
                raise InputError("this input has no token", param="input", input_index=index)
            return Encoded(np.array([self._unknown], np.int32), is_truncated=False)
        fit.check(len(ids), room, index, is_lower_bound=is_lower_bound)
        if over <= 0:
            return Encoded(ids, is_truncated=is_lower_bound)
        lead, tail = (self._lead, self._tail) if fit.adds_special else (0, 0)
        stop = len(ids) - tail
        kept = (
            ids[lead + over : stop] if fit.truncate is Truncation.START else ids[lead : stop - over]
        )
        return Encoded(
            np.concatenate([ids[:lead], kept, ids[stop:]]),
            is_truncated=True,
            dropped_tokens=over,
            drops_more=is_lower_bound,
        )


def _unknown_id(library: LibraryTokenizer) -> int | None:
    """What a text without any token is embedded as, so that it has a vector; None where nothing stands for it."""
    name = getattr(library.model, "unk_token", None)
    return library.token_to_id(name) if isinstance(name, str) else None


def _is_wordwise(library: LibraryTokenizer) -> bool:
    """Whether text is cut at spaces before it is tokenised, so that words behind one change no token before it."""
    if library.pre_tokenizer is None:
        return False
    words = ["one", "two", "three"]
    text = " ".join(words)
    if library.normalizer is not None:
        text = library.normalizer.normalize_str(text)
    return len(library.pre_tokenizer.pre_tokenize_str(text)) >= len(words)
