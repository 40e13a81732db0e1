"""Refuses what a model cannot give, before anything is tokenised. Pure."""

from typing import Final

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ModelSpec, ServedModel
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.engine.vector_plan import Way
from nestvec.errors import InputError, UnsupportedError

NEEDED: Final = {
    OutputKind.DENSE: "a model that gives a vector for each text",
    OutputKind.TOKENS: "a model that gives token vectors",
    OutputKind.SPARSE: "a sparse model (SPLADE)",
    OutputKind.LABELS: "a re-ranker or classifier (cross-encoder)",
}
# Poolings for which a chunk's vector says what the chunk says: others look at one token of the whole.
LATE_POOLINGS: Final = ("mean", "max", "mean_sqrt_len")


def check_output(call: EmbedCall, model: ServedModel, way: Way) -> None:
    """Refuse outputs that the model does not have.

    Raises:
        InputError: Names the field.
    """
    _check_kind(call, model)
    core = model.core
    native = core.outputs.width(call.kind, core.traits.hidden_size) or 0
    if way.map is not None:
        native = way.map.width
    if call.dimensions is not None and call.kind in (OutputKind.SPARSE, OutputKind.LABELS):
        raise InputError("this output has no dimensions to choose from", param="dimensions")
    if call.dimensions is not None and not 1 <= call.dimensions <= native:
        raise InputError(
            f"Invalid value for 'dimensions' = {call.dimensions}. Must be 1 to {native}; "
            f"must be less than or equal to {native} for this model.",
            param="dimensions",
        )
    for dtype in call.output_dtypes:
        _check_dtype(dtype, call, native=native, is_unit=_is_unit(call, model))
    _check_extras(call, way)


def _check_extras(call: EmbedCall, way: Way) -> None:
    """What goes with vectors of whole texts only."""
    is_dense = call.kind is OutputKind.DENSE
    if not is_dense and (way.exits or way.map is not None):
        raise InputError(
            "only vectors of texts can be taken early or mapped",
            param="map" if way.map is not None else "layers",
        )
    if not is_dense and call.truncate is Truncation.WINDOWS:
        raise InputError("only vectors of texts can be averaged over windows", param="truncate")
    if (call.chunks or call.splits) and len(way.exits) > 1:
        raise InputError("late chunking takes one exit", param="layers")


def of_kind(spec: ModelSpec) -> str:
    """What a model is, in words."""
    if OutputKind.LABELS in spec.kinds:
        return "a re-ranker" if spec.is_reranker else "a classifier"
    if OutputKind.DENSE in spec.kinds:
        return "dense"
    return "sparse" if OutputKind.SPARSE in spec.kinds else "a late-interaction model"


def _is_unit(call: EmbedCall, model: ServedModel) -> bool:
    return model.spec.is_normalized if call.normalize is None else call.normalize


def _check_dtype(dtype: OutputDtype, call: EmbedCall, *, native: int, is_unit: bool) -> None:
    if dtype.is_quantised and not is_unit:
        raise InputError(f"'{dtype}' needs unit vectors, not raw ones", param="output_dtype")
    dimensions = call.dimensions or native
    if dimensions % dtype.values_per_item:
        raise InputError(
            f"'{dtype}' packs {dtype.values_per_item} dimensions into a byte, and 'dimensions' = {dimensions} is no "
            f"multiple of {dtype.values_per_item}",
            param="dimensions",
        )


def _check_kind(call: EmbedCall, model: ServedModel) -> None:
    spec = model.spec
    if call.kind not in spec.kinds:
        raise UnsupportedError(
            f"this needs {NEEDED[call.kind]}, and {spec.name} is {of_kind(spec)}"
        )
    is_late = bool(call.chunks or call.splits)
    needs_tokens = call.kind is OutputKind.TOKENS or is_late
    if needs_tokens and not model.core.traits.gives_tokens:
        raise UnsupportedError(
            "this needs token states, and this model's graph gives pooled vectors only"
        )
    if call.pool_factor > 1 and call.kind is not OutputKind.TOKENS:
        raise InputError("only token vectors can be merged", param="pool_factor")
    if is_late and model.spec.pooling not in LATE_POOLINGS:
        raise InputError(
            f"late chunking needs a model with {' or '.join(LATE_POOLINGS)} pooling, and this one has "
            f"{model.spec.pooling}",
            param="late_chunking",
        )
    if is_late and not all(isinstance(given, str) for given in call.inputs):
        raise InputError("late chunking takes texts, not token ids", param="input")
