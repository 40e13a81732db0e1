"""The words of a table: which of them texts can meet, and the tokenizer that finds them."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, normalizers, pre_tokenizers

UNKNOWN: Final = "[UNK]"
TOLD_WORDS: Final = 20_000  # of which is said how many no text meets


@dataclass
class WordVocabulary:
    """Words by their rows; the first row is that of an unknown word.

    Attributes:
        rows: Row of each word.
        duplicates: Words that came again and were left out.
        unreadable: Words that are empty, hold blanks or are not UTF-8, which no text can meet, left out.
        has_capitals: Whether a word has a capital letter.
        is_composed: Whether all words are in Unicode's composed form (NFC).
    """

    rows: dict[str, int] = field(default_factory=lambda: {UNKNOWN: 0})
    duplicates: int = 0
    unreadable: int = 0
    has_capitals: bool = False
    is_composed: bool = True

    def add(self, words: Sequence[bytes]) -> list[int]:
        """Take words in, and return the positions of those that are new."""
        new = []
        for position, content in enumerate(words):
            try:
                word = content.decode()
            except UnicodeDecodeError:
                self.unreadable += 1
                continue
            if word.split() != [word]:
                self.unreadable += 1
            elif word in self.rows:
                self.duplicates += 1
            else:
                self.rows[word] = len(self.rows)
                self.has_capitals = self.has_capitals or word != word.lower()
                self.is_composed = self.is_composed and unicodedata.is_normalized("NFC", word)
                new.append(position)
        return new

    def tokenizer(self, *, lowercases: bool, splits_words: bool) -> LibraryTokenizer:
        """Return a tokenizer that finds the words.

        Args:
            lowercases: Whether texts are lower-cased.
            splits_words: Whether marks beside words are words of their own; else texts are split at blanks alone.
        """
        library = LibraryTokenizer(models.WordLevel(self.rows, unk_token=UNKNOWN))
        steps: list[normalizers.Normalizer] = []
        if self.is_composed:
            steps.append(normalizers.NFC())
        if lowercases:
            steps.append(normalizers.Lowercase())
        if steps:
            library.normalizer = normalizers.Sequence(steps)
        splitter = pre_tokenizers.Whitespace() if splits_words else pre_tokenizers.WhitespaceSplit()
        library.pre_tokenizer = splitter
        return library

    def unmet(self, library: LibraryTokenizer) -> float:
        """Return the share of the first words that no text meets, as a tokenizer splits or lower-cases them."""
        words = list(self.rows)[1 : TOLD_WORDS + 1]
        encodings = library.encode_batch_fast(words, add_special_tokens=False)
        unmet = sum(
            encoding.ids != [self.rows[word]]
            for word, encoding in zip(words, encodings, strict=True)
        )
        return unmet / max(len(words), 1)
