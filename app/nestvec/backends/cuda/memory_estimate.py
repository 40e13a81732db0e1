"""How large a batch a device's memory holds, found by measuring; pure but for the runs that it is given."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from nestvec.backends.cuda.shapes import Shape
from nestvec.errors import BackendMemoryError, ModelMemoryError

# Batches of other shapes leave holes in the arena.
SPARE: Final = 1.25
LEAST_BYTES_A_TOKEN: Final = 64.0
CELL_BYTES: Final = 5  # of the pooling matrix: a bool, and at most a float32
SHORTEST: Final = 8  # tokens that an input costs at least; see `cost.py`


@dataclass(frozen=True, slots=True)
class Room:
    """Memory for a model's batches.

    Attributes:
        limit: Bytes that they may take.
        token_bytes: What a token takes, at most.
        is_padded: Whether inputs take what the longest of them does.
        pools: Whether vectors are pooled by a matrix of inputs and tokens.
    """

    limit: int
    token_bytes: float
    is_padded: bool = False
    pools: bool = False

    @property
    def max_tokens(self) -> float:
        """The most tokens of a batch of long inputs."""
        return self.limit / self.token_bytes

    def bytes_for(self, tokens: int) -> int:
        """What a batch takes, of however short inputs."""
        return self.bytes_of(tokens, tokens // SHORTEST)

    def holds(self, shape: Shape) -> bool:
        """Whether a batch fits."""
        tokens = shape.inputs * shape.row if self.is_padded else shape.tokens
        return self.bytes_of(tokens, shape.inputs) <= self.limit

    def bytes_of(self, tokens: int, inputs: int) -> int:
        """What a batch of so many takes."""
        cells = CELL_BYTES * tokens * inputs if self.pools else 0
        return int(tokens * self.token_bytes) + cells


def measured_room(  # noqa: PLR0913 - what was seen, and what is asked for
    free_after: Callable[[int], int],
    free: int,
    limit: int,
    longest: int,
    max_batch_tokens: int,
    *,
    is_padded: bool = False,
    pools: bool = False,
) -> Room:
    """Run batches of the longest inputs and see what they take: an upper bound for those of shorter ones.

    Args:
        free_after: Runs so many of the longest inputs and gives the device's free bytes then.
        free: Free bytes before.
        limit: Bytes that batches may take.
        longest: Tokens of the longest input.
        max_batch_tokens: The most of a batch that will be asked for.
        is_padded: See `Room`.
        pools: See `Room`.

    Raises:
        ModelMemoryError: Not even one such input fits.
        BackendError: A run failed.
    """
    inputs, taken = max(1, max_batch_tokens // longest), None
    while taken is None:
        try:
            taken = free - free_after(inputs)
        except BackendMemoryError as error:
            if inputs == 1:
                raise ModelMemoryError(
                    f"one input of {longest} tokens does not fit into the GPU's memory: set max_input_tokens, raise "
                    "gpu_memory_utilization, or unload other models"
                ) from error
            inputs //= 2
    token_bytes = max(taken / (inputs * longest), LEAST_BYTES_A_TOKEN) * SPARE
    # What has run fits, whatever the limit was thought to be.
    found = Room(limit, token_bytes, is_padded, pools)
    return replace(found, limit=max(limit, found.bytes_of(inputs * longest, inputs)))
