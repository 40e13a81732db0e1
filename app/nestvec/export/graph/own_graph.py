"""Graphs that a model's folder brings along, and which are served as they are: where they are, and what they need."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from nestvec.errors import FormatError

# In the order in which they are taken: float32, then what Optimum and fastembed call an optimised graph, then a
# quantised one.
ONNX_PATHS: Final = tuple(
    f"{folder}{name}.onnx"
    for name in ("model", "model_optimized", "model_quantized")
    for folder in ("onnx/", "")
)
# Operators that choose the scale of a whole batch's values by their range, so that texts change each other's vectors.
DYNAMIC_PREFIX: Final = "DynamicQuantize"
LOCATION: Final = "location"


@dataclass(frozen=True, slots=True)
class OwnGraph:
    """What a graph file says of itself.

    Attributes:
        external: Names of the files that hold its weights, relative to it.
        dynamic: The operator that quantises a batch's values by their range; "" where there is none.
    """

    external: tuple[str, ...]
    dynamic: str

    @classmethod
    def read(cls, path: Path) -> "OwnGraph":
        """Read a graph file without its external weights.

        Raises:
            FormatError: It is not an ONNX graph, or a file of its weights would lie outside the graph's folder.
        """
        try:
            model = onnx.load_model(path, load_external_data=False)
        except (OSError, ValueError, DecodeError) as error:
            raise FormatError(f"{path}: not a readable ONNX graph ({error})") from error
        external: dict[str, None] = {}
        dynamic = ""
        for graph in _graphs(model.graph):
            sparse = [tensor.values for tensor in graph.sparse_initializer]
            for tensor in (*graph.initializer, *sparse, *_constants(graph)):
                external |= {e.value: None for e in tensor.external_data if e.key == LOCATION}
            kinds = [n.op_type for n in graph.node if n.op_type.startswith(DYNAMIC_PREFIX)]
            dynamic = dynamic or next(iter(kinds), "")
        for function in model.functions:
            kinds = [n.op_type for n in function.node if n.op_type.startswith(DYNAMIC_PREFIX)]
            dynamic = dynamic or next(iter(kinds), "")
        for name in external:
            if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
                raise FormatError(f"{path}: its weights lie in {name[:100]!r}, outside the folder")
        return cls(tuple(sorted(external)), dynamic)


def own_graph_files(path: Path) -> tuple[Path, ...]:
    """List the files whose content decides a graph's vectors: itself, those named after it, and its weights.

    Raises:
        FormatError: It cannot be read, a file of its weights is missing, or it is quantised dynamically.
    """
    graph = OwnGraph.read(path)
    if graph.dynamic:
        raise FormatError(
            f"{path}: the graph is quantised dynamically ({graph.dynamic}): a text's vector would depend on the texts "
            "that are computed beside it; take a float32 graph, or one that is quantised statically"
        )
    for name in graph.external:
        if not (path.parent / name).is_file():
            raise FormatError(f"{path}: its weights lie in '{name}', which is not there")
    beside = {p for p in path.parent.glob(f"{path.name}*") if p.is_file()}
    return tuple(sorted(beside | {path.parent / name for name in graph.external}))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Iterate over a graph and those of its branches and loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _constants(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """List the tensors that nodes have as attributes."""
    return [
        attribute.t
        for node in graph.node
        for attribute in node.attribute
        if attribute.HasField("t")
    ]
