"""The rows of a table that stand for a word without a row of its own: fastText's hashed n-grams, or its characters.

Source: Enriching Word Vectors with Subword Information (arXiv:1607.04606), section 3.2; the hash is that of fastText's
`Dictionary::computeSubwords`: 32-bit FNV-1a over bytes that are taken as signed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import IdArray

FNV_OFFSET: Final = np.uint32(2166136261)
FNV_PRIME: Final = np.uint32(16777619)
# In UTF-8 a byte continues a character where its two highest bits are 10.
HIGH_BITS: Final = 0xC0
CONTINUES: Final = 0x80
# Kinds of parts, as settings spell them.
NGRAMS: Final = "ngrams"
CHARACTERS: Final = "characters"

Offsets = NDArray[np.int64]


class Subwords(Protocol):
    """Tells which rows stand for words that the vocabulary lacks."""

    def rows(self, words: Sequence[str]) -> tuple[IdArray, Offsets]:
        """Return the rows of words, one word's behind the other's.

        Args:
            words: The words as the vocabulary would spell them; at least one.

        Returns:
            The rows, (n,), int32, and where each word's start, then n; (words + 1,).
        """


@dataclass(frozen=True, slots=True)
class NGrams:
    """Hashed n-grams of characters; a word is the mean of their rows.

    Attributes:
        min_chars: Characters of the shortest n-gram, the marks of a word's start and end included.
        max_chars: Those of the longest.
        buckets: Number of rows that n-grams share.
        first_row: The row of the first bucket.
    """

    min_chars: int
    max_chars: int
    buckets: int
    first_row: int = 0

    def rows(self, words: Sequence[str]) -> tuple[IdArray, Offsets]:
        """Return the rows of the n-grams of words."""
        return self.rows_of_bytes([word.encode() for word in words])

    def rows_of_bytes(self, words: Sequence[bytes]) -> tuple[IdArray, Offsets]:
        """Return the rows of the n-grams of words in UTF-8, by start and then length, as fastText lists them.

        All n-grams grow by a character at a time, together: a million characters take as many steps as one.
        """
        marked = [b"<%b>" % word for word in words]
        lengths = np.fromiter(map(len, marked), np.int64, len(marked))
        stops = np.cumsum(lengths)
        content = np.frombuffer(b"".join(marked), np.uint8)
        signed = content.astype(np.int8).astype(np.int32).view(np.uint32)
        # One more, which continues nothing: behind the last character.
        goes_on = np.append((content & HIGH_BITS) == CONTINUES, False)
        starts = np.flatnonzero(~goes_on[:-1])
        word_of = np.searchsorted(stops, starts, side="right")
        firsts, ends = stops - lengths, stops
        found = np.full((len(starts), self.max_chars), -1, np.int64)
        growing = np.arange(len(starts))
        places, hashes = starts.copy(), np.full(len(starts), FNV_OFFSET)
        for chars in range(1, self.max_chars + 1):
            fits = places < ends[word_of[growing]]
            growing, places, hashes = growing[fits], places[fits], hashes[fits]
            if not len(growing):
                break
            hashes = (hashes ^ signed[places]) * FNV_PRIME
            places = places + 1
            while (inside := goes_on[places]).any():
                further = (hashes[inside] ^ signed[places[inside]]) * FNV_PRIME
                hashes[inside] = further
                places = places + inside
            if chars < self.min_chars:
                continue
            counted = np.ones(len(growing), bool)
            if chars == 1:  # the marks alone are no n-grams
                at_start = starts[growing] == firsts[word_of[growing]]
                counted = ~(at_start | (places == ends[word_of[growing]]))
            found[growing[counted], chars - 1] = hashes[counted] % np.uint32(self.buckets)
        is_found = found >= 0
        counts = np.bincount(word_of, is_found.sum(axis=1), len(words)).astype(np.int64)
        rows = (found[is_found] + self.first_row).astype(np.int32)
        return rows, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


@dataclass(frozen=True, slots=True)
class Characters:
    """The characters of a word that have rows of their own; a word is their mean.

    Attributes:
        vocabulary: Rows of the words of one character.
    """

    vocabulary: Mapping[str, int] = field(repr=False)

    def rows(self, words: Sequence[str]) -> tuple[IdArray, Offsets]:
        """Return the rows of the words' characters; a word may have none."""
        known = [[self.vocabulary[c] for c in word if c in self.vocabulary] for word in words]
        counts = np.fromiter(map(len, known), np.int64, len(known))
        rows = np.fromiter((row for of_word in known for row in of_word), np.int32, counts.sum())
        return rows, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


@dataclass(frozen=True, slots=True)
class SubwordSettings:
    """What a folder says of words that its vocabulary lacks.

    A row that goes on with the word of the row before it has an id of its own, `rows` higher: what belongs together is
    then told by the ids alone, wherever they go.

    Attributes:
        rows: Number of rows of the table.
        ngrams: fastText's n-grams; None for a word's characters.
    """

    rows: int
    ngrams: NGrams | None = None

    def subwords(self, vocabulary: Mapping[str, int]) -> Subwords:
        """Return what finds the rows, for a tokenizer of this vocabulary."""
        if self.ngrams is not None:
            return self.ngrams
        return Characters({word: row for word, row in vocabulary.items() if len(word) == 1})

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """Return the settings that `written` gave."""
        if fields["kind"] == CHARACTERS:
            return cls(fields["rows"])
        names = ("min_chars", "max_chars", "buckets", "first_row")
        return cls(fields["rows"], NGrams(**{name: fields[name] for name in names}))

    def written(self) -> dict[str, Any]:
        """Return the settings as config.json spells them, and the number of rows."""
        if self.ngrams is None:
            return {"kind": CHARACTERS, "rows": self.rows}
        return {"kind": NGRAMS, "rows": self.rows, **asdict(self.ngrams)}
