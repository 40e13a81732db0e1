"""The prompts of transformers' processors in which a model reads a text as a query, and a picture.

Source: `ProcessorMixin` of transformers 4.57 and 5.24, which write them into processor_config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.tokenizer_library import open_library
from nestvec.errors import FormatError
from nestvec.model_store.sources.file_names import (
    PROCESSOR_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
)
from nestvec.system.json_files import read_json

TOKENIZER_FILE: Final = "tokenizer.json"
MAX_PROMPT_CHARS: Final = 10_000
# What is put into a text where its special tokens are to be found.
ANY_TEXT: Final = "a"


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """The tokens of a folder's prompts.

    Attributes:
        path: Path of its tokenizer.json, for messages.
        library: It, opened.
    """

    path: Path
    library: LibraryTokenizer

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open a folder's tokenizer.

        Raises:
            FormatError: It cannot be read.
        """
        path = folder / TOKENIZER_FILE
        return cls(path, open_library(path, adds_special_tokens=True))

    def id_of(self, token: str) -> int:
        """Return the id of a token that is read as one wherever it stands.

        Raises:
            FormatError: The vocabulary has no such token.
        """
        number: int | None = self.library.token_to_id(token)
        if number is None or self.library.encode(token, add_special_tokens=False).ids != [number]:
            raise FormatError(
                f"{self.path}: {token[:40]} is no token of its own, and prompts are written by it"
            )
        return number

    def ids(self, text: str, *, adds_special_tokens: bool = False) -> tuple[int, ...]:
        """Return the ids of a text."""
        return tuple(self.library.encode(text, add_special_tokens=adds_special_tokens).ids)

    def tokens_behind(self) -> int:
        """Return how many tokens of its own the tokenizer puts behind a text."""
        mask = list(self.library.encode(ANY_TEXT).special_tokens_mask)
        return mask[::-1].index(0)

    def around(self, prompt: str, token: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids before and behind a picture's in the prompt in which a model reads one.

        Args:
            prompt: The prompt, in which a token stands for the picture.
            token: That token.

        Raises:
            FormatError: The token stands there more or less than once.
        """
        number, ids = self.id_of(token), self.ids(prompt, adds_special_tokens=True)
        if ids.count(number) != 1:
            raise FormatError(f"{self.path}: a picture's prompt must have {token[:40]} once")
        place = ids.index(number)
        return ids[:place], ids[place + 1 :]


def processor_prompt(folder: Path, name: str, default: str, *, may_be_empty: bool = False) -> str:
    """Read a prompt of a folder's processor.

    Args:
        folder: The folder.
        name: The field's name.
        default: The class's own, where the file says none.
        may_be_empty: Whether an empty text is one; version 5 of transformers takes it for none in some classes.

    Raises:
        FormatError: The field holds something else than a text, or an empty one that may not be.
    """
    path = folder / PROCESSOR_FILE
    prompt = (read_json(path) if path.is_file() else {}).get(name)
    if prompt is None:
        return default
    if prompt == "" and may_be_empty:
        return ""
    if not _is_text(prompt) or len(prompt) > MAX_PROMPT_CHARS:
        raise FormatError(f"{path}: {name} must be a text of 1 to {MAX_PROMPT_CHARS} characters")
    return str(prompt)


def tokenizer_token(folder: Path, name: str, default: str | None = None) -> str:
    """Read which token has a name in the tokenizer's files, such as `pad_token`.

    Args:
        folder: The folder.
        name: The name.
        default: The token where no file says it; None where one must.

    Raises:
        FormatError: No file says it.
    """
    for file in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
        path = folder / file
        values: Mapping[str, Any] = read_json(path) if path.is_file() else {}
        token = values.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if _is_text(token):
            return str(token)
    if default is None:
        raise FormatError(f"{folder / TOKENIZER_CONFIG_FILE}: {name}: missing, and prompts need it")
    return default


def _is_text(value: object) -> bool:
    """Whether a value of JSON is a text that a tokenizer takes: some of JSON's are no Unicode."""
    return (
        isinstance(value, str) and bool(value) and value.encode("utf-8", "ignore").decode() == value
    )
