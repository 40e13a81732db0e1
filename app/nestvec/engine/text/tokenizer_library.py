"""The tokenizers library behind one kind of error: it raises bare Exceptions, and panics that are no Exceptions at all.

None of their messages may reach a caller or a log, as they may quote a text.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tokenizers import Encoding
from tokenizers import Tokenizer as LibraryTokenizer

from nestvec.errors import BackendError

Result = TypeVar("Result")


class GuardedLibrary:
    """What of the library the tokenizer uses.

    Args:
        library: The real one.
    """

    def __init__(self, library: LibraryTokenizer) -> None:
        self._library = library

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Tokens of a text.

        Raises:
            BackendError: The library failed.
        """
        return guarded(lambda: self._library.encode(text, add_special_tokens=add_special_tokens))

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Encoding]:
        """Tokens of each text.

        Raises:
            BackendError: The library failed on one; names it.
        """
        return self._batch(self._library.encode_batch, texts, add_special_tokens)

    def encode_batch_fast(
        self, texts: Sequence[str], *, add_special_tokens: bool
    ) -> list[Encoding]:
        """The same, without offsets.

        Raises:
            BackendError: The library failed on one; names it.
        """
        return self._batch(self._library.encode_batch_fast, texts, add_special_tokens)

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of ids.

        Raises:
            BackendError: The library failed.
        """
        return guarded(
            lambda: self._library.decode(list(ids), skip_special_tokens=skip_special_tokens)
        )

    def post_process(
        self,
        first: Encoding,
        second: Encoding,
        add_special_tokens: bool,  # noqa: FBT001 - the library's own
    ) -> Encoding:
        """Two encodings as one.

        Raises:
            BackendError: The library failed.
        """
        return guarded(lambda: self._library.post_process(first, second, add_special_tokens))

    def num_special_tokens_to_add(self, *, is_pair: bool) -> int:
        """How many an input gets.

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
                    guarded(lambda one=text: encode([one], add_special_tokens=add_special_tokens))  # type: ignore[misc] # bound now
                except BackendError:
                    error.input_index = index
                    break
            raise


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
