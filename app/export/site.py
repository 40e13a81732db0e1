"""Where a model is built, and from what: what every architecture's builder takes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.export.arithmetic import Arithmetic
from app.export.graph import GraphBuilder
from app.export.inputs import PackedInputs
from app.export.weights import Weights


@dataclass(frozen=True, slots=True)
class Site:
    """One graph in the making.

    Attributes:
        graph: What nodes and weights are added to.
        weights: The checkpoint's tensors.
        inputs: The graph's inputs.
        arithmetic: How linear layers compute.
    """

    graph: GraphBuilder
    weights: Weights
    inputs: PackedInputs
    arithmetic: Arithmetic

    def typed(self, words: NDArray[np.float32], kinds: NDArray[np.float32]) -> str:
        """Vectors of ids, those of their token types added.

        Args:
            words: (V, H), float32.
            kinds: (types, H), float32.

        Returns:
            A value (T, H).
        """
        if self.inputs.types is None:
            # One text an input: every token is of type 0, whose vector may as well be in the table.
            words = words + kinds[0]
        word = self.graph.op("Gather", self.graph.weight("words", words), self.inputs.ids, axis=0)
        if self.inputs.types is None:
            return word
        table = self.graph.weight("kinds", kinds)
        kind = self.graph.op("Gather", table, self.inputs.types, axis=0)
        return self.graph.op("Add", word, kind)
