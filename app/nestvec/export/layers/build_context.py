"""Where a model is built, and from what: what every architecture's builder takes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Arithmetic


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

    def stack(
        self, state: str, layers: Iterable[Callable[[str], str]], hidden_size: int
    ) -> list[str]:
        """Layers one on the other: the states (T, H) before the first, then behind each.

        Where the graph is told how many to run, those beyond pass their input on: a branch that is not taken costs
        nothing, and all exits share the weights (measured: a run of k of 6 layers takes k / 6 of the time).

        Args:
            state: What the first layer takes.
            layers: Each adds one to the graph, (T, H) to (T, H).
            hidden_size: H.
        """
        states = [state]
        for number, add in enumerate(layers):
            states.append(self._optional(add, states[-1], number, hidden_size))
        return states

    def _optional(self, add: Callable[[str], str], state: str, number: int, size: int) -> str:
        if self.inputs.layers is None or number == 0:
            return add(state)
        graph = self.graph
        before = graph.weight(f"layers_{number}", np.array(number, np.int64))
        is_wanted = graph.op("Greater", self.inputs.layers, before)
        return graph.choose(
            is_wanted, lambda: add(state), lambda: graph.op("Identity", state), ("T", size)
        )

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
