"""A thin builder over `onnx.helper`: named nodes, typed values, weights in a file beside the graph.

The names of weights in exported graphs (`words`, `kinds`, `places`, `score_factor`, `tail`, …) are never looked up.
They keep their first spelling: the same model then gives the same bytes in every release, and comparing two exports
shows real changes only.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nestvec.export.graph.external_data import ExternalData
from nestvec.export.graph.fusion import fuse_for_device, used_values
from nestvec.export.graph.types import CONTRIB_DOMAIN

# onnx 1.23 writes IR 14 by default, which onnxruntime 1.31 refuses; opset 20 is the first with Gelu.
IR_VERSION: Final = 10
OPSET: Final = 20
WEIGHTS_FILE: Final = "weights.bin"
# Elements; norm scales and biases, which are smaller, stay in float32.
MIN_HALVED_ELEMENTS: Final = 1024
MAX_FLOAT16: Final = float(np.finfo(np.float16).max)

DTYPES: Final = {
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
}


class FloatType(StrEnum):
    """The dtype of a graph's states and weights."""

    FP32 = "float32"
    FP16 = "float16"
    BF16 = "bfloat16"


NUMPY_TYPES: Final[Mapping[FloatType, Any]] = {
    FloatType.FP32: np.float32,
    FloatType.FP16: np.float16,
    FloatType.BF16: ml_dtypes.bfloat16,
}


