"""What every architecture's builder is given: the graph in the making and the checkpoint that it is made of."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Arithmetic, Linear, rounded_rows, split_linear


@dataclass(frozen=True, slots=True)
class BuildContext:
    """One graph in the making.

    Attributes:
        graph: Takes nodes and weights.
        weights: The checkpoint's tensors.
        inputs: The graph's inputs.
        arithmetic: How linear layers compute.
        rounds_table: Whether rows of the table of tokens are stored as 8-bit integers, each with a scale.
    """

    graph: GraphBuilder
    weights: Weights
    inputs: PackedInputs
    arithmetic: Arithmetic
    rounds_table: bool = False

    def stack(
        self, state: str, layers: Iterable[Callable[[str], str]], hidden_size: int
    ) -> list[str]:
        """Add layers one after the other.

        In a graph that is told how many layers to run, those beyond pass their input on: a branch that is not taken
        costs nothing, and all exits share the weights (measured: running k of 6 layers takes k / 6 of the time).

        Args:
            state: The first layer's input, [T, H].
            layers: Each adds one layer to the graph, [T, H] to [T, H].
            hidden_size: H.

        Returns:
            The states [T, H] before the first layer, then behind each.
        """
        states = [state]
        for number, add in enumerate(layers):
            states.append(self._skippable(add, states[-1], number, hidden_size))
        return states

    def _skippable(self, add: Callable[[str], str], state: str, number: int, size: int) -> str:
        """Add a layer that runs only if more than `number` layers are asked for; the first one always runs."""
        if self.inputs.layer_count is None or number == 0:
            return add(state)
        graph = self.graph
        layers_before = graph.weight(f"layers_{number}", np.array(number, np.int64))
        is_wanted = graph.op("Greater", self.inputs.layer_count, layers_before)
        return graph.if_else(
            is_wanted, lambda: add(state), lambda: graph.op("Identity", state), ("T", size)
        )

    def embed(
        self, word_embeddings: Float32Array, token_type_embeddings: Float32Array | None = None
    ) -> str:
        """Look up each token's word embedding, and add that of its token type.

        Args:
            word_embeddings: [V, H], float32.
            token_type_embeddings: [types, H], float32; None for a family without them.

        Returns:
            A value [T, H].
        """
        graph, inputs = self.graph, self.inputs
        if token_type_embeddings is not None and inputs.token_types is None:
            # Single texts only: every token is of type 0, whose embedding may as well be part of the words'.
            word_embeddings = word_embeddings + token_type_embeddings[0]
        words = self.look_up("words", word_embeddings, inputs.ids)
        if token_type_embeddings is None or inputs.token_types is None:
            return words
        table = graph.weight("kinds", token_type_embeddings)
        return graph.op("Add", words, graph.op("Gather", table, inputs.token_types, axis=0))

    def look_up(self, name: str, table: Float32Array, rows: str) -> str:
        """Look rows of a table up, which is stored as `rounds_table` says.

        Args:
            name: Names the table in the graph.
            table: [V, H], float32.
            rows: Row numbers, [T], int64.

        Returns:
            A value [T, H], in the graph's dtype.
        """
        graph = self.graph
        if not self.rounds_table:
            return graph.op("Gather", graph.weight(name, table), rows, axis=0)
        steps, rounded = rounded_rows(table)
        codes = graph.op("Gather", graph.weight(f"{name}_s8", rounded), rows, axis=0)
        scale = graph.op("Gather", graph.weight(f"{name}_scale", steps), rows, axis=0)
        return graph.op("Mul", graph.op("Cast", codes, to=graph.onnx_float_type), scale)

    def linear(
        self, name: str, rows: int, columns: int, *, prefix: str = "", has_bias: bool = False
    ) -> Linear:
        """Read a torch Linear, whose weight is [out, in].

        Args:
            name: Its name below the prefix, which it has in the graph too.
            rows: Number of outputs.
            columns: Number of inputs.
            prefix: What stands before its name in the checkpoint.
            has_bias: Whether it has a bias; zeros if not.

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        weight, bias = self._linear_tensors(prefix + name, rows, columns, has_bias=has_bias)
        return Linear(name, weight.T, bias)

    def split_linear(
        self,
        name: str,
        parts: int,
        rows: int,
        columns: int,
        *,
        prefix: str = "",
        has_bias: bool = False,
    ) -> list[Linear]:
        """Read a torch Linear that holds the rows of several layers one after the other.

        Args:
            name: Its name below the prefix; the layers are called `name.0`, `name.1`, ….
            parts: Number of layers.
            rows: Number of outputs of each.
            columns: Number of inputs.
            prefix: What stands before its name in the checkpoint.
            has_bias: Whether it has a bias; zeros if not.

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        weight, bias = self._linear_tensors(prefix + name, parts * rows, columns, has_bias=has_bias)
        return split_linear(name, weight, bias, parts)

    def parts_of_linear(
        self, name: str, widths: Sequence[int], columns: int, prefix: str = ""
    ) -> list[Linear]:
        """Read a torch Linear without a bias that holds the rows of layers of several widths, as `split_linear` does.

        Raises:
            FormatError: The tensor is missing or of another shape.
        """
        weight = self.weights.get(f"{prefix}{name}.weight", (sum(widths), columns))
        stops = np.cumsum(widths)[:-1]
        return [
            Linear(f"{name}.{number}", rows.T, np.zeros(len(rows), np.float32))
            for number, rows in enumerate(np.split(weight, stops))
        ]

    def _linear_tensors(
        self, name: str, rows: int, columns: int, *, has_bias: bool
    ) -> tuple[Float32Array, Float32Array]:
        weight = self.weights.get(f"{name}.weight", (rows, columns))
        if not has_bias:
            return weight, np.zeros(rows, np.float32)
        return weight, self.weights.get(f"{name}.bias", (rows,))
