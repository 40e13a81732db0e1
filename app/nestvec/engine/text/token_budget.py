"""TokenBudget: what the inputs of one call may come to, counted while they are tokenized. Pure."""

from dataclasses import dataclass

from nestvec.errors import RequestTooLargeError


@dataclass(slots=True)
class TokenBudget:
    """Counts what is made of a call's inputs, so that no more of it is made than a call may have.

    Attributes:
        max_tokens: Most tokens of all inputs.
        max_windows: Most windows of all inputs that are read in windows.
        max_chunks: Most chunks of all documents.
        are_vectors: Whether each token is a vector of the answer.
        sharers: How many calls share it, each with the same inputs: those of a recipe's parts. They may count from
            several threads; one more than fits is refused at the latest when all are counted.
        tokens: How many there are so far.
        windows: How many there are so far.
        chunks: How many there are so far.
        sentences: How many are embedded to find where documents are cut, so far.
    """

    max_tokens: int
    max_windows: int
    max_chunks: int
    are_vectors: bool = False
    sharers: int = 1
    tokens: int = 0
    windows: int = 0
    chunks: int = 0
    sentences: int = 0

    def add_tokens(self, tokens: int) -> None:
        """Count the tokens of inputs that are done."""
        self.tokens += tokens

    def check(self) -> None:
        """Refuse to tokenize any more where there are too many tokens already.

        Raises:
            RequestTooLargeError: There are.
        """
        if self.tokens > self.max_tokens:
            raise too_many_tokens(
                f"at least {self.tokens}", self.max_tokens, are_vectors=self.are_vectors
            )

    def add_windows(self, windows: int, tokens: int) -> None:
        """Count the windows of an input, before they are made.

        Args:
            windows: Their number.
            tokens: Their tokens together.

        Raises:
            RequestTooLargeError: There are more windows, or more tokens in them, than a call may have.
        """
        self.windows += windows
        self.add_tokens(tokens)
        self.check()
        if self.windows > self.max_windows:
            raise _too_many(
                f"these inputs make at least {self.windows} windows, max {self.max_windows} per request; send fewer "
                "inputs, or make windows longer: with a higher limit on tokens, or a shorter prompt"
            )

    def add_chunks(self, chunks: int) -> None:
        """Count the chunks of a document.

        Raises:
            RequestTooLargeError: There are more than a call may have.
        """
        self.chunks += chunks
        if self.chunks > self.max_chunks:
            raise _too_many(
                f"these documents have at least {self.chunks} chunks, max {self.max_chunks} per request; send fewer "
                "documents, or cut them into longer chunks"
            )

    def add_sentences(self, sentences: int) -> None:
        """Count the sentences of a document that are embedded to find where it is cut, before they are.

        Raises:
            RequestTooLargeError: There are more than a call may have chunks.
        """
        self.sentences += sentences
        if self.sentences > self.max_chunks:
            raise _too_many(
                f"these documents have at least {self.sentences} sentences to compare, max {self.max_chunks} per "
                "request; send fewer or shorter documents, or cut them by another splitter"
            )


def too_many_tokens(counted: str, max_tokens: int, *, are_vectors: bool) -> RequestTooLargeError:
    """Return the error for a call of too many tokens.

    Args:
        counted: How many it has, in words.
        max_tokens: How many it may have.
        are_vectors: Whether each token is a vector of the answer.
    """
    message = (
        f"Requested vectors of {counted} tokens, max {max_tokens} per request"
        if are_vectors
        else f"Requested {counted} tokens, max {max_tokens} tokens per request"
    )
    return _too_many(message)


def _too_many(message: str) -> RequestTooLargeError:
    return RequestTooLargeError(message, param="input", code="max_tokens_per_request")
