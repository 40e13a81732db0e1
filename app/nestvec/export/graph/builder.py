"""A thin builder over `onnx.helper`: named nodes, typed values, weights beside the graph."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nestvec.export.graph.external_data import store_outside
from nestvec.export.graph.fusion import fuse_for_device, taken_by

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
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "bool": TensorProto.BOOL,
}


class FloatType(StrEnum):
    """What a graph's states and weights are in."""

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
        name: Of the graph.
        halves_weights: Store large float32 weights as float16; they are widened when the graph is opened, so it
            computes in float32 all the same.
        floats: What states and weights are in.
        is_for_device: For CUDA: other ops are good there, and products get no bias of their own.
    """

    def __init__(
        self,
        name: str,
        *,
        halves_weights: bool = False,
        floats: FloatType = FloatType.FP32,
        is_for_device: bool = False,
    ) -> None:
        self._name = name
        self._halves_weights = halves_weights
        self.floats = floats
        self.is_for_device = is_for_device
        self._nodes: list[onnx.NodeProto] = []
        self._casts: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0
        self._uses_contrib = False
        self.metadata: dict[str, str] = {}

    @property
    def float_type(self) -> int:
        """What states are in, as ONNX names it."""
        return DTYPES[self.floats]

    def input(self, name: str, dtype: str, shape: tuple[str | int, ...]) -> str:
        """Declare a graph input; names in `shape` are symbolic axes."""
        self._inputs.append(helper.make_tensor_value_info(name, DTYPES[dtype], shape))
        return name

    def shared_input(self, name: str, dtype: str, shape: tuple[str | int, ...]) -> str:
        """Declare an input unless it is declared."""
        if any(value.name == name for value in self._inputs):
            return name
        return self.input(name, dtype, shape)

    def output(self, value: str, name: str, shape: tuple[str | int, ...]) -> None:
        """Give a value of the graph's own floats out under a name, bfloat16 as float32, which numpy has."""
        given = FloatType.FP32 if self.floats is FloatType.BF16 else self.floats
        self.typed_output(value, name, shape, given if given is not self.floats else None)

    def typed_output(
        self, value: str, name: str, shape: tuple[str | int, ...], cast_to: FloatType | None
    ) -> None:
        """Give a value out under a name.

        Args:
            value: In the graph's own floats, where it is cast to nothing else.
            name: Of the output.
            shape: Of the value.
            cast_to: What to give it in; None for as it is.
        """
        kind = DTYPES[cast_to or self.floats]
        made = (
            helper.make_node("Identity", [value], [name], name=f"output/{name}")
            if cast_to is None
            else helper.make_node("Cast", [value], [name], name=f"output/{name}", to=kind)
        )
        self._nodes.append(made)
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

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

    def weight(self, name: str, array: NDArray[Any], *, is_exact: bool = False) -> str:
        """Add an initializer; the same name twice is the same weight.

        Args:
            name: Its name.
            array: Its values; float32 ones are kept in the graph's own floats.
            is_exact: Keep them in float32.
        """
        if name in self._weights:
            return name
        if array.dtype == np.float32 and self.floats is not FloatType.FP32 and not is_exact:
            clipped = (
                np.clip(array, -HALF_MAX, HALF_MAX) if self.floats is FloatType.FP16 else array
            )
            array = clipped.astype(NUMPY_TYPES[self.floats])
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
        """Add an If with one output in the graph's floats; weights and outer values are shared by both branches.

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
            output = helper.make_tensor_value_info(value, self.float_type, shape)
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
        outputs = [output.name for output in self._outputs]
        self.save_parts({path: outputs}, weights_file, keeps_inputs=keeps_inputs)

    def save_parts(
        self,
        parts: Mapping[Path, Sequence[str]],
        weights_file: str = WEIGHTS_FILE,
        *,
        keeps_inputs: bool = False,
    ) -> None:
        """Write graphs that give some of the outputs each; all have their large weights in one file.

        Args:
            parts: Names of a graph's outputs, by where it goes; all in one folder.
            weights_file: Name of the other file.
            keeps_inputs: See `save`.

        Raises:
            OSError: The disk is full or read-only.
        """
        graphs = {path: self._nodes_for(outputs) for path, outputs in parts.items()}
        taken = set[str]().union(*(taken_by(nodes) for nodes in graphs.values()))
        folder = next(iter(parts)).parent
        weights = {name: self._weights[name] for name in self._weights if name in taken}
        stored = store_outside(weights, folder / weights_file)
        for path, nodes in graphs.items():
            self._write(path, nodes, parts[path], stored, keeps_inputs=keeps_inputs)

    def _nodes_for(self, outputs: Sequence[str]) -> list[onnx.NodeProto]:
        """Nodes that outputs need, in order; for a device those that are best there."""
        needed = set(outputs)
        kept: list[onnx.NodeProto] = []
        for node in reversed([*self._casts, *self._nodes]):
            if needed.intersection(node.output):
                needed |= taken_by([node])
                kept.append(node)
        kept.reverse()
        return fuse_for_device(kept, self._weights, outputs) if self.is_for_device else kept

    def _write(
        self,
        path: Path,
        nodes: list[onnx.NodeProto],
        outputs: Sequence[str],
        weights: Mapping[str, onnx.TensorProto],
        *,
        keeps_inputs: bool,
    ) -> None:
        taken = taken_by(nodes)
        graph = helper.make_graph(
            nodes,
            self._name,
            [
                value for value in self._inputs if keeps_inputs or value.name in taken
            ],  # none need be fed for nothing
            [value for value in self._outputs if value.name in outputs],
            [weight for name, weight in weights.items() if name in taken],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        if self._uses_contrib or self.is_for_device:
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        model.producer_name = "nestvec"
        helper.set_model_props(model, self.metadata)
        path.write_bytes(model.SerializeToString())
        if not self.is_for_device:  # the checker does not know onnxruntime's own norms
            onnx.checker.check_model(str(path))
