"""Pairs of nodes that CUDA has one kernel for: a pass over a finished graph. Pure.

A sum and the norm behind it are one pass over memory there, and the bias of the product before comes for nothing, as
does that of a product before GELU. On CPU it is the other way round: those kernels are slow, so its graphs are left
alone.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import onnx
from onnx import helper

MICROSOFT: Final = "com.microsoft"
SKIP_NORMS: Final = {
    "LayerNormalization": "SkipLayerNormalization",
    "SimplifiedLayerNormalization": "SkipSimplifiedLayerNormalization",
}


def taken_by(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Every value that nodes take, those inside their branches included."""
    found: set[str] = set()
    for node in nodes:
        found.update(name for name in node.input if name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= taken_by(attribute.g.node)
    return found


def fuse_for_device(
    nodes: Sequence[onnx.NodeProto], weights: Container[str], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """The same graph with fewer kernels.

    Args:
        nodes: In order, without branches.
        weights: Names of initializers.
        outputs: Names of the graph's outputs.
    """
    fusing = _Fusing(list(nodes), weights, outputs)
    for node in nodes:
        if node.op_type in SKIP_NORMS:
            fusing.norm(node)
        elif node.op_type == "Gelu":
            fusing.gelu(node)
    return _named_at_once([node for node in fusing.nodes if node is not None], outputs)


def _named_at_once(nodes: list[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Outputs by the nodes that make them, not by copies of what those made."""
    made = {name for node in nodes for name in node.output}
    names: dict[str, str] = {}
    kept = []
    for node in nodes:
        value = node.input[0] if node.input else ""
        is_copy = node.op_type == "Identity" and node.output[0] in outputs
        if is_copy and value in made and value not in names and value not in outputs:
            names[value] = node.output[0]
        else:
            kept.append(node)
    found = []
    for node in kept:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        del renamed.input[:], renamed.output[:]
        renamed.input.extend(names.get(name, name) for name in node.input)
        renamed.output.extend(names.get(name, name) for name in node.output)
        found.append(renamed)
    return found


@dataclass
class _Fusing:
    """A graph on the way.

    Attributes:
        nodes: Those taken out are None.
    """

    nodes: list[onnx.NodeProto | None]
    weights: Container[str]
    outputs: Sequence[str]
    _places: dict[str, int] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Index it."""
        for place, node in enumerate(self.nodes):
            if node is not None:
                self._places.update(dict.fromkeys(node.output, place))
                self._uses.update(name for name in node.input if name)
        self._uses.update(self.outputs)

    def norm(self, node: onnx.NodeProto) -> None:
        """A norm of a sum of two values becomes one node; the sum is its other output where others take it."""
        value, scale, *rest = node.input
        place = self._adding(value)
        if place is None:
            return
        added = self._node(place)
        first, second = added.input
        if first in self.weights or second in self.weights:
            return
        value_in, skip, bias = first, second, ""
        for one, other in ((first, second), (second, first)):
            found = self._biased(one)
            if found is not None:
                value_in, bias, skip = found[0], found[1], other
                self.nodes[self._places[one]] = None
                break
        kind = SKIP_NORMS[node.op_type]
        shifts = [rest[0] if rest else ""] if kind == "SkipLayerNormalization" else []
        inputs = [value_in, skip, scale, *shifts, bias]
        while not inputs[-1]:
            inputs.pop()
        is_shared = self._uses[value] > 1
        made = helper.make_node(
            kind,
            inputs,
            [node.output[0], "", "", value] if is_shared else [node.output[0]],
            name=node.name,
            domain=MICROSOFT,
            epsilon=_float(node, "epsilon", 1e-5),
        )
        # At the sum's place: whatever takes the sum comes behind it, and whatever takes the norm behind that.
        self.nodes[self._places[node.output[0]]] = None
        self.nodes[place] = made
        self._places[node.output[0]] = place

    def gelu(self, node: onnx.NodeProto) -> None:
        """GELU of a product and its bias becomes one node."""
        is_tanh = any(a.name == "approximate" and a.s == b"tanh" for a in node.attribute)
        found = self._biased(node.input[0])
        if found is None and not is_tanh:
            return
        inputs = [node.input[0]]
        if found is not None:
            self.nodes[self._places[node.input[0]]] = None
            inputs = list(found)
        kind = "FastGelu" if is_tanh else "BiasGelu"
        place = self._places[node.output[0]]
        self.nodes[place] = helper.make_node(
            kind, inputs, node.output, name=node.name, domain=MICROSOFT
        )

    def _adding(self, value: str) -> int | None:
        """Where the sum is made that a value is; None where it is none."""
        place = self._places.get(value)
        node = None if place is None else self.nodes[place]
        return place if node is not None and node.op_type == "Add" else None

    def _biased(self, value: str) -> tuple[str, str] | None:
        """What a value is made of, if it is a product and a bias that nothing else takes."""
        place = self._adding(value)
        if place is None or self._uses[value] > 1:
            return None
        one, bias = self._node(place).input
        made_by = self._places.get(one)
        producer = None if made_by is None else self.nodes[made_by]
        is_product = producer is not None and producer.op_type == "MatMul"
        return (one, bias) if is_product and bias in self.weights else None

    def _node(self, place: int) -> onnx.NodeProto:
        node = self.nodes[place]
        assert node is not None  # noqa: S101 - `_adding` has seen it
        return node


def _float(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((a.f for a in node.attribute if a.name == name), default)
