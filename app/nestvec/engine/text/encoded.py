"""Inputs as token ids, and the options they are tokenized with: what a tokenizer takes and gives."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.pictures.picture import PatchGrid
from nestvec.engine.results import Chunk
from nestvec.engine.text.token_budget import TokenBudget
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import IdArray, Truncation
from nestvec.errors import InputTooLongError


@dataclass(frozen=True, slots=True)
class Encoded:
    """One input as the model will see it.

    Attributes:
        ids: Token ids, (n,), int32, special tokens included.
        is_truncated: Whether tokens were cut off.
        skip_tokens: Number of leading tokens that belong to a prompt and are left out of the pooling.
        spans: Parts that are pooled separately, as (start, stop) in tokens; empty: the whole input is pooled.
        second_start: Index of the first token of a pair's second text; 0 for single texts, and for models without
            token types.
        expansion: Number of trailing tokens that the other tokens do not attend to.
        token_mask: Which tokens' vectors are given out, (n,), bool; None for all.
        dropped_tokens: How many tokens were cut off.
        drops_more: Whether `dropped_tokens` is a lower bound, because only a leading part was tokenized.
        chunks: Where each span lies in the text, in characters, of a document that was cut into chunks here.
        windows: The overlapping windows of an input that was too long for one; they run in its place.
        unseen_unknown: How many unknown tokens were left out, less the one that stands for a text without any token.
        pixels: Of a picture its pixels as its model takes them, uint8; `ids` is then what `content_ids` makes of them.
        grids: Of pictures among a text's tokens, as of an `Item`, whose `pixels` are then all patches.
    """

    ids: IdArray
    is_truncated: bool
    skip_tokens: int = 0
    spans: tuple[tuple[int, int], ...] = ()
    second_start: int = 0
    expansion: int = 0
    token_mask: NDArray[np.bool_] | None = None
    dropped_tokens: int = 0
    drops_more: bool = False
    chunks: tuple[Chunk, ...] = ()
    windows: "Windows | None" = None
    unseen_unknown: int = 0
    pixels: NDArray[np.uint8] | None = None
    grids: tuple[PatchGrid, ...] = ()


@dataclass(frozen=True, slots=True)
class Windows:
    """How an input was cut into overlapping windows.

    Attributes:
        parts: Each window as the model sees it, with the special tokens (and the prompt) around it.
        bounds: Where each window starts and stops, in the input's own tokens.
        prefix_tokens: Number of tokens (special ones and the prompt) before the content of each window.
        suffix_tokens: Number of special tokens behind the content of each window.
    """

    parts: tuple[Encoded, ...]
    bounds: tuple[tuple[int, int], ...]
    prefix_tokens: int
    suffix_tokens: int

    @property
    def tokens(self) -> int:
        """Number of tokens that run; a token in several windows counts once for each."""
        return sum(len(part.ids) for part in self.parts)


@dataclass(frozen=True, slots=True)
class TokenizeOptions:
    """How the inputs of a call are tokenized and made to fit the model.

    Attributes:
        truncate: What to do with an input of more than `max_tokens`.
        max_tokens: Limit of the call, special tokens included; None for the model's own.
        adds_special_tokens: Whether texts get the model's special tokens.
        prompt: Text that is put before each input; "" for none.
        max_second_tokens: Limit of a pair's second text; None: as many as fit.
        ticket: Says whether anybody still waits; checked between slices of the work.
        budget: What all inputs of the call may come to together; None for no bound.
        allows_nothing: Whether an input may come to no token at all; else it is an unknown token.
    """

    truncate: Truncation
    max_tokens: int | None = None
    adds_special_tokens: bool = True
    prompt: str = ""
    max_second_tokens: int | None = None
    ticket: WorkTicket = field(default_factory=WorkTicket, compare=False)
    budget: TokenBudget | None = field(default=None, compare=False)
    allows_nothing: bool = False

    def check_going_on(self) -> None:
        """Go on with the next slice of the work, or end.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline has passed.
            RequestTooLargeError: What was tokenized so far is more than the call may have.
        """
        self.ticket.check()
        if self.budget is not None:
            self.budget.check()

    def note_tokens(self, tokens: int) -> None:
        """Count the tokens of inputs that are done."""
        if self.budget is not None:
            self.budget.add_tokens(tokens)

    def check_length(
        self, tokens: int, max_length: int, index: int, *, is_lower_bound: bool
    ) -> None:
        """Refuse an input beyond the limit, where nothing is to be cut off.

        Args:
            tokens: Number of tokens of the input.
            max_length: The limit.
            index: Index of the input in its call.
            is_lower_bound: Whether only a leading part was counted.

        Raises:
            InputTooLongError: The input is too long; names the index and both numbers.
        """
        if self.truncate is Truncation.ERROR and (tokens > max_length or is_lower_bound):
            raise InputTooLongError(
                got_tokens=max(tokens, max_length + 1),
                limit_tokens=max_length,
                input_index=index,
                is_lower_bound=is_lower_bound,
            )
