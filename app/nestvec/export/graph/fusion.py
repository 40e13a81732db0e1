"""Merges pairs of nodes that CUDA has one kernel for: a pass over a finished graph. Pure.

On CUDA a sum and the norm behind it are one pass over memory, and the bias of the product before comes for nothing, as
does that of a product before GELU. On CPU it is the other way round: ONNX Runtime's fused kernels are slower there, so
CPU graphs are left alone.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import onnx
from onnx import helper

from nestvec.export.graph.types import CONTRIB_DOMAIN

SKIP_NORMS: Final = {
    "LayerNormalization": "SkipLayerNormalization",
    "SimplifiedLayerNormalization": "SkipSimplifiedLayerNormalization",
}


def used_values(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Names of all values that nodes take as inputs, including those inside branches."""
    names: set[str] = set()
    for node in nodes:
        names.update(name for name in node.input if name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= used_values(attribute.g.node)
    return names


def fuse_for_device(
    nodes: Sequence[onnx.NodeProto], weights: Container[str], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """Return the same graph with fewer kernels.

    Args:
        nodes: The graph's nodes, in order, without branches.
        weights: Names of initializers.
        outputs: Names of the graph's outputs.
    """
    fusion = _Fusion(list(nodes), weights, outputs)
    for node in nodes:
        if node.op_type in SKIP_NORMS:
            fusion.fuse_norm(node)
        elif node.op_type == "Gelu":
            fusion.fuse_gelu(node)
    return _without_output_copies([node for node in fusion.nodes if node is not None], outputs)


def _without_output_copies(
    nodes: list[onnx.NodeProto], outputs: Sequence[str]
) -> list[onnx.NodeProto]:
    """Drop Identity nodes before outputs: the nodes that make the values get the outputs' names."""
    produced = {name for node in nodes for name in node.output}
    new_names: dict[str, str] = {}
    remaining = []
    for node in nodes:
        value = node.input[0] if node.input else ""
        is_copy = node.op_type == "Identity" and node.output[0] in outputs
        if is_copy and value in produced and value not in new_names and value not in outputs:
            new_names[value] = node.output[0]
        else:
            remaining.append(node)
    renamed_nodes = []
    for node in remaining:
        renamed = onnx.NodeProto()
        renamed.CopyFrom(node)
        del renamed.input[:], renamed.output[:]
        renamed.input.extend(new_names.get(name, name) for name in node.input)
        renamed.output.extend(new_names.get(name, name) for name in node.output)
        renamed_nodes.append(renamed)
    return renamed_nodes


@dataclass
class _Fusion:
    """A graph in which nodes are being replaced.

    Attributes:
        nodes: The nodes in order; None where one was taken out.
        weights: Names of initializers.
        outputs: Names of the graph's outputs.
    """

    nodes: list[onnx.NodeProto | None]
    weights: Container[str]
    outputs: Sequence[str]
    _producers: dict[str, int] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Index which node makes each value, and how often each value is used."""
        for index, node in enumerate(self.nodes):
            if node is not None:
                self._producers.update(dict.fromkeys(node.output, index))
                self._uses.update(name for name in node.input if name)
        self._uses.update(self.outputs)

    def fuse_norm(self, node: onnx.NodeProto) -> None:
        """Fuse a norm with the sum before it, and with the bias of a product in that sum.

        The sum becomes the fused node's second result where other nodes use it.
        """
        value, scale, *norm_bias = node.input
        sum_index = self._index_of_add(value)
        if sum_index is None:
            return
        first, second = self._node(sum_index).input
        if first in self.weights or second in self.weights:
            return
        summand, skip, product_bias = first, second, ""
        for candidate, other in ((first, second), (second, first)):
            biased_product = self._biased_product(candidate)
            if biased_product is not None:
                summand, product_bias = biased_product
                skip = other
                self.nodes[self._producers[candidate]] = None
                break
        kind = SKIP_NORMS[node.op_type]
        biases = [norm_bias[0] if norm_bias else ""] if kind == "SkipLayerNormalization" else []
        inputs = [summand, skip, scale, *biases, product_bias]
        while not inputs[-1]:
            inputs.pop()
        is_sum_used = self._uses[value] > 1
        fused = helper.make_node(
            kind,
            inputs,
            [node.output[0], "", "", value] if is_sum_used else [node.output[0]],
            name=node.name,
            domain=CONTRIB_DOMAIN,
            epsilon=_float_attribute(node, "epsilon", 1e-5),
        )
        # It goes where the sum was: whatever uses the sum stands behind it, and whatever uses the norm behind that.
        self.nodes[self._producers[node.output[0]]] = None
        self.nodes[sum_index] = fused
        self._producers[node.output[0]] = sum_index

    def fuse_gelu(self, node: onnx.NodeProto) -> None:
        """Fuse GELU with the bias of the product before it; tanh-approximated GELU also without a bias."""
        is_tanh = any(a.name == "approximate" and a.s == b"tanh" for a in node.attribute)
        biased_product = self._biased_product(node.input[0])
        if biased_product is None and not is_tanh:
            return
        inputs = [node.input[0]]
        if biased_product is not None:
            self.nodes[self._producers[node.input[0]]] = None
            inputs = list(biased_product)
        kind = "FastGelu" if is_tanh else "BiasGelu"
        self.nodes[self._producers[node.output[0]]] = helper.make_node(
            kind, inputs, node.output, name=node.name, domain=CONTRIB_DOMAIN
        )

    def _index_of_add(self, value: str) -> int | None:
        """Index of the Add that makes a value; None if something else makes it."""
        index = self._producers.get(value)
        node = None if index is None else self.nodes[index]
        return index if node is not None and node.op_type == "Add" else None

    def _biased_product(self, value: str) -> tuple[str, str] | None:
        """The product and the bias whose sum a value is; None if it is none, or if several nodes use it."""
        sum_index = self._index_of_add(value)
        if sum_index is None or self._uses[value] > 1:
            return None
        product, bias = self._node(sum_index).input
        index = self._producers.get(product)
        producer = None if index is None else self.nodes[index]
        is_product = producer is not None and producer.op_type == "MatMul"
        return (product, bias) if is_product and bias in self.weights else None

    def _node(self, index: int) -> onnx.NodeProto:
        node = self.nodes[index]
        assert node is not None  # noqa: S101 - `_index_of_add` has checked it
        return node


def _float_attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    return next((attribute.f for attribute in node.attribute if attribute.name == name), default)
