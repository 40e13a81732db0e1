"""Bounds on one call, whatever the model. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.pictures.decoding import PictureBounds
from nestvec.engine.text.token_budget import TokenBudget, too_many_tokens
from nestvec.engine.tokenization import prompt_field
from nestvec.engine.types import EmbedCall, Priority, Truncation
from nestvec.errors import EmptyInputError, RequestTooLargeError

# Texts to describe are bounded in characters: an answer holds some hundred bytes for each token.
DESCRIBED_CHARS_PER_TOKEN: Final = 4

# Where all of a text is read (in windows), or put before each input (a prompt), characters are bounded too; no
# language has longer tokens on average.
WINDOWED_CHARS_PER_TOKEN: Final = 8
# All inputs of a call, which may have many characters that are cut off: what the largest body by default holds.
READ_CHARS_PER_TOKEN: Final = 64
MIN_READ_CHARS: Final = 10_000_000
# A call may have a window for each so many of the tokens that it may have.
MIN_WINDOW_TOKENS: Final = 64
# Token states of the documents that late chunking reads in windows, which are in memory until all of them are there.
MAX_STATE_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Bounds on one call.

    Attributes:
        max_inputs: Maximum number of inputs of a call.
        max_tokens: Maximum number of tokens over all inputs of a call, counted after truncation.
        truncate: What happens to long inputs of calls that do not say.
        interactive_inputs: Calls of more inputs than this are bulk, unless they say otherwise.
        allows_empty: Whether an empty text is embedded (special tokens only) or refused.
        max_token_vectors: Maximum number of vectors over all inputs of a call for token vectors.
        allows_untrained_layers: Whether early exits are served that a model was neither trained nor fitted for.
        pictures: Bounds on the pictures of a call.
    """

    max_inputs: int = 2048
    max_tokens: int = 300_000
    truncate: Truncation = Truncation.ERROR
    interactive_inputs: int = 16
    allows_empty: bool = True
    max_token_vectors: int = 16_384
    allows_untrained_layers: bool = False
    pictures: PictureBounds = field(default_factory=PictureBounds)

    def truncation_of(self, call: EmbedCall) -> Truncation:
        """Return what happens to a call's long inputs: what it asks for, else the default of its kind of output.

        Windows are for vectors of whole texts; where they are the default, other outputs, and texts with a context,
        refuse long inputs.
        """
        if call.truncate is not None:
            return call.truncate
        if call.splits:
            return Truncation.WINDOWS
        is_windows = self.truncate is Truncation.WINDOWS
        if is_windows and (call.context or not ADAPTERS[call.kind].is_text_vector):
            return Truncation.ERROR
        return self.truncate

    def priority_of(self, call: EmbedCall, inputs: int) -> Priority:
        """Return a call's scheduling class: what it asks for, else by the number of its inputs."""
        if call.priority is not None:
            return call.priority
        is_bulk = inputs > self.interactive_inputs
        return Priority.BULK if is_bulk else Priority.INTERACTIVE

    def check_inputs(self, call: EmbedCall) -> None:
        """Refuse a call for its inputs, before they are tokenized.

        Raises:
            EmptyInputError: There is no input, or an empty one where those are refused.
            RequestTooLargeError: There are too many inputs.
        """
        if not call.inputs:
            raise EmptyInputError("'input' must hold at least one input", param="input")
        self.check_count(len(call.inputs))
        if not self.allows_empty:
            for index, value in enumerate(call.inputs):
                if not value:
                    raise EmptyInputError("an input is empty", param="input", input_index=index)

    def check_count(self, inputs: int) -> None:
        """Refuse more inputs than a call may have.

        Raises:
            RequestTooLargeError: There are more.
        """
        if inputs > self.max_inputs:
            raise RequestTooLargeError(
                f"a request takes at most {self.max_inputs} inputs, got {inputs}", param="input"
            )

    def check_characters(self, call: EmbedCall, prompt: str, sharers: int = 1) -> int:
        """Refuse a call of more characters than tokenizing would be worth, before it begins.

        Args:
            call: The call.
            prompt: The text that its prompt, or its instruction and examples, come to.
            sharers: How many such calls are made of one: each has its share of what one may have.

        Returns:
            How many characters are tokenized, the prompt counted before each input.

        Raises:
            RequestTooLargeError: There are too many; names the field.
        """
        repeated = len(prompt) * (len(call.chunks) or len(call.inputs)) if prompt else 0
        characters = repeated + sum(map(len, call.texts)) + sum(map(len, call.context))
        if characters * sharers <= self.max_tokens:  # below all that follows
            return characters
        max_windowed = WINDOWED_CHARS_PER_TOKEN * self.max_tokens // sharers
        if repeated > max_windowed:
            raise RequestTooLargeError(
                f"the prompt stands before each input, and {repeated} characters of it are too many, max "
                f"{max_windowed} per request; send fewer inputs, or a shorter prompt",
                param=prompt_field(call),
                code="max_tokens_per_request",
            )
        if call.context and characters > max_windowed:
            raise RequestTooLargeError(
                f"a context stands before each input, and {characters} characters of both are too many, max "
                f"{max_windowed} per request; send fewer inputs, or shorter contexts",
                param="context",
                code="max_tokens_per_request",
            )
        is_windowed = bool(call.splits) or self.truncation_of(call) is Truncation.WINDOWS
        if is_windowed and characters > max_windowed:
            raise RequestTooLargeError(
                f"{characters} characters are too many to read in windows, max {max_windowed} per request",
                param="input",
                code="max_tokens_per_request",
            )
        max_read = max(MIN_READ_CHARS, READ_CHARS_PER_TOKEN * self.max_tokens) // sharers
        if characters > max_read:
            raise RequestTooLargeError(
                f"{characters} characters are too many, max {max_read} per request; send fewer or shorter inputs",
                param="input",
                code="max_tokens_per_request",
            )
        return characters

    def token_budget(self, call: EmbedCall) -> TokenBudget:
        """Return what counts the tokens of a call's inputs while they are made."""
        has_token_rows = ADAPTERS[call.kind].has_token_rows
        return TokenBudget(
            min(self.max_tokens, self.max_token_vectors) if has_token_rows else self.max_tokens,
            max_windows=max(self.max_inputs, self.max_tokens // MIN_WINDOW_TOKENS),
            max_chunks=self.max_token_vectors,
            are_vectors=has_token_rows and self.max_token_vectors < self.max_tokens,
        )

    def check_states(self, tokens: int, state_bytes: int) -> None:
        """Refuse documents whose token states would have to be in memory all at once, and are too many.

        Args:
            tokens: Tokens of the documents that are read in windows and pooled chunk by chunk.
            state_bytes: Size of the state of one token.

        Raises:
            RequestTooLargeError: They are too many.
        """
        max_tokens = MAX_STATE_BYTES // state_bytes
        if tokens > max_tokens:
            raise RequestTooLargeError(
                f"late chunking of long documents takes at most {max_tokens} of their tokens per request with this "
                f"model, and these have {tokens} in windows; send fewer or shorter documents",
                param="input",
                code="max_tokens_per_request",
            )

    def check_tokens(self, call: EmbedCall, tokens: int) -> None:
        """Refuse a call whose inputs have too many tokens in all.

        Raises:
            RequestTooLargeError: There are more than a call may have.
        """
        if ADAPTERS[call.kind].has_token_rows and tokens > self.max_token_vectors:
            raise too_many_tokens(str(tokens), self.max_token_vectors, are_vectors=True)
        if tokens > self.max_tokens:
            raise too_many_tokens(str(tokens), self.max_tokens, are_vectors=False)

    def check_template(self, template: str, labels: int) -> None:
        """Refuse a template that labels would be put into to make more text than a call may come to.

        Raises:
            RequestTooLargeError: They would.
        """
        characters, max_filled = len(template) * labels, WINDOWED_CHARS_PER_TOKEN * self.max_tokens
        if characters > max_filled:
            raise RequestTooLargeError(
                f"each of {labels} labels is put into the template, and {characters} characters of it are too many, "
                f"max {max_filled} per request; send fewer labels, or a shorter template",
                param="template",
                code="max_tokens_per_request",
            )

    def check_described(self, texts: Sequence[str], prompt: str = "") -> int:
        """Refuse to describe texts, each with a prompt before it, far beyond the tokens of a call.

        Returns:
            How many characters they have.

        Raises:
            RequestTooLargeError: There are too many characters.
        """
        characters = sum(len(text) + len(prompt) for text in texts)
        if characters > DESCRIBED_CHARS_PER_TOKEN * self.max_tokens:
            raise RequestTooLargeError(
                f"{characters} characters are too many to describe; send fewer inputs",
                param="input",
            )
        return characters
