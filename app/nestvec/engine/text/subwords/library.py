"""A tokenizer whose unknown words become the rows of their parts: n-grams or characters."""

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as LibraryTokenizer
from typing_extensions import override

from nestvec.engine.text.subwords.parts import SubwordSettings
from nestvec.engine.text.tokenizer_changes import TokenizerChanges
from nestvec.engine.text.tokenizer_library import GuardedLibrary, guarded, unknown_id_of
from nestvec.errors import BackendError

# What is longer is no word, and stays unknown: each of its characters would be the start of several n-grams.
MAX_WORD_CHARS: Final = 500
PIECE_TOKENS: Final = 2000  # of an encoding that is made at once: a millisecond's work


def guarded_library(library: LibraryTokenizer, changes: TokenizerChanges) -> GuardedLibrary:
    """Return what a tokenizer uses of the library, which gives unknown words by their parts where it is told to."""
    unknown_id = unknown_id_of(library)
    if changes.subwords is None or unknown_id is None:
        return GuardedLibrary(library)
    return SubwordLibrary(library, SubwordSettings.read(changes.subwords), unknown_id)


class SubwordLibrary(GuardedLibrary):
    """The library of a word table: a word that it lacks is given by its parts' ids; one without parts stays unknown.

    Args:
        library: The library's own tokenizer, which knows whole words.
        settings: What stands for other words.
        unknown_id: The id that the library gives them.
    """

    # fastText's n-grams of three to six characters are up to four a character.
    parts_a_char: ClassVar[int] = 8

    def __init__(
        self, library: LibraryTokenizer, settings: SubwordSettings, unknown_id: int
    ) -> None:
        super().__init__(library)
        self._words = library
        self._subwords = settings.subwords(library.get_vocab())
        self._rows = settings.rows
        self._unknown_id = unknown_id

    @override
    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Tokenize a text.

        Raises:
            BackendError: The library failed.
        """
        encoding = super().encode(text, add_special_tokens=add_special_tokens)
        return self._expanded([text], [encoding])[0]

    @override
    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Encoding]:
        """Tokenize each text.

        Raises:
            BackendError: The library failed on a text; names it.
        """
        encodings = super().encode_batch(texts, add_special_tokens=add_special_tokens)
        return self._expanded(texts, encodings)

    @override
    def encode_batch_fast(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> list[Encoding]:
        """Tokenize each text; those with words that are not known are read again, with offsets.

        Raises:
            BackendError: The library failed on a text; names it.
        """
        encodings = super().encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        unknown = [n for n, encoding in enumerate(encodings) if self._unknown_id in encoding.ids]
        if not unknown:
            return encodings
        again = [texts[n] for n in unknown]
        for n, encoding in zip(
            unknown, self.encode_batch(again, add_special_tokens=add_special_tokens), strict=True
        ):
            encodings[n] = encoding
        return encodings

    def _expanded(self, texts: Sequence[str], encodings: list[Encoding]) -> list[Encoding]:
        """Put the ids of their parts in the place of unknown words."""
        places = [
            (n, position)
            for n, encoding in enumerate(encodings)
            for position in np.flatnonzero(np.asarray(encoding.ids) == self._unknown_id).tolist()
        ]
        if not places:
            return encodings
        words = [self._word(texts[n], encodings[n], position) for n, position in places]
        is_word = [len(word) <= MAX_WORD_CHARS for word in words]
        places = list(itertools.compress(places, is_word))
        if not places:
            return encodings
        rows, offsets = self._subwords.rows(list(itertools.compress(words, is_word)))
        # The first of a word's parts starts it; the others go on with it.
        ids = rows.astype(np.int64) + self._rows
        starts = offsets[:-1][np.diff(offsets) > 0]
        ids[starts] -= self._rows
        parts = np.split(ids, offsets[1:-1])
        by_text: dict[int, dict[int, Sequence[int]]] = {}
        for (n, position), of_word in zip(places, parts, strict=True):
            if len(of_word):
                by_text.setdefault(n, {})[position] = of_word.tolist()
        return [
            with_parts(encoding, by_text[n]) if n in by_text else encoding
            for n, encoding in enumerate(encodings)
        ]

    def _word(self, text: str, encoding: Encoding, position: int) -> str:
        """Return an unknown word as the vocabulary would spell it."""
        start, stop = encoding.token_to_chars(position) or (0, 0)
        word, normalizer = text[start:stop], self._words.normalizer
        return word if normalizer is None else guarded(lambda: normalizer.normalize_str(word))


def with_parts(encoding: Encoding, parts: Mapping[int, Sequence[int]]) -> Encoding:
    """Return an encoding in which some tokens are replaced by several, each with the word's place in the text.

    The library makes encodings of its own tokens only, but reads any from their pickled form, which is JSON. It is
    written a piece at a time, so that nothing holds Python's global lock for long.

    Args:
        encoding: The encoding; without special tokens, as word tables have none.
        parts: Ids by the position of the token that they replace.

    Raises:
        BackendError: This version of the library pickles otherwise.
    """
    pieces: list[Encoding] = []
    ids: list[str] = []
    places: list[str] = []
    count = 0
    for position, (own, (start, stop)) in enumerate(
        zip(encoding.ids, encoding.offsets, strict=True)
    ):
        of_token = parts.get(position, (own,))
        ids.append(",".join(map(str, of_token)))
        places.append(",".join([f"[{start},{stop}]"] * len(of_token)))
        count += len(of_token)
        if count >= PIECE_TOKENS:
            pieces.append(_encoding(ids, places, count))
            ids, places, count = [], [], 0
    if count:
        pieces.append(_encoding(ids, places, count))
    merged: Encoding = Encoding.merge(pieces, growing_offsets=False)
    return merged


def _encoding(ids: Sequence[str], places: Sequence[str], count: int) -> Encoding:
    """Return an encoding of so many ids, given as JSON writes them, and their places in the text."""
    zeros, ones, nulls, empty = (",".join([word] * count) for word in ("0", "1", "null", '""'))
    state = (
        f'{{"ids":[{",".join(ids)}],"type_ids":[{zeros}],"tokens":[{empty}],"words":[{nulls}],'
        f'"offsets":[{",".join(places)}],"special_tokens_mask":[{zeros}],"attention_mask":[{ones}],'
        '"overflowing":[],"sequence_ranges":{}}'
    )
    made = Encoding()
    try:
        made.__setstate__(state.encode())
    except (ValueError, TypeError, AttributeError) as error:
        raise BackendError("The tokenizer failed on this input.") from error
    if len(made) != count:
        raise BackendError("The tokenizer failed on this input.")
    return made