class GraphBuilder:
    """Collects nodes and weights; every value is named by the node that makes it.

    Args:
        name: The graph's name.
        halves_weights: Store large float32 weights as float16. They are widened when the graph is opened, so it still
            computes in float32.
        float_type: The dtype of states and weights.
        is_for_device: Build for CUDA, where other operators are fast and products get no bias of their own.
        weights_path: Where large weights go as they come, beside the graphs that will be saved; None keeps all of them
            in memory until then.
    """

    def __init__(
        self,
        name: str,
        *,
        halves_weights: bool = False,
        float_type: FloatType = FloatType.FP32,
        is_for_device: bool = False,
        weights_path: Path | None = None,
    ) -> None:
        self._name = name
        self._halves_weights = halves_weights
        self.float_type = float_type
        self.is_for_device = is_for_device
        self._nodes: list[onnx.NodeProto] = []
        self._casts: list[onnx.NodeProto] = []
        # By name; None for a value that `_external` has.
        self._weights: dict[str, NDArray[Any] | None] = {}
        self._external = None if weights_path is None else ExternalData(weights_path)
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0
        self._uses_contrib = False
        self.metadata: dict[str, str] = {}

    @property
    def onnx_float_type(self) -> int:
        """ONNX's number (`TensorProto.DataType`) for the dtype of states."""
        return DTYPES[self.float_type]

    def input(self, name: str, dtype: str, shape: tuple[str | int, ...]) -> str:
        """Declare a graph input; names in `shape` are symbolic axes."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))
        return name

    def ensure_input(self, name: str, dtype: str, shape: tuple[str | int, ...]) -> str:
        """Declare a graph input unless there is one of this name."""
        if any(value.name == name for value in self._inputs):
            return name
        return self.input(name, dtype, shape)

    def output(self, value: str, name: str, shape: tuple[str | int, ...]) -> None:
        """Declare a value in the graph's dtype as an output; bfloat16 becomes float32, since numpy has no bfloat16."""
        is_bf16 = self.float_type is FloatType.BF16
        self.output_as(value, name, shape, FloatType.FP32 if is_bf16 else None)

    def output_as(
        self, value: str, name: str, shape: tuple[str | int, ...], cast_to: FloatType | None
    ) -> None:
        """Declare a value as an output, cast to a dtype.

        Args:
            value: The value; in the graph's dtype if `cast_to` is None.
            name: The output's name.
            shape: The value's shape.
            cast_to: The output's dtype; None leaves the value as it is.
        """
        dtype = DTYPES[cast_to or self.float_type]
        node = (
            helper.make_node("Identity", [value], [name], name=f"output/{name}")
            if cast_to is None
            else helper.make_node("Cast", [value], [name], name=f"output/{name}", to=dtype)
        )
        self._nodes.append(node)
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def split(self, value: str, parts: int) -> list[str]:
        """Split a value into equal parts along its last axis."""
        self._count += 1
        names = [f"split_{self._count}_{part}" for part in range(parts)]
        self._nodes.append(
            helper.make_node("Split", [value], names, name=names[0], axis=-1, num_outputs=parts)
        )
        return names

    def split_heads(self, value: str, count: int, width: int) -> str:
        """Reshape [T, n * d] to [T, n, d]."""
        shape = self.weight(f"heads_{count}_{width}", np.array([-1, count, width], np.int64))
        return self.op("Reshape", value, shape)

    def weight(self, name: str, array: NDArray[Any], *, is_exact: bool = False) -> str:
        """Add an initializer; the same name twice is the same weight.

        Args:
            name: Its name.
            array: Its values; float32 is converted to the graph's dtype.
            is_exact: Keep float32 values in float32.

        Returns:
            The name.
        """
        if name in self._weights:
            return name
        if array.dtype == np.float32 and self.float_type is not FloatType.FP32 and not is_exact:
            clipped = (
                np.clip(array, -MAX_FLOAT16, MAX_FLOAT16)
                if self.float_type is FloatType.FP16
                else array
            )
            array = clipped.astype(NUMPY_TYPES[self.float_type])
        if self._halves_weights and array.dtype == np.float32 and array.size >= MIN_HALVED_ELEMENTS:
            self._add_halved_weight(name, array)
            return name
        self._add_weight(name, array)
        return name

    def _add_weight(self, name: str, array: NDArray[Any]) -> None:
        """Keep a weight's values, or write them."""
        self._weights[name] = None
        if self._external is None:
            self._weights[name] = np.ascontiguousarray(array)
        else:
            self._external.add(name, array)

    def _add_halved_weight(self, name: str, array: NDArray[Any]) -> None:
        """Store a float32 weight as float16, and the Cast that widens it; both once."""
        stored_name = f"{name}.half"
        if stored_name in self._weights:
            return
        half = np.clip(array, -MAX_FLOAT16, MAX_FLOAT16).astype(np.float16)
        self._add_weight(stored_name, half)
        self._casts.append(
            helper.make_node("Cast", [stored_name], [name], name=name, to=TensorProto.FLOAT)
        )

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes are of any type
        """Add a node with one output.

        Args:
            kind: The operator, such as "MatMul".
            inputs: Names of values; "" leaves an optional input out.
            domain: The operator's domain; "" for the ONNX standard.
            attributes: The node's attributes.

        Returns:
            The output's name.
        """
        return self.op_outputs(kind, 1, *inputs, domain=domain, **attributes)[0]

    def op_outputs(
        self,
        kind: str,
        outputs: int,
        *inputs: str,
        domain: str = "",
        **attributes: Any,  # noqa: ANN401 - ONNX attributes are of any type
    ) -> list[str]:
        """Add a node with several outputs.

        Args:
            kind: The operator, such as "GroupQueryAttention".
            outputs: How many of its outputs are named; some operators do less where fewer are.
            inputs: Names of values; "" leaves an optional input out.
            domain: The operator's domain; "" for the ONNX standard.
            attributes: The node's attributes.

        Returns:
            The outputs' names.
        """
        self._count += 1
        self._uses_contrib = self._uses_contrib or domain == CONTRIB_DOMAIN
        value = f"{kind.lower()}_{self._count}"
        values = [value, *(f"{value}_{number}" for number in range(1, outputs))]
        self._nodes.append(
            helper.make_node(kind, list(inputs), values, name=value, domain=domain, **attributes)
        )
        return values

    def if_else(
        self,
        condition: str,
        then: Callable[[], str],
        otherwise: Callable[[], str],
        shape: tuple[str | int, ...],
    ) -> str:
        """Add an If node with one output in the graph's dtype; both branches share weights and outer values.

        Args:
            condition: A bool scalar; it should be a graph input or be computed on the CPU.
            then: Adds the nodes for true and returns their value.
            otherwise: Adds the nodes for false and returns their value.
            shape: The value's shape.

        Returns:
            The output's name.
        """
        branches = []
        for build in (then, otherwise):
            outer, self._nodes = self._nodes, []
            value = build()
            inner, self._nodes = self._nodes, outer
            output = helper.make_tensor_value_info(value, self.onnx_float_type, shape)
            branches.append(helper.make_graph(inner, f"branch_of_{value}", [], [output]))
        return self.op("If", condition, then_branch=branches[0], else_branch=branches[1])

    def loop(self, count: str, body: Callable[[str], str], shape: tuple[str | int, ...]) -> str:
        """Add a Loop that gives one value in the graph's dtype a step; steps see outer values and weights.

        Args:
            count: Number of steps, an int64 scalar.
            body: Adds the nodes of a step, given its number (an int64 scalar), and returns their value.
            shape: The value's shape, the same in each step.

        Returns:
            Name of the steps' values one behind the other, [count, *shape].
        """
        self._count += 1
        step, goes_on = f"step_{self._count}", f"goes_on_{self._count}"
        outer, self._nodes = self._nodes, []
        value = body(step)
        stays = self.op("Identity", goes_on)
        inner, self._nodes = self._nodes, outer
        scalars = [
            helper.make_tensor_value_info(step, TensorProto.INT64, ()),
            helper.make_tensor_value_info(goes_on, TensorProto.BOOL, ()),
        ]
        outputs = [
            helper.make_tensor_value_info(stays, TensorProto.BOOL, ()),
            helper.make_tensor_value_info(value, self.onnx_float_type, shape),
        ]
        graph = helper.make_graph(inner, f"loop_of_{value}", scalars, outputs)
        return self.op("Loop", count, "", body=graph)

    def save(
        self, path: Path, weights_file: str = WEIGHTS_FILE, *, keeps_inputs: bool = False
    ) -> None:
        """Check the graph and write it, with its large weights in a file beside it.

        Args:
            path: Where the graph goes.
            weights_file: Name of the file of weights.
            keeps_inputs: Keep inputs that no node uses, for other programs that feed all of them.

        Raises:
            OSError: The disk is full or read-only.
        """
        outputs = [output.name for output in self._outputs]
        self.save_graphs({path: outputs}, weights_file, keeps_inputs=keeps_inputs)

    def save_graphs(
        self,
        outputs_by_path: Mapping[Path, Sequence[str]],
        weights_file: str = WEIGHTS_FILE,
        *,
        keeps_inputs: bool = False,
    ) -> None:
        """Write several graphs, each with some of the outputs; all have their large weights in one file.

        Args:
            outputs_by_path: Names of each graph's outputs, by the graph's path; all paths are in one folder.
            weights_file: Name of the file of weights.
            keeps_inputs: Keep inputs that no node uses, for other programs that feed all of them.

        Raises:
            OSError: The disk is full or read-only.
        """
        graphs = {path: self._nodes_for(outputs) for path, outputs in outputs_by_path.items()}
        used = set[str]().union(*(used_values(nodes) for nodes in graphs.values()))
        folder = next(iter(outputs_by_path)).parent
        external = self._external or ExternalData(folder / weights_file)
        for name, array in self._weights.items():
            if array is not None and name in used:
                external.add(name, array)
        stored = external.finish(used)
        for path, nodes in graphs.items():
            self._write(path, nodes, outputs_by_path[path], stored, keeps_inputs=keeps_inputs)

    def _nodes_for(self, outputs: Sequence[str]) -> list[onnx.NodeProto]:
        """The nodes that outputs depend on, in order; fused into larger ones for a device."""
        needed = set(outputs)
        nodes: list[onnx.NodeProto] = []
        for node in reversed([*self._casts, *self._nodes]):
            if needed.intersection(node.output):
                needed |= used_values([node])
                nodes.append(node)
        nodes.reverse()
        return fuse_for_device(nodes, self._weights, outputs) if self.is_for_device else nodes

    def _write(
        self,
        path: Path,
        nodes: list[onnx.NodeProto],
        outputs: Sequence[str],
        weights: Mapping[str, onnx.TensorProto],
        *,
        keeps_inputs: bool,
    ) -> None:
        used = used_values(nodes)
        graph = helper.make_graph(
            nodes,
            self._name,
            # Inputs that no node uses need not be fed, so they are left out.
            [value for value in self._inputs if keeps_inputs or value.name in used],
            [value for value in self._outputs if value.name in outputs],
            [weight for name, weight in weights.items() if name in used],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if self._uses_contrib or self.is_for_device:
            opsets.append(helper.make_opsetid(CONTRIB_DOMAIN, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "nestvec"
        helper.set_model_props(model, self.metadata)
        path.write_bytes(model.SerializeToString())
        # ONNX's checker does not know ONNX Runtime's own norms, which device graphs use in the standard domain.
        if not self.is_for_device:
            onnx.checker.check_model(str(path))
