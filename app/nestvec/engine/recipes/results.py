"""Results of a recipe's parts to one of the recipe's. Pure."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.outputs.base import Finished, converted
from nestvec.engine.recipes.combining import averaged, joined
from nestvec.engine.recipes.recipe import Combination, Recipe
from nestvec.engine.recipes.recipe_slot import OpenPart
from nestvec.engine.results import EmbedResult, LongInput, Timings
from nestvec.engine.splitting import Check, go_on
from nestvec.engine.types import EmbedCall
from nestvec.engine.vectors.postprocess import finish

CALIBRATED = {OutputDtype.INT8, OutputDtype.UINT8}


def combine(
    recipe: Recipe,
    parts: Sequence[OpenPart],
    results: Sequence[EmbedResult],
    model: ServedModel,
    call: EmbedCall,
    check: Check = go_on,
) -> Finished:
    """Join or average the vectors of all parts, and convert them to the dtypes that the call asks for.

    Args:
        recipe: Says how.
        parts: Its parts.
        results: Their unit vectors, in the same order.
        model: The recipe as a model, with its ranges for 8-bit vectors.
        call: The caller's call.
        check: Called between steps; what it raises ends the work.
    """
    weights = [each.part.weight for each in parts]
    arrays = [result.vectors for result in results]
    if recipe.combination is Combination.CONCAT:
        vectors = joined(arrays, weights, check)
    else:
        is_unit = call.normalize is not False
        mean = averaged(arrays, weights, check)
        vectors = finish(mean, dimensions=call.dimensions, normalize=is_unit)
    return Finished(vectors, (1,) * len(vectors), converted(vectors, call, model.quantizer, check))


def of_all_parts(
    results: Sequence[EmbedResult], model: ServedModel, call: EmbedCall, finished: Finished
) -> EmbedResult:
    """Return a recipe's result where every part has read every input.

    An input's tokens are those of all parts; it was cut where any part cut it.
    """
    first = results[0]
    prompts = [result.prompt_used for result in results if result.prompt_used is not None]
    is_calibrated = bool(CALIBRATED & set(finished.converted))
    return dataclasses.replace(
        first,
        vectors=finished.vectors,
        converted=finished.converted,
        input_tokens=tuple(map(sum, zip(*(each.input_tokens for each in results), strict=True))),
        is_truncated=tuple(map(any, zip(*(each.is_truncated for each in results), strict=True))),
        model=model.spec.name,
        space=model.spec.space,
        prompt_used=prompts[0] if prompts else None,
        timings=_longest([each.timings for each in results]),
        provider=model.core.backend_info.provider,
        quantization=model.quantizer.id if is_calibrated else "",
        rows=finished.rows,
        layers=0,
        map_name="",
        long_inputs=_long_inputs(results),
        # The parts' prompts are the settings', not the call's.
        instruction_tokens=(),
    )


def side_by_side(
    parts: Sequence[OpenPart], results: Sequence[EmbedResult], model: ServedModel, call: EmbedCall
) -> EmbedResult:
    """Return a recipe's result where the vectors of each part are a view."""
    first = Finished(results[0].vectors, results[0].rows, results[0].converted)
    ids = dict.fromkeys(result.quantization for result in results if result.quantization)
    return dataclasses.replace(
        of_all_parts(results, model, call, first),
        quantization=",".join(ids),
        views={each.part.view: result for each, result in zip(parts, results, strict=True)},
    )


def of_routed(
    results: Mapping[int, EmbedResult], chosen: Sequence[int], name: str, route: str
) -> EmbedResult:
    """Return a recipe's result where each input was read by one part.

    Args:
        results: By part: the results of its inputs, in the caller's order.
        chosen: The part of each input.
        name: The recipe's name.
        route: What a header tells of it.
    """
    first = next(iter(results.values()))
    some = dataclasses.replace(first, model=name, route=route, instruction_tokens=())
    if len(results) == 1:
        return some
    order = np.argsort(np.argsort(chosen, kind="stable"), kind="stable")
    in_order = [results[part] for part in sorted(results)]
    tokens = [n for result in in_order for n in result.input_tokens]
    cut = [is_cut for result in in_order for is_cut in result.is_truncated]
    by_part = {part: [i for i, c in enumerate(chosen) if c == part] for part in results}
    long_inputs = [
        dataclasses.replace(each, index=by_part[part][each.index])
        for part, result in results.items()
        for each in result.long_inputs
    ]
    prompts = [each.prompt_used for each in in_order if each.prompt_used is not None]
    return dataclasses.replace(
        some,
        vectors=np.concatenate([result.vectors for result in in_order])[order],
        converted={
            dtype: np.concatenate([result.converted[dtype] for result in in_order])[order]
            for dtype in some.converted
        },
        input_tokens=tuple(tokens[place] for place in order),
        is_truncated=tuple(cut[place] for place in order),
        prompt_used=prompts[0] if prompts else None,
        timings=_longest([each.timings for each in in_order]),
        quantization=",".join(dict.fromkeys(each.quantization for each in in_order)),
        rows=(1,) * len(chosen),
        long_inputs=tuple(sorted(long_inputs, key=lambda each: each.index)),
    )


def _longest(timings: Sequence[Timings]) -> Timings:
    """Return for each stage the time of the part that took longest: parts run together."""
    return Timings(
        max(each.tokenize_s for each in timings),
        max(each.queue_wait_s for each in timings),
        max(each.engine_s for each in timings),
        max(each.postprocess_s for each in timings),
    )


def _long_inputs(results: Sequence[EmbedResult]) -> tuple[LongInput, ...]:
    """Return what became of each long input by the part that read least of it."""
    by_index: dict[int, LongInput] = {}
    for result in results:
        for long_input in result.long_inputs:
            known = by_index.get(long_input.index)
            if known is None or long_input.seen_tokens < known.seen_tokens:
                by_index[long_input.index] = long_input
    return tuple(by_index[index] for index in sorted(by_index))
