"""Writes CUDA's packed attention ops out in standard ONNX, as their documentation defines them.

A graph for CUDA becomes one for the CPU that must give the same vectors. This says nothing of CUDA's kernels; it shows
that our graphs mean what they should, provided that the ops do what their authors say.
"""

import shutil
import tempfile
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MASKED = -1e9


def emulate(path: Path) -> Path:
    """Rewrite a device graph, and those of its exits, for the CPU in a new folder; returns the new graph's path."""
    folder = Path(tempfile.mkdtemp(prefix="nestvec-emulated-"))
    shutil.copy(path.with_name("weights.bin"), folder)
    for graph in (path, *path.parent.glob("exit_*.onnx")):
        _rewrite(graph, folder / graph.name)
        if _is_bf16(graph):
            _widen(folder / graph.name)
    return folder / path.name


def _rewrite(path: Path, target: Path) -> None:
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in ("PackedMultiHeadAttention", "PagedAttention"):
            body = _Body(node)
            body.packed() if node.op_type.startswith("Packed") else body.paged()
            nodes += body.nodes
            graph.initializer.extend(body.constants)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    # Inputs that only pages and offsets were for are not fed any more.
    used = {name for node in nodes for name in node.input}
    inputs = [value for value in graph.input if value.name in used]
    del graph.input[:]
    graph.input.extend(inputs)
    target.write_bytes(model.SerializeToString())


def _is_bf16(path: Path) -> bool:
    model = onnx.load(str(path), load_external_data=False)
    return any(weight.data_type == TensorProto.BFLOAT16 for weight in model.graph.initializer)


