"""The calls that a recipe's parts get, what a recipe cannot be asked for, and errors that name the part. Pure."""

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from nestvec.engine.front.validation import check_dtype
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.recipes.recipe import Combination, Recipe
from nestvec.engine.recipes.recipe_slot import OpenPart
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.token_budget import TokenBudget
from nestvec.engine.types import EmbedCall, OutputKind, Priority
from nestvec.errors import (
    InputError,
    InternalError,
    NestvecError,
    RequestTooLargeError,
    UnsupportedError,
)
from nestvec.system.public_names import public_name

Error = TypeVar("Error", bound=NestvecError)
# Embeds one part's call by its model, within what all parts may come to.
RunPart = Callable[[ModelSlot, EmbedCall, TokenBudget], Awaitable[EmbedResult]]

JOINED_AS_UNITS = (Combination.CONCAT, Combination.MEAN)


def check_call(recipe: Recipe, call: EmbedCall, limits: ServiceLimits) -> None:
    """Refuse what a recipe cannot be asked for, before its parts are.

    Raises:
        UnsupportedError: Another output than vectors of texts is asked for, or several vectors of an input would have
            no place in the answer.
        InputError: An option is one of single models; names its field.
        RequestTooLargeError: There are too many inputs, each counted for every part that reads it.
    """
    if call.kind is not OutputKind.DENSE:
        raise UnsupportedError(
            f"{recipe.name} is a recipe, which gives one vector for each text; for other outputs name a model"
        )
    if recipe.combination is Combination.VIEWS and not call.takes_views:
        raise UnsupportedError(
            f"{recipe.name} gives several vectors of each input, one a view, and this answer has no place for them; "
            "ask for them by OpenAI's /v1/embeddings as numbers or base64, or name the model of one view"
        )
    limits.check_inputs(call)
    total = len(call.inputs) * recipe.parts_per_input
    if total > limits.max_inputs:
        raise RequestTooLargeError(
            f"{recipe.name} reads each input {recipe.parts_per_input} times, and {len(call.inputs)} inputs make "
            f"{total}, max {limits.max_inputs} per request; send fewer inputs",
            param="input",
        )
    for index, value in enumerate(call.inputs):
        if not isinstance(value, str | Picture | MixedInput):
            raise InputError(
                f"{recipe.name} is a recipe of models whose token ids differ; send texts",
                param="input",
                input_index=index,
            )
    if call.chunks or call.splits:
        raise InputError(
            "late chunking reads token states of one model, and this is a recipe; name a model",
            param="late_chunking",
        )
    single = {
        "layers": bool(call.layers),
        "map": call.map_id is not None,
        "groups": bool(call.groups),
        "context": bool(call.context),
    }
    for name, is_given in single.items():
        if is_given:
            raise InputError(
                f"'{name}' is an option of single models, and {recipe.name} is a recipe, whose parts have theirs in "
                "the settings; name a model",
                param=name,
            )


def check_options(recipe: Recipe, parts: Sequence[OpenPart], call: EmbedCall) -> None:
    """Refuse options that the recipe has settled for all of its parts, or that its vectors do not have.

    Raises:
        InputError: Names the field.
    """
    if call.dimensions is not None:
        _check_dimensions(recipe, parts, call.dimensions)
    if recipe.combination in JOINED_AS_UNITS:
        joins = recipe.combination is Combination.CONCAT
        native = sum(each.dimensions for each in parts) if joins else parts[0].dimensions
        is_unit = joins or call.normalize is not False
        for dtype in call.output_dtypes:
            check_dtype(dtype, dimensions=call.dimensions or native, is_unit=is_unit)
    prompts = ("prompt", "prompt_name", "instruction", "examples")
    given = next((name for name in prompts if getattr(call, name)), None)
    if given is not None and all(each.part.has_prompt for each in parts):
        raise InputError(
            f"{recipe.name} is a recipe whose parts have prompts of their own; leave '{given}' out, or name a model",
            param=given,
        )


def _check_dimensions(recipe: Recipe, parts: Sequence[OpenPart], dimensions: int) -> None:
    native = sum(each.dimensions for each in parts)
    if recipe.combination is Combination.CONCAT and dimensions != native:
        raise InputError(
            f"Invalid value for 'dimensions' = {dimensions}. Must be {native}: {recipe.name} joins vectors, and the "
            "beginning of a join leaves whole parts out; dimensions of each part are set in the recipe, or name a "
            "model",
            param="dimensions",
        )
    native = parts[0].dimensions
    if recipe.combination is Combination.MEAN and not 1 <= dimensions <= native:
        raise InputError(
            f"Invalid value for 'dimensions' = {dimensions}. Must be 1 to {native}; "
            f"must be less than or equal to {native} for this model.",
            param="dimensions",
        )
    gives_own = recipe.combination in (Combination.VIEWS, Combination.ROUTE)
    own = {each.part.dimensions for each in parts} - {None, dimensions}
    if gives_own and own:
        raise InputError(
            f"{recipe.name} is a recipe whose parts have dimensions of their own "
            f"({', '.join(map(str, sorted(own, key=str)))}); leave 'dimensions' out, or name a model",
            param="dimensions",
        )


def part_call(
    recipe: Recipe,
    opened: OpenPart,
    call: EmbedCall,
    inputs: Sequence[int],
    admit: Callable[[int], Awaitable[None]],
    priority: Priority,
) -> EmbedCall:
    """Return the call that a part gets.

    Args:
        recipe: The recipe.
        opened: The part.
        call: The caller's call.
        inputs: Index of each input that the part reads; as many as there are: all of them, in their order.
        admit: What the call is admitted by.
        priority: Its scheduling class, by what all parts read.
    """
    part = opened.part
    is_unit = recipe.combination in JOINED_AS_UNITS
    asked = None if is_unit else call.dimensions
    reads_all = len(inputs) == len(call.inputs)
    own: dict[str, Any] = {}
    if part.has_prompt:
        own = {"prompt": part.prompt, "prompt_name": part.prompt_name, "prompt_role": None}
        own |= {"instruction": None, "examples": ()}
    return dataclasses.replace(
        call,
        inputs=call.inputs if reads_all else [call.inputs[index] for index in inputs],
        model=opened.slot.name,
        dimensions=asked if part.dimensions is None else part.dimensions,
        normalize=True if is_unit else call.normalize,
        output_dtypes=() if is_unit else call.output_dtypes,
        layers=() if part.layers is None else (part.layers,),
        map_id=part.map_name,
        takes_views=False,
        admit=admit,
        priority=priority,
        **own,
    )


def error_of_part(error: Error, opened: OpenPart, inputs: Sequence[int]) -> Error:
    """Return an error of a part's call as one of the recipe's: it names the part, and the caller's input.

    Args:
        error: It may be another call's as well, which waited for the same text: it stays as it is.
        opened: The part.
        inputs: Index in the caller's call of each input of the part's.
    """
    own = type(error).__new__(type(error))
    own.__dict__.update(error.__dict__)
    name = opened.part.view or opened.name
    own.message = f"{error.message} (part '{public_name(name)}' of the recipe)"
    own.args = (own.message,)
    if isinstance(own, InputError | InternalError) and own.input_index is not None:
        own.input_index = inputs[own.input_index]
    return own
