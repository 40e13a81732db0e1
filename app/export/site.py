"""Where a model is built, and from what: what every architecture's builder takes."""

from dataclasses import dataclass

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
