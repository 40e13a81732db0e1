"""A model's tokens by their spelling: for heads whose settings name them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.errors import FormatError


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a folder's tokenizer.json, which is read once.

    Attributes:
        path: Path of the tokenizer.json.
        library: It, opened.
    """

    path: Path
    library: LibraryTokenizer

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder's tokenizer.json.

        Raises:
            FormatError: It cannot be read.
        """
        path = folder / "tokenizer.json"
        try:
            return cls(path, LibraryTokenizer.from_file(str(path)))
        except Exception as error:
            raise FormatError(f"{path}: not a readable tokenizer.json ({error})") from error

    def id_of(self, token: str) -> int | None:
        """Return a token's id; None where there is no such token."""
        token_id: int | None = self.library.token_to_id(token)
        return token_id

    def first_id_of(self, *tokens: str) -> int:
        """Return the id of the first of these tokens that the vocabulary has.

        Raises:
            FormatError: It has none of them.
        """
        for token in tokens:
            token_id = self.id_of(token)
            if token_id is not None:
                return token_id
        raise FormatError(f"{self.path}: has no token '{tokens[0]}'")

    def ids_of(self, tokens: Iterable[str]) -> tuple[int, ...]:
        """Return the ids of those of some tokens that the vocabulary has, in ascending order."""
        ids = map(self.id_of, tokens)
        return tuple(sorted({token_id for token_id in ids if token_id is not None}))
