"""Which graphs a model may have on a GPU, in the order in which they are tried; without side effects."""

from collections.abc import Mapping
from typing import Final

from nestvec.errors import UnsuitedError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.device_graph import DeviceExportOptions
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceAttention
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.folder.model_folder import ModelFolder

FLOATS: Final[Mapping[Precision, FloatType]] = {
    Precision.FP32: FloatType.FP32,
    Precision.FP16: FloatType.FP16,
    Precision.BF16: FloatType.BF16,
}

# Cards below have no flash attention: there PagedAttention copies all pages into rows as long as the longest input,
# with key heads repeated for each query head, which PackedMultiHeadAttention does not.
FLASH_CAPABILITY: Final = 8.0


def check_suits_device(folder: ModelFolder, build: BuildOptions) -> None:
    """Refuse a model that no packed graph can run.

    Raises:
        UnsuitedError: Says what it is about the model, or its precision.
    """
    if folder.architecture == STATIC_TYPE:
        raise UnsuitedError("a static model has nothing for a GPU to do")
    if folder.onnx_file is not None:
        raise UnsuitedError(f"{folder.onnx_file} is served as it is, not packed")
    if folder.pictures is not None:
        raise UnsuitedError("a model of two towers runs as on a CPU, in fp32")
    if build.precision not in FLOATS:
        raise UnsuitedError(f"precision {build.precision} is for CPUs; on a GPU use fp16 or bf16")
    late = folder.head.late_interaction
    if late is not None and late.query_tokens and not late.attends_expansion:
        raise UnsuitedError("queries have tokens that are not seen, which packed attention cannot")


def device_export_options(
    folder: ModelFolder, precision: Precision, capability: str = ""
) -> list[DeviceExportOptions]:
    """Return how to export each graph to try; of several attentions only those that make another graph.

    Args:
        folder: The model's files and what they say.
        precision: A key of `FLOATS`.
        capability: Compute capability of the GPU, such as "8.9"; "" where it is not known.
    """
    head = folder.head
    float_type = FLOATS[precision]
    attentions = [DeviceAttention.PAGED, DeviceAttention.PACKED]
    if capability and float(capability) < FLASH_CAPABILITY:
        attentions.reverse()
    if float_type is FloatType.FP32:
        attentions = [DeviceAttention.PACKED]
    elif float_type is FloatType.BF16:
        attentions = [DeviceAttention.PAGED]
    return [
        DeviceExportOptions(
            float_type=float_type,
            attention=attention,
            pooling=head.pooling,
            head=head.graph_head(),
            takes_token_types=head.takes_token_types,
            has_exits=head.has_exits,
        )
        for attention in attentions
    ]
