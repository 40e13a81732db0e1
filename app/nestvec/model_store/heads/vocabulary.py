"""A model's tokens by their spelling: for heads whose settings name them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.errors import FormatError


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a folder's tokenizer.json, which is read once."""

    path: Path
    library: LibraryTokenizer

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open a folder's.

        Raises:
            FormatError: It cannot be read.
        """
        path = folder / "tokenizer.json"
        try:
            return cls(path, LibraryTokenizer.from_file(str(path)))
        except Exception as error:
            raise FormatError(f"{path}: not a readable tokenizer.json ({error})") from error

    def find(self, token: str) -> int | None:
        """A token's id; None where there is none."""
        found: int | None = self.library.token_to_id(token)
        return found

    def first_of(self, *tokens: str) -> int:
        """Id of the first of these that there is.

        Raises:
            FormatError: There is none.
        """
        for token in tokens:
            found = self.find(token)
            if found is not None:
                return found
        raise FormatError(f"{self.path}: has no token '{tokens[0]}'")

    def those_of(self, tokens: Iterable[str]) -> tuple[int, ...]:
        """Ids of those of some tokens that there are, rising."""
        found = map(self.find, tokens)
        return tuple(sorted({one for one in found if one is not None}))
