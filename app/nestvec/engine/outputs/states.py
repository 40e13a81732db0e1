"""Whole token states, for the engine's own use: a document's windows give them, and its chunks are pooled of them."""

from typing_extensions import override

from nestvec.engine.outputs.base import OutputAdapter
from nestvec.engine.types import FloatArray, Item
from nestvec.engine.vectors.pooler import Pooler


class StatesOutput(OutputAdapter):
    """Gives every column of every token's state."""

    needed_model = "a model that gives token states"
    has_token_rows = True

    @override
    def width(self, pooler: Pooler, hidden_size: int) -> int:
        """Return the number of columns that the backend gives."""
        return hidden_size

    @override
    def rows(self, states: FloatArray, item: Item, pooler: Pooler) -> FloatArray:
        """Give the states as they are; (n, W)."""
        return states
