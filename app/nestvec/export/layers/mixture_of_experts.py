"""A mixture of experts in place of an MLP: a router sends each token to the few of several MLPs that it fits best.

Source: Switch Transformers and their kind (arXiv:2101.03961), with the weights of the chosen experts as the softmax
over all gives them, as in nomic-embed-text-v2-moe (arXiv:2502.07972).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Floating, Linear, RecordingFloating
from nestvec.export.layers.blocks import activation, feed_forward
from nestvec.export.layers.build_context import BuildContext


@dataclass(frozen=True, slots=True)
class Mixture:
    """One layer's experts.

    Attributes:
        name: Names its weights in the graph.
        router: [H, E], float32.
        experts: First and last layer of each expert, without biases.
        bias: [H], float32, added to what the experts give together.
        chosen: How many experts each token goes through.
        hidden_act: The configuration's activation.
    """

    name: str
    router: Float32Array
    experts: Sequence[tuple[Linear, Linear]]
    bias: Float32Array
    chosen: int
    hidden_act: str

    def add(self, context: BuildContext, state: str) -> str:
        """Add the layer, [T, H] to [T, H].

        On the CPU each expert computes the tokens that were sent to it. On a device all compute all tokens, since a
        captured CUDA graph has fixed shapes; so they do where their inputs are recorded, or an expert that no text of
        the calibration goes to would have no range.
        """
        graph = context.graph
        nothing = np.zeros(len(self.experts), np.float32)
        # In floats whatever the precision: a step of 8 bits may send a token elsewhere.
        router = Linear(f"{self.name}.router", self.router, nothing)
        logits = Floating().apply(graph, state, [router])[0]
        if graph.float_type is not FloatType.FP32:
            logits = graph.op("Cast", logits, to=TensorProto.FLOAT)
        shares = graph.op("Softmax", logits, axis=-1)
        count = graph.weight(f"chosen_{self.chosen}", np.array([self.chosen], np.int64))
        chosen_shares, chosen = graph.op_outputs("TopK", 2, shares, count, axis=-1)
        is_dense = context.inputs.device is not None
        if is_dense or isinstance(context.arithmetic, RecordingFloating):
            summed = self._dense(context, state, chosen_shares, chosen)
        else:
            summed = self._routed(context, state, chosen_shares, chosen)
        return graph.op("Add", summed, graph.weight(f"{self.name}.bias", self.bias))

    def _dense(self, context: BuildContext, state: str, shares: str, chosen: str) -> str:
        """Compute all experts for all tokens, and weigh them; those that were not chosen by zero."""
        graph, arithmetic = context.graph, context.arithmetic
        last_axis = graph.weight("last", np.array([-1], np.int64))
        zero = graph.weight("no_share_float32", np.array(0, np.float32), is_exact=True)
        summed = ""
        for number, (first, last) in enumerate(self.experts):
            expert = graph.weight(f"expert_{number}", np.array(number, np.int64))
            is_chosen = graph.op("Equal", chosen, expert)
            share = graph.op(
                "ReduceSum", graph.op("Where", is_chosen, shares, zero), last_axis, keepdims=1
            )
            if graph.float_type is not FloatType.FP32:
                share = graph.op("Cast", share, to=graph.onnx_float_type)
            inner = activation(graph, arithmetic.apply(graph, state, [first])[0], self.hidden_act)
            given = graph.op("Mul", arithmetic.apply(graph, inner, [last])[0], share)
            summed = graph.op("Add", summed, given) if summed else given
        return summed

    def _routed(self, context: BuildContext, state: str, shares: str, chosen: str) -> str:
        """Compute each expert for its own tokens, and add what it gives, weighed, to their rows."""
        graph, size = context.graph, len(self.bias)
        summed = graph.op("Mul", state, graph.weight("no_share", np.array(0, np.float32)))
        zero = graph.weight("zero", np.array(0, np.int64))
        for number, layers in enumerate(self.experts):
            expert = graph.weight(f"expert_{number}", np.array(number, np.int64))
            # [n, 2]: token, and the expert's rank among the token's.
            places = graph.op(
                "Transpose", graph.op("NonZero", graph.op("Equal", chosen, expert)), perm=[1, 0]
            )
            count = graph.op("Squeeze", graph.op("Shape", places, start=0, end=1))
            add = partial(self._expert, context, layers, state, shares, places, summed)
            # ONNX Runtime's ReduceMax, which rows are quantized by, gives no rows a wrong shape.
            summed = graph.if_else(
                graph.op("Greater", count, zero),
                add,
                partial(graph.op, "Identity", summed),
                ("T", size),
            )
        return summed

    def _expert(
        self,
        context: BuildContext,
        layers: tuple[Linear, Linear],
        state: str,
        shares: str,
        places: str,
        summed: str,
    ) -> str:
        """Add what an expert gives for its tokens, weighed, to a sum [T, H]; it has at least one."""
        graph = context.graph
        column = graph.weight("column", np.array([1], np.int64))
        share = graph.op("Unsqueeze", graph.op("GatherND", shares, places), column)
        first_column = graph.weight("first_column", np.array([0], np.int64))
        tokens = graph.op("Gather", places, first_column, axis=1)
        rows = graph.op("GatherND", state, tokens)
        given = feed_forward(context, rows, layers[:1], layers[1], self.hidden_act)
        return graph.op("ScatterND", summed, tokens, graph.op("Mul", given, share), reduction="add")
