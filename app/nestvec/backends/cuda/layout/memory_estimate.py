"""How large a batch a device's memory holds, found by measuring; pure but for the runs that it is given."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from nestvec.backends.cuda.layout.cost import MIN_INPUT_TOKENS
from nestvec.backends.cuda.layout.shapes import Shape
from nestvec.errors import BackendMemoryError, ModelMemoryError

# Batches of other shapes leave holes in the arena.
SPARE: Final = 1.25
MIN_TOKEN_BYTES: Final = 64.0
# A cell of the pooling matrix takes a bool, and at most a float32.
CELL_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """How much memory a model's batches take, and may take.

    Attributes:
        limit_bytes: What a batch may take.
        token_bytes: Most bytes that a token takes.
        spare_bytes: What of the limit the batch that was measured does not take.
        is_padded: Whether every input takes what the longest of them does.
        has_pooling_matrix: Whether vectors are pooled by a matrix of inputs and tokens.
        page_bytes: Bytes of a page of keys and of values, of which each input may fill one in part only; 0 for a graph
            without pages.
    """

    limit_bytes: int
    token_bytes: float
    spare_bytes: int = 0
    is_padded: bool = False
    has_pooling_matrix: bool = False
    page_bytes: int = 0

    @property
    def max_tokens(self) -> float:
        """Most tokens of a batch of long inputs."""
        return self.limit_bytes / self.token_bytes

    def bytes_for(self, tokens: int) -> int:
        """Return what a batch of so many tokens takes, however short its inputs are."""
        return self.bytes_of(tokens, tokens // MIN_INPUT_TOKENS)

    def holds(self, shape: Shape) -> bool:
        """Return whether a batch fits."""
        tokens = shape.inputs * shape.row_length if self.is_padded else shape.tokens
        return self.bytes_of(tokens, shape.inputs) <= self.limit_bytes

    def bytes_of(self, tokens: int, inputs: int) -> int:
        """Return what a batch of so many tokens and inputs takes."""
        cells = CELL_BYTES * tokens * inputs if self.has_pooling_matrix else 0
        # What pages tokens fill is in the bytes of a token, which were measured with the longest inputs.
        return int(tokens * self.token_bytes + inputs * self.page_bytes * SPARE) + cells


def estimate_memory(  # noqa: PLR0913 - what will be asked for, and what inputs take
    taken_bytes: Callable[[int], int],
    limit_bytes: int,
    longest: int,
    max_batch_tokens: int,
    *,
    is_padded: bool = False,
    has_pooling_matrix: bool = False,
    page_bytes: int = 0,
) -> MemoryEstimate:
    """Run a batch of the longest inputs and see what its tokens take; what each input takes beside them is added.

    Args:
        taken_bytes: Runs so many of the longest inputs, and returns by how much the device's free bytes shrank.
        limit_bytes: What batches may take.
        longest: Number of tokens of the longest input.
        max_batch_tokens: Most tokens of a batch that will be asked for.
        is_padded: Whether every input takes what the longest of them does.
        has_pooling_matrix: Whether vectors are pooled by a matrix of inputs and tokens.
        page_bytes: Bytes of a page of keys and of values; 0 for a graph without pages.

    Raises:
        ModelMemoryError: Not even one such input fits.
        BackendError: A run failed.
    """
    inputs, taken = max(1, max_batch_tokens // longest), None
    while taken is None:
        try:
            taken = taken_bytes(inputs)
        except BackendMemoryError as error:
            if inputs == 1:
                raise ModelMemoryError(
                    f"one input of {longest} tokens does not fit into the GPU's memory: set max_input_tokens, raise "
                    "gpu_memory_utilization, or unload other models"
                ) from error
            inputs //= 2
    token_bytes = max(taken / (inputs * longest), MIN_TOKEN_BYTES) * SPARE
    # What has run fits, whatever the limit was thought to be.
    estimate = MemoryEstimate(
        limit_bytes,
        token_bytes,
        is_padded=is_padded,
        has_pooling_matrix=has_pooling_matrix,
        page_bytes=page_bytes,
    )
    known = estimate.bytes_of(inputs * longest, inputs)
    spare = max(limit_bytes - known, 0)
    return replace(estimate, limit_bytes=max(limit_bytes, known), spare_bytes=spare)
