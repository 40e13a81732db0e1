"""The `tokenizers` library behind one kind of error: it raises bare Exceptions, and panics that are no Exceptions.

None of their messages may reach a caller or a log, as they may quote a text.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, decoders, models, processors
from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.engine.text.tokenizer_changes import NO_CHANGES, TokenizerChanges
from nestvec.errors import BackendError, FormatError

Result = TypeVar("Result")

# The library's `encode` and `decode` keep Python's global lock, so that nothing else of the process runs; their batch
# forms give it back, for some microseconds. Up to so many characters, and ids, keeping it is the cheaper: a quarter of
# a millisecond.
SHORT_CHARS: Final = 512
SHORT_IDS: Final = 512

# A tokenizer that fails on one of these is refused when it is read, rather than when a caller meets it.
PROBES: Final = ("", " ", "a", "Z9!", "é漢字", "🙂\u0301", "x" * 300, "[MASK] <s> ##a")


class GuardedLibrary:
    """The part of the library that `Tokenizer` uses, with `BackendError` for whatever it raises.

    Attributes:
        parts_a_char: By how much fewer characters of a long text are counted, as each may be several tokens.

    Args:
        library: The library's own tokenizer.
    """

    parts_a_char: ClassVar[int] = 1

    def __init__(self, library: LibraryTokenizer) -> None:
        self._library = library

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Tokenize a text.

        Raises:
            BackendError: The library failed.
        """
        if len(text) > SHORT_CHARS:
            return self.encode_batch([text], add_special_tokens=add_special_tokens)[0]
        return guarded(lambda: self._library.encode(text, add_special_tokens=add_special_tokens))

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Encoding]:
        """Tokenize each text.

        Raises:
            BackendError: The library failed on a text; names it.
        """
        return self._batch(self._library.encode_batch, texts, add_special_tokens)

    def encode_batch_fast(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> list[Encoding]:
        """Tokenize each text without computing offsets.

        Raises:
            BackendError: The library failed on a text; names it.
        """
        return self._batch(self._library.encode_batch_fast, texts, add_special_tokens)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Turn ids back into text.

        Raises:
            BackendError: The library failed.
        """
        if len(ids) > SHORT_IDS:
            (text,) = guarded(
                lambda: self._library.decode_batch(
                    [list(ids)], skip_special_tokens=skip_special_tokens
                )
            )
            return str(text)
        return guarded(
            lambda: self._library.decode(list(ids), skip_special_tokens=skip_special_tokens)
        )

    def decode_plainly(self, ids: Sequence[int]) -> str | None:
        """Turn ids into text that the tokenizer would make the same ids of; None where it has nothing that decodes.

        Special tokens and ids of no token are left out, and nothing is prettified ("do not" stays two words).

        Raises:
            BackendError: The library failed.
        """
        decoder = self._plain_decoder
        if decoder is None:
            return None
        special = self.special_ids
        tokens = [self._library.id_to_token(number) for number in ids if number not in special]
        text: str = guarded(lambda: decoder.decode([t for t in tokens if t is not None]))
        return text

    @cached_property
    def _plain_decoder(self) -> decoders.Decoder | None:
        """The decoder, without what prettifies; None where the tokenizer has none."""
        decoder: decoders.Decoder | None = self._library.decoder
        if isinstance(decoder, decoders.WordPiece):
            return decoders.WordPiece(decoder.prefix, cleanup=False)
        return decoder

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens among the added ones."""
        added = self._library.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special)

    def max_word_chars(self) -> int | None:
        """Most characters of a word that WordPiece reads, beyond which it is unknown; None for other models."""
        model = self._library.model
        return model.max_input_chars_per_word if isinstance(model, models.WordPiece) else None

    def token_names(self, count: int) -> list[str]:
        """Return the tokens of ids 0 to `count` - 1 as the vocabulary spells them; "" for an id of no token."""
        return [self._library.id_to_token(number) or "" for number in range(count)]

    def max_token_chars(self) -> int:
        """Characters of the longest token: no token stands for more of a text, an unknown one apart."""
        return max(map(len, self._library.get_vocab()), default=1)

    def post_process(
        self,
        first: Encoding,
        second: Encoding | None,
        add_special_tokens: bool,  # noqa: FBT001 - the library's own
    ) -> Encoding:
        """Put the special tokens around an encoding, or two joined to one input.

        Raises:
            BackendError: The library failed.
        """
        return guarded(lambda: self._library.post_process(first, second, add_special_tokens))

    def num_special_tokens_to_add(self, *, is_pair: bool) -> int:
        """Return how many special tokens an input gets.

        Raises:
            BackendError: The library failed.
        """
        return guarded(lambda: self._library.num_special_tokens_to_add(is_pair=is_pair))

    @staticmethod
    def _batch(
        encode: Callable[..., list[Encoding]],
        texts: Sequence[str],
        add_special_tokens: bool,  # noqa: FBT001 - the library's own
    ) -> list[Encoding]:
        try:
            return guarded(lambda: encode(texts, add_special_tokens=add_special_tokens))
        except BackendError as error:
            for index, text in enumerate(texts):
                try:
                    guarded(partial(encode, [text], add_special_tokens=add_special_tokens))
                except BackendError:
                    error.input_index = index
                    break
            raise


