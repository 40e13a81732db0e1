"""Refuses what a model cannot give, before anything is tokenized. Pure."""

from typing import Final

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.outputs.adapters import ADAPTERS, model_words
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.engine.vector_plan import VectorPlan
from nestvec.errors import InputError, UnsupportedError

# Poolings for which a chunk's vector says what the chunk says: others look at one token of the whole.
LATE_POOLINGS: Final = ("mean", "max", "mean_sqrt_len")


def check_output(call: EmbedCall, model: ServedModel, plan: VectorPlan) -> None:
    """Refuse outputs that the model does not have.

    Raises:
        InputError: The model cannot give what the call asks for; names the field.
        UnsupportedError: The model has no such output.
    """
    _check_kind(call, model)
    _check_dimensions(call, model, plan)
    _check_text_vector_options(call, plan)


def _check_kind(call: EmbedCall, model: ServedModel) -> None:
    spec, adapter = model.spec, ADAPTERS[call.kind]
    if call.kind not in spec.kinds:
        raise UnsupportedError(
            f"this needs {adapter.needed_model}, and {spec.name} is {model_words(spec)}"
        )
    is_late = bool(call.chunks or call.splits)
    needs_states = adapter.has_token_rows or is_late
    if needs_states and not model.core.backend_info.gives_tokens:
        raise UnsupportedError(
            "this needs token states, and this model's graph gives pooled vectors only"
        )
    if call.pool_factor > 1 and not adapter.has_token_rows:
        raise InputError("only token vectors can be merged", param="pool_factor")
    if is_late and spec.pooling not in LATE_POOLINGS:
        raise InputError(
            f"late chunking needs a model with {' or '.join(LATE_POOLINGS)} pooling, and this one has "
            f"{spec.pooling}",
            param="late_chunking",
        )
    if is_late and not all(isinstance(value, str) for value in call.inputs):
        raise InputError("late chunking takes texts, not token ids", param="input")


def _check_dimensions(call: EmbedCall, model: ServedModel, plan: VectorPlan) -> None:
    core, adapter = model.core, ADAPTERS[call.kind]
    native = adapter.width(core.pooler, core.backend_info.hidden_size)
    if plan.map is not None:
        native = plan.map.width
    if call.dimensions is not None and not adapter.has_dimensions:
        raise InputError("this output has no dimensions to choose from", param="dimensions")
    if call.dimensions is not None and not 1 <= call.dimensions <= native:
        raise InputError(
            f"Invalid value for 'dimensions' = {call.dimensions}. Must be 1 to {native}; "
            f"must be less than or equal to {native} for this model.",
            param="dimensions",
        )
    is_unit = model.spec.is_normalized if call.normalize is None else call.normalize
    for dtype in call.output_dtypes:
        _check_dtype(dtype, dimensions=call.dimensions or native, is_unit=is_unit)


def _check_dtype(dtype: OutputDtype, *, dimensions: int, is_unit: bool) -> None:
    if dtype.is_quantized and not is_unit:
        raise InputError(f"'{dtype}' needs unit vectors, not raw ones", param="output_dtype")
    if dimensions % dtype.values_per_item:
        raise InputError(
            f"'{dtype}' packs {dtype.values_per_item} dimensions into a byte, and 'dimensions' = {dimensions} is no "
            f"multiple of {dtype.values_per_item}",
            param="dimensions",
        )


def _check_text_vector_options(call: EmbedCall, plan: VectorPlan) -> None:
    """Refuse options that go with vectors of whole texts only."""
    is_text_vector = ADAPTERS[call.kind].is_text_vector
    if not is_text_vector and (plan.exits or plan.map is not None):
        raise InputError(
            "only vectors of texts can be taken early or mapped",
            param="map" if plan.map is not None else "layers",
        )
    if not is_text_vector and call.truncate is Truncation.WINDOWS:
        raise InputError("only vectors of texts can be averaged over windows", param="truncate")
    if (call.chunks or call.splits) and len(plan.exits) > 1:
        raise InputError("late chunking takes one exit", param="layers")
