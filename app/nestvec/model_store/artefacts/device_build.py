"""Which graphs a model may have on a GPU, in the order in which they are tried. Pure."""

from collections.abc import Mapping
from typing import Final

from nestvec.engine.types import OutputKind
from nestvec.errors import UnsuitedError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.device_graph import DeviceRecipe
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceRoute
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.folder.derive import Derived

FLOATS: Final[Mapping[Precision, FloatType]] = {
    Precision.FP32: FloatType.FP32,
    Precision.FP16: FloatType.FP16,
    Precision.BF16: FloatType.BF16,
}


def check_suits_device(derived: Derived, wanted: BuildOptions) -> None:
    """Refuse what no packed graph does.

    Raises:
        UnsuitedError: Says what it is.
    """
    if derived.architecture == STATIC_TYPE:
        raise UnsuitedError("a static model has nothing for a GPU to do")
    if derived.onnx_file is not None:
        raise UnsuitedError(f"{derived.onnx_file} is served as it is, not packed")
    if wanted.precision not in FLOATS:
        raise UnsuitedError(f"precision {wanted.precision} is for CPUs; on a GPU use fp16 or bf16")
    late = derived.head.late_interaction
    if late is not None and late.query_tokens and not late.attends_expansion:
        raise UnsuitedError("queries have tokens that are not seen, which packed attention cannot")


def device_recipes(derived: Derived, precision: Precision) -> list[DeviceRecipe]:
    """Graphs to try; the second attention only where it makes another graph."""
    head = derived.head
    floats = FLOATS[precision]
    routes = [DeviceRoute.PAGED, DeviceRoute.PACKED]
    if floats is FloatType.FP32:
        routes = [DeviceRoute.PACKED]
    elif floats is FloatType.BF16:
        routes = [DeviceRoute.PAGED]
    return [
        DeviceRecipe(
            floats=floats,
            route=route,
            pooling=head.pooling,
            tail=head.tail(),
            asks_types=head.asks_types,
            has_exits=OutputKind.DENSE in head.kinds,
        )
        for route in routes
    ]