def token_spans(encoding: Encoding) -> NDArray[np.int64]:
    """Return where each token starts and stops in the text, in characters, (n, 2); (0, 0) for special tokens.

    `Encoding.offsets` keeps Python's global lock as long as it takes: a tenth of a second for half a million tokens.
    """
    tokens = len(encoding)
    if tokens <= SHORT_IDS:
        return np.array(encoding.offsets, np.int64).reshape(-1, 2)
    spans = (encoding.token_to_chars(index) or (0, 0) for index in range(tokens))
    flat = itertools.chain.from_iterable(spans)
    return np.fromiter(flat, np.int64, 2 * tokens).reshape(-1, 2)


def guarded(work: Callable[[], Result]) -> Result:
    """Do something with the library.

    Raises:
        BackendError: It failed, in whatever way.
    """
    try:
        return work()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # pyo3's panics derive from BaseException, and its class cannot be imported.
        raise BackendError("The tokenizer failed on this input.") from error


def open_library(
    path: Path, *, adds_special_tokens: bool, changes: TokenizerChanges = NO_CHANGES
) -> LibraryTokenizer:
    """Read a tokenizer.json, with the file's own padding and truncation switched off.

    Args:
        path: The file.
        adds_special_tokens: Whether the file's special tokens are kept.
        changes: What the files beside it make other.

    Raises:
        FormatError: The file is missing or cannot be read.
    """
    try:
        library = guarded(lambda: LibraryTokenizer.from_file(str(path)))
    except BackendError as error:
        reason = error.__cause__
        raise FormatError(f"{path}: not a readable tokenizer.json ({reason})") from error
    library.no_padding()
    library.no_truncation()
    try:
        guarded(lambda: changes.apply(library))
    except BackendError as error:
        raise FormatError(
            f"{path}: the files beside it ask for a tokenizer that cannot be built ({error.__cause__})"
        ) from error
    if not adds_special_tokens:
        library.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return library


def check_vocabulary(
    path: Path, library: LibraryTokenizer, vocabulary_size: int, *, adds_special_tokens: bool
) -> None:
    """Refuse a tokenizer whose ids the model has no embeddings for, or that fails on plain texts.

    Args:
        path: The tokenizer's file, for messages.
        library: What was read from it.
        vocabulary_size: Number of rows of the model's embedding table.
        adds_special_tokens: Whether texts get special tokens.

    Raises:
        FormatError: The tokenizer does not fit the model, or fails.
    """
    highest = max(library.get_vocab(with_added_tokens=True).values(), default=-1)
    if highest >= vocabulary_size:
        raise FormatError(
            f"{path}: the tokenizer has {highest + 1} tokens but the model only {vocabulary_size} embeddings"
        )
    try:
        encodings = GuardedLibrary(library).encode_batch(
            PROBES, add_special_tokens=adds_special_tokens
        )
    except BackendError as error:
        raise FormatError(f"{path}: the tokenizer fails on plain texts") from error
    if any(number >= vocabulary_size for encoding in encodings for number in encoding.ids):
        raise FormatError(f"{path}: the tokenizer gives ids that the model has no embedding for")


def unknown_id_of(library: LibraryTokenizer) -> int | None:
    """The id that a text without any token is embedded as, so that it has a vector; None if nothing stands for it."""
    name = getattr(library.model, "unk_token", None)
    return library.token_to_id(name) if isinstance(name, str) else None


def splits_at_spaces(library: LibraryTokenizer) -> bool:
    """Whether text is cut at spaces before it is tokenized, so that words behind one change no token before it."""
    if library.pre_tokenizer is None:
        return False
    words = ["one", "two", "three"]
    text = " ".join(words)
    if library.normalizer is not None:
        text = library.normalizer.normalize_str(text)
    return len(library.pre_tokenizer.pre_tokenize_str(text)) >= len(words)
