"""Refuses what a model cannot give, or has no room for, before anything is tokenized."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final

import numpy as np

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.front.vector_plan import VectorPlan, resolve_plan
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.served_model import AliasPreset, ServedModel
from nestvec.engine.outputs.adapters import ADAPTERS, model_words
from nestvec.engine.outputs.context import CONTEXT, check_context
from nestvec.engine.outputs.joint import kinds_of
from nestvec.engine.text.encoded import Encoded
from nestvec.engine.types import EmbedCall, ItemOptions, OutputKind, Truncation
from nestvec.engine.vectors.groups import GROUPS, Groups
from nestvec.errors import ConfigError, InputError, UnsupportedError

# Poolings for which a chunk's vector says what the chunk says: others look at one token of the whole.
LATE_POOLINGS: Final = ("mean", "max", "mean_sqrt_len")

CODES: Final = {OutputDtype.INT8, OutputDtype.UINT8}

# To guess whether a call has room: more than any language has on average, so that the guess is below the truth.
ADMITTED_CHARS_PER_TOKEN: Final = 6


def check_output(call: EmbedCall, model: ServedModel, plan: VectorPlan) -> None:
    """Refuse outputs that the model does not have.

    Raises:
        InputError: The model cannot give what the call asks for; names the field.
        UnsupportedError: The model has no such output.
    """
    _check_kind(call, model)
    _check_dimensions(call, model, plan)
    _check_text_vector_options(call, plan)
    if call.groups or call.weights:
        _check_groups(call, plan)
    if call.context:
        check_context(call, model.spec)


def check_profiles(
    presets: Mapping[str, AliasPreset], model: ServedModel, *, allows_untrained: bool
) -> None:
    """Refuse aliases that stand for a way to vectors, or a dtype, that the model does not have.

    Args:
        presets: What each alias stands for.
        model: The model, loaded.
        allows_untrained: Whether early layers are served that nothing makes useful.

    Raises:
        ConfigError: Names each of them.
    """
    problems = []
    for name, preset in presets.items():
        if preset.layers is None and preset.map_id is None and preset.output_dtype is None:
            continue
        dtypes = () if preset.output_dtype is None else (preset.output_dtype,)
        call = preset.fill(EmbedCall([""], output_dtypes=dtypes))
        try:
            plan = resolve_plan(call, model, allows_untrained=allows_untrained)
            check_output(call, model, plan)
        except (InputError, UnsupportedError) as error:
            problems.append(f"aliases.{name}.{error.param or 'model'}: {error.message}")
    if problems:
        raise ConfigError(problems)


def _check_kind(call: EmbedCall, model: ServedModel) -> None:
    spec, adapter = model.spec, ADAPTERS[call.kind]
    for kind in kinds_of(call.kind):
        if kind not in spec.kinds:
            raise UnsupportedError(
                f"this needs {ADAPTERS[kind].needed_model}, and {spec.name} is {model_words(spec)}"
            )
    is_late = bool(call.chunks or call.splits)
    is_joint = call.kind not in spec.kinds
    if is_joint and is_late:
        raise InputError("late chunking gives one kind of output", param="late_chunking")
    if model.lexical is not None and OutputKind.SPARSE in kinds_of(call.kind):
        _check_lexical(spec.name, is_joint=is_joint, is_late=is_late)
    needs_states = adapter.has_token_rows or is_late or is_joint
    if needs_states and not model.core.backend_info.gives_tokens:
        raise UnsupportedError(
            "this needs token states, and this model's graph gives pooled vectors only"
        )
    if (call.pool_factor or 1) > 1 and not adapter.has_token_rows:
        raise InputError("only token vectors can be merged", param="pool_factor")
    if is_late and spec.pooling not in LATE_POOLINGS:
        raise InputError(
            f"late chunking needs a model with {' or '.join(LATE_POOLINGS)} pooling, and this one has "
            f"{spec.pooling}",
            param="late_chunking",
        )
    if is_late and not all(isinstance(value, str) for value in call.inputs):
        raise InputError("late chunking takes texts, not token ids or pictures", param="input")


def _check_lexical(name: str, *, is_joint: bool, is_late: bool) -> None:
    """Refuse what weights of terms that are counted cannot come with: no run of the model makes them.

    Raises:
        InputError: Names the field.
    """
    if is_joint:
        raise InputError(
            f"{name} has its terms' weights of counts, not of the run that gives the others; ask for them alone",
            param="output_types",
        )
    if is_late:
        raise InputError(
            "late chunking needs token states, and terms are counted without them",
            param="late_chunking",
        )


def _check_dimensions(call: EmbedCall, model: ServedModel, plan: VectorPlan) -> None:
    core, adapter = model.core, ADAPTERS[call.kind]
    native = adapter.width(core.pooler, core.backend_info.hidden_size)
    if plan.map is not None:
        native = plan.map.width
    if call.dimensions is not None and not adapter.has_dimensions:
        raise InputError("this output has no dimensions to choose from", param="dimensions")
    if call.dimensions is not None and plan.map is not None and plan.map.labels:
        raise InputError(
            f"map '{plan.map.name}' gives a value for each of its {native} labels, of which none come first; leave "
            "'dimensions' out",
            param="dimensions",
        )
    if call.dimensions is not None and not 1 <= call.dimensions <= native:
        raise InputError(
            f"Invalid value for 'dimensions' = {call.dimensions}. Must be 1 to {native}; "
            f"must be less than or equal to {native} for this model.",
            param="dimensions",
        )
    is_unit = model.spec.is_normalized if call.normalize is None else call.normalize
    for dtype in call.output_dtypes:
        check_dtype(dtype, dimensions=call.dimensions or native, is_unit=is_unit)


def check_dtype(dtype: OutputDtype, *, dimensions: int, is_unit: bool) -> None:
    """Refuse a dtype that vectors of so many dimensions, or of any length, cannot be given in.

    Raises:
        InputError: Names the field.
    """
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
    if not is_text_vector and (call.groups or call.context):
        raise InputError(
            "this goes with one vector for each text: not with token vectors, terms' weights or labels",
            param=CONTEXT if call.context else GROUPS,
        )
    if not is_text_vector and (plan.exits or plan.map is not None):
        raise InputError(
            "only vectors of texts can be taken early or mapped",
            param="map" if plan.map is not None else "layers",
        )
    if not is_text_vector and call.truncate is Truncation.WINDOWS:
        raise InputError("only vectors of texts can be averaged over windows", param="truncate")
    if (call.chunks or call.splits) and len(plan.exits) > 1:
        raise InputError("late chunking takes one exit", param="layers")


def _check_groups(call: EmbedCall, plan: VectorPlan) -> None:
    """Refuse groups of what has no vector for each input, or that do not fit the call.

    Raises:
        InputError: Names the field.
    """
    Groups(call.groups, call.weights).check(len(call.inputs))
    reason = None
    if call.splits:
        reason = (
            "the server cuts these documents into chunks; group chunks that you cut yourself (true)"
        )
    elif len(plan.exits) > 1:
        reason = "groups take one exit"
    elif plan.quantizer.takes_raw and CODES & set(call.output_dtypes):
        reason = "this model's own 8-bit codes are of single texts; take groups as floats or bits"
    if reason is not None:
        raise InputError(reason, param=GROUPS)


def room_for(
    call: EmbedCall,
    model: ServedModel,
    limits: ServiceLimits,
    prompt_chars: int,
    arrived_s: float,
) -> AbstractContextManager[None]:
    """Refuse what would be refused behind the tokenizer, which under overload takes a good part of the time.

    As long as the block runs, the core knows that the call is on its way.

    Args:
        call: The call.
        model: Its model.
        limits: They decide about its class.
        prompt_chars: Number of characters before each input.
        arrived_s: Monotonic time when it came.

    Raises:
        QueueFullError: There is no room for about as many tokens, or the wait would be too long.
    """
    max_tokens = model.spec.max_tokens
    guesses = ((prompt_chars + len(value)) // ADMITTED_CHARS_PER_TOKEN for value in call.texts)
    priority = limits.priority_of(call, len(call.inputs))
    options = ItemOptions(call.key_id, priority, call.deadline_s, arrived_s=arrived_s)
    # A call that has more is refused once that is known, and waits for nobody until then.
    tokens = min(limits.max_tokens, sum(min(max_tokens, guess) for guess in guesses))
    return model.core.expecting(tokens, options)


def windowed_states(encoded: Sequence[Encoded], model: ServedModel) -> tuple[int, int]:
    """Return the tokens whose states are kept until all are there, and the size in bytes of the state of one."""
    tokens = sum(each.windows.tokens for each in encoded if each.windows and each.spans)
    return tokens, model.core.backend_info.hidden_size * np.dtype(np.float32).itemsize


async def admit_tokens(
    call: EmbedCall,
    encoded: Sequence[Encoded],
    model: ServedModel,
    limits: ServiceLimits,
    tokens: int,
) -> None:
    """Let a call's tokens pass, or refuse them, once they are counted and before they are queued.

    Args:
        call: The call.
        encoded: Its inputs.
        model: The model that is to run them.
        limits: Bounds on any call.
        tokens: How many tokens there are.

    Raises:
        RequestTooLargeError: There are more than a call may have.
        NestvecError: Whom the call is for may not have so many.
    """
    limits.check_tokens(call, tokens)
    if call.chunks or call.splits:
        limits.check_states(*windowed_states(encoded, model))
    if call.admit is not None:
        await call.admit(tokens)
