"""Bounds on one call, whatever the model. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.types import EmbedCall, Priority, Truncation
from nestvec.errors import EmptyInputError, RequestTooLargeError

# Texts to describe are bounded in characters: an answer holds some hundred bytes for each token.
DESCRIBED_CHARS_PER_TOKEN: Final = 4

# Inputs that are read in windows are bounded in characters too; no language has longer tokens on average.
WINDOWED_CHARS_PER_TOKEN: Final = 8


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
    """

    max_inputs: int = 2048
    max_tokens: int = 300_000
    truncate: Truncation = Truncation.ERROR
    interactive_inputs: int = 16
    allows_empty: bool = True
    max_token_vectors: int = 16_384
    allows_untrained_layers: bool = False

    def truncation_of(self, call: EmbedCall) -> Truncation:
        """Return what happens to a call's long inputs: what it asks for, else the default of its kind of output.

        Windows are for vectors of whole texts; where they are the default, other outputs refuse long inputs.
        """
        if call.truncate is not None:
            return call.truncate
        if call.splits:
            return Truncation.WINDOWS
        is_windows = self.truncate is Truncation.WINDOWS
        if is_windows and not ADAPTERS[call.kind].is_text_vector:
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
            RequestTooLargeError: There are too many inputs or characters.
        """
        if not call.inputs:
            raise EmptyInputError("'input' must hold at least one input", param="input")
        self.check_count(len(call.inputs))
        if not self.allows_empty:
            for index, value in enumerate(call.inputs):
                if not value:
                    raise EmptyInputError("an input is empty", param="input", input_index=index)
        if call.splits or self.truncation_of(call) is Truncation.WINDOWS:
            self._check_characters(call)

    def check_count(self, inputs: int) -> None:
        """Refuse more inputs than a call may have.

        Raises:
            RequestTooLargeError: There are more.
        """
        if inputs > self.max_inputs:
            raise RequestTooLargeError(
                f"a request takes at most {self.max_inputs} inputs, got {inputs}", param="input"
            )

    def _check_characters(self, call: EmbedCall) -> None:
        """Where nothing is cut off, all of a text is tokenized: refuse now what would be refused after that."""
        max_characters = WINDOWED_CHARS_PER_TOKEN * self.max_tokens
        characters = sum(len(value) for value in call.inputs)
        if characters > max_characters:
            raise RequestTooLargeError(
                f"{characters} characters are too many to read in windows, max {max_characters} per request",
                param="input",
                code="max_tokens_per_request",
            )

    def check_tokens(self, call: EmbedCall, tokens: int) -> None:
        """Refuse a call whose inputs have too many tokens in all.

        Raises:
            RequestTooLargeError: There are more than a call may have.
        """
        if ADAPTERS[call.kind].has_token_rows and tokens > self.max_token_vectors:
            raise RequestTooLargeError(
                f"Requested vectors of {tokens} tokens, max {self.max_token_vectors} per request",
                param="input",
                code="max_tokens_per_request",
            )
        if tokens > self.max_tokens:
            raise RequestTooLargeError(
                f"Requested {tokens} tokens, max {self.max_tokens} tokens per request",
                param="input",
                code="max_tokens_per_request",
            )

    def check_described(self, texts: Sequence[str]) -> None:
        """Refuse to describe texts far beyond the tokens of a call.

        Raises:
            RequestTooLargeError: There are too many characters.
        """
        characters = sum(len(text) for text in texts)
        if characters > DESCRIBED_CHARS_PER_TOKEN * self.max_tokens:
            raise RequestTooLargeError(
                f"{characters} characters are too many to describe; send fewer inputs",
                param="input",
            )
