"""A thin builder over `onnx.helper`: named nodes, typed values, weights beside the graph."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# onnx 1.23 writes IR 14 by default, which onnxruntime 1.31 refuses; opset 20 is the first with Gelu.
IR_VERSION: Final = 10
OPSET: Final = 20
MICROSOFT: Final = "com.microsoft"
WEIGHTS_FILE: Final = "weights.bin"
LEAST_HALVED: Final = 1024  # elements; scales and biases stay as they are
HALF_MAX: Final = float(np.finfo(np.float16).max)

DTYPES: Final = {
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "float32": TensorProto.FLOAT,
    "bool": TensorProto.BOOL,
}


class GraphBuilder:
    """Collects nodes and weights; every value is named by the node that makes it.

    Args:
        name: Of the graph.
        halves_weights: Store large float32 weights as float16; they are widened when the graph is opened, so it
            computes in float32 all the same.
    """

    def __init__(self, name: str, *, halves_weights: bool = False) -> None:
        self._name = name
        self._halves_weights = halves_weights
        self._nodes: list[onnx.NodeProto] = []
        self._casts: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0
        self._uses_contrib = False
        self.metadata: dict[str, str] = {}

    def input(self, name: str, dtype: str, shape: tuple[str | int, ...]) -> str:
        """Declare a graph input; names in `shape` are symbolic axes."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))
        return name

    def output(self, value: str, name: str, shape: tuple[str | int, ...]) -> None:
        """Give a float32 value out under a name."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def split(self, value: str, parts: int) -> list[str]:
        """A value in equal parts along its last axis."""
        self._count += 1
        names = [f"split_{self._count}_{part}" for part in range(parts)]
        self._nodes.append(
            helper.make_node("Split", [value], names, name=names[0], axis=-1, num_outputs=parts)
        )
        return names

    def split_heads(self, value: str, count: int, width: int) -> str:
        """(T, n·d) as (T, n, d)."""
        shape = self.weight(f"heads_{count}_{width}", np.array([-1, count, width], np.int64))
        return self.op("Reshape", value, shape)

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Add an initializer; the same name twice is the same weight."""
        if name in self._weights:
            return name
        if self._halves_weights and array.dtype == np.float32 and array.size >= LEAST_HALVED:
            stored = f"{name}.half"
            if stored not in self._weights:
                half = np.clip(array, -HALF_MAX, HALF_MAX).astype(np.float16)
                self._weights[stored] = numpy_helper.from_array(np.ascontiguousarray(half), stored)
                widened = helper.make_node(
                    "Cast", [stored], [name], name=name, to=TensorProto.FLOAT
                )
                self._casts.append(widened)
            return name
        self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes are of any type
        """Add a node with one output; returns that value's name."""
        self._count += 1
        self._uses_contrib = self._uses_contrib or domain == MICROSOFT
        value = f"{kind.lower()}_{self._count}"
        self._nodes.append(
            helper.make_node(kind, list(inputs), [value], name=value, domain=domain, **attributes)
        )
        return value

    def choose(
        self,
        condition: str,
        then: Callable[[], str],
        otherwise: Callable[[], str],
        shape: tuple[str | int, ...],
    ) -> str:
        """Add an If with one float32 output; weights and outer values are shared by both branches.

        Args:
            condition: A bool scalar; it should be a graph input or made on the CPU.
            then: Adds the nodes for true; gives the value.
            otherwise: The same for false.
            shape: Of the value.
        """
        branches = []
        for build in (then, otherwise):
            outer, self._nodes = self._nodes, []
            value = build()
            inner, self._nodes = self._nodes, outer
            output = helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)
            branches.append(helper.make_graph(inner, f"branch_of_{value}", [], [output]))
        return self.op("If", condition, then_branch=branches[0], else_branch=branches[1])

    def save(
        self, path: Path, weights_file: str = WEIGHTS_FILE, *, keeps_inputs: bool = False
    ) -> None:
        """Check the graph and write it, large weights in a file beside it.

        Args:
            path: Where it goes.
            weights_file: Name of the other file.
            keeps_inputs: Keep inputs that nothing takes, as other programs feed them all the same.

        Raises:
            OSError: The disk is full or read-only.
        """
        nodes = [*self._casts, *self._nodes]
        taken = _taken(nodes)
        graph = helper.make_graph(
            nodes,
            self._name,
            [
                value for value in self._inputs if keeps_inputs or value.name in taken
            ],  # none need be fed for nothing
            self._outputs,
            list(self._weights.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if self._uses_contrib:
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "nestvec"
        helper.set_model_props(model, self.metadata)
        onnx.save_model(
            model,
            str(path),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=weights_file,
            size_threshold=1024,
        )
        onnx.checker.check_model(str(path))


def _taken(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Every value that nodes take, those inside their branches included."""
    found: set[str] = set()
    for node in nodes:
        found.update(node.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= _taken(attribute.g.node)
    return found