def _widen(path: Path) -> None:
    """Make a bfloat16 graph compute in float32, as the CPU has no bfloat16 kernels; weights stay rounded."""
    model = onnx.load(str(path))
    for number, weight in enumerate(model.graph.initializer):
        if weight.data_type == TensorProto.BFLOAT16:
            values = numpy_helper.to_array(weight).astype(np.float32)
            model.graph.initializer[number].CopyFrom(numpy_helper.from_array(values, weight.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    path.write_bytes(model.SerializeToString())


class _Body:
    """The nodes that stand for one attention op."""

    numbers = count()

    def __init__(self, node: onnx.NodeProto) -> None:
        self.node = node
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.inputs = [*node.input, *[""] * (17 - len(node.input))]

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"emulated_{next(self.numbers)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        name = f"emulated_{next(self.numbers)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def wide(self, value: str) -> str:
        return self.op("Cast", value, to=TensorProto.FLOAT)

    def give(self, attended: str, like: str) -> None:
        self.nodes.append(helper.make_node("CastLike", [attended, like], [self.node.output[0]]))

    def owners(self, cumulative: str, total: str) -> tuple[str, str]:
        """Return the input that each token belongs to, and its position there, (T,) each."""
        lengths = self.op("Cast", cumulative, to=TensorProto.INT64)
        tokens = self.op("Range", self.constant(0, np.int64), total, self.constant(1, np.int64))
        stops = self.op("Slice", lengths, self.ints(1), self.ints(2**31))
        behind = self.op("GreaterOrEqual", self.op("Unsqueeze", tokens, self.ints(1)), stops)
        owner = self.op(
            "ReduceSum", self.op("Cast", behind, to=TensorProto.INT64), self.ints(1), keepdims=0
        )
        return owner, self.op("Sub", tokens, self.op("Gather", lengths, owner))

    def attend(
        self,
        query: str,
        key: str,
        value: str,
        cumulative: str,
        total: str,
        *,
        scale: float,
        bias: str = "",
        is_causal: bool = False,
        window: int = -1,
        cap: float = 0.0,
    ) -> str:
        """Attend with heads (T, n, d) each, float32; gives (T, n·d)."""
        owner, position = self.owners(cumulative, total)
        one = self.ints(1)
        row = self.op("Unsqueeze", owner, one)
        hidden = self.op("Not", self.op("Equal", row, owner))
        behind = self.op("Sub", self.op("Unsqueeze", position, one), position)
        if is_causal:
            hidden = self.op("Or", hidden, self.op("Less", behind, self.constant(0, np.int64)))
        if window > 0:
            # The token itself is counted, as in the CPU's GroupQueryAttention.
            hidden = self.op(
                "Or", hidden, self.op("Greater", behind, self.constant(window - 1, np.int64))
            )
        q, k = (
            self.op("Transpose", query, perm=[1, 0, 2]),
            self.op("Transpose", key, perm=[1, 2, 0]),
        )
        scores = self.op("Mul", self.op("MatMul", q, k), self.constant(scale, np.float32))
        if cap:
            limit = self.constant(cap, np.float32)
            scores = self.op("Mul", self.op("Tanh", self.op("Div", scores, limit)), limit)
        if bias:
            scores = self.op("Add", scores, self.spread(bias, owner, position))
        masked = self.op(
            "Where", hidden, self.constant(MASKED, np.float32), self.constant(0, np.float32)
        )
        shares = self.op("Softmax", self.op("Add", scores, masked), axis=-1)
        mixed = self.op("MatMul", shares, self.op("Transpose", value, perm=[1, 0, 2]))
        whole = self.op("Transpose", mixed, perm=[1, 0, 2])
        shape = self.op("Concat", self.op("Unsqueeze", total, self.ints(0)), self.ints(-1), axis=0)
        return self.op("Reshape", whole, shape)

    def spread(self, bias: str, owner: str, position: str) -> str:
        """Look a bias (B or 1, n or 1, S, S) up for each pair of tokens; gives (n or 1, T, T)."""
        wide = self.op("Transpose", self.wide(bias), perm=[0, 2, 3, 1])
        batch = self.op("Gather", self.op("Shape", wide), self.constant(0, np.int64))
        inputs = self.op("Min", owner, self.op("Sub", batch, self.constant(1, np.int64)))
        one, zero, last = self.ints(1), self.ints(0), self.ints(-1)
        rows = self.op("Unsqueeze", position, one)
        columns = self.op("Unsqueeze", position, zero)
        total = self.op("Shape", position)
        square = self.op("Concat", total, total, axis=0)
        index = self.op(
            "Concat",
            *(
                self.op("Unsqueeze", self.op("Expand", part, square), last)
                for part in (self.op("Unsqueeze", inputs, one), rows, columns)
            ),
            axis=-1,
        )
        return self.op("Transpose", self.op("GatherND", wide, index), perm=[2, 0, 1])

    def total(self, value: str) -> str:
        return self.op("Gather", self.op("Shape", value), self.constant(0, np.int64))

    def packed(self) -> None:
        query, key, value, bias, _, cumulative, score_bias, *_ = self.inputs
        heads = self.attributes["num_heads"]
        total = self.total(query)
        if not key:
            whole = self.wide(query)  # (T, n, 3, d)
            parts = [
                self.op("Gather", whole, self.constant(number, np.int64), axis=2)
                for number in range(3)
            ]
        else:
            parts = [self.heads(self.wide(part), heads) for part in (query, key, value)]
        if bias:
            third = self.op("Reshape", self.wide(bias), self.ints(3, heads, -1))
            parts = [
                self.op(
                    "Add", part, self.op("Gather", third, self.constant(number, np.int64), axis=0)
                )
                for number, part in enumerate(parts)
            ]
        query_heads, key_heads, value_heads = parts
        scale = self.attributes["scale"]
        attended = self.attend(
            query_heads, key_heads, value_heads, cumulative, total, scale=scale, bias=score_bias
        )
        self.give(attended, query)

    def heads(self, value: str, number: int) -> str:
        return self.op("Reshape", value, self.ints(0, number, -1))

    def paged(self) -> None:
        merged, _, _, _, _, cumulative, _, _, cosine, sine, _, _, q_norm, k_norm, *_ = self.inputs
        heads, kv_heads = self.attributes["num_heads"], self.attributes["kv_num_heads"]
        total = self.total(merged)
        whole = self.heads(self.wide(merged), heads + 2 * kv_heads)
        starts = np.cumsum([0, heads, kv_heads, kv_heads])
        query, key, value = (
            self.op("Slice", whole, self.ints(int(a)), self.ints(int(b)), self.ints(1))
            for a, b in pairwise(starts)
        )
        if q_norm:
            query, key = self.normed(query, q_norm), self.normed(key, k_norm)
        if self.attributes.get("do_rotary"):
            _, position = self.owners(cumulative, total)
            query, key = (self.rotated(part, position, cosine, sine) for part in (query, key))
        order = np.repeat(np.arange(kv_heads), heads // kv_heads)
        key, value = (
            self.op("Gather", part, self.ints(*map(int, order)), axis=1) for part in (key, value)
        )
        attended = self.attend(
            query,
            key,
            value,
            cumulative,
            total,
            scale=self.attributes["scale"],
            is_causal=bool(self.attributes.get("is_causal", 1)),
            window=self.attributes.get("local_window_size", -1),
            cap=self.attributes.get("softcap", 0.0),
        )
        self.give(attended, merged)

    def normed(self, heads: str, scale: str) -> str:
        last = self.ints(-1)
        mean = self.op("ReduceMean", self.op("Mul", heads, heads), last, keepdims=1)
        epsilon = self.constant(self.attributes["qk_norm_epsilon"], np.float32)
        root = self.op("Sqrt", self.op("Add", mean, epsilon))
        return self.op("Mul", self.op("Div", heads, root), self.wide(scale))

    def rotated(self, heads: str, position: str, cosine: str, sine: str) -> str:
        one = self.ints(1)
        cos, sin = (
            self.op("Unsqueeze", self.wide(self.op("Gather", table, position)), one)
            for table in (cosine, sine)
        )
        half = f"emulated_{next(self.numbers)}", f"emulated_{next(self.numbers)}"
        self.nodes.append(helper.make_node("Split", [heads], list(half), axis=-1, num_outputs=2))
        first, second = half
        return self.op(
            "Concat",
            self.op("Sub", self.op("Mul", first, cos), self.op("Mul", second, sin)),
            self.op("Add", self.op("Mul", second, cos), self.op("Mul", first, sin)),
            axis=-1,
        )
