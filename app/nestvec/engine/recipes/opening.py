"""Opens a recipe once the models of its parts are loaded: what it says is checked against them, and its space told."""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from typing import Final

import numpy as np
import orjson

from nestvec.engine.backend import BackendInfo
from nestvec.engine.core.ports import CoreHealth
from nestvec.engine.front.validation import check_output
from nestvec.engine.front.vector_plan import VectorPlan, resolve_plan
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.models.served_model import NO_PRESET, ServedModel
from nestvec.engine.recipes.combining import averaged, joined, shares_of
from nestvec.engine.recipes.languages import language_teller
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart
from nestvec.engine.recipes.recipe_slot import OpenPart, RecipeSlot
from nestvec.engine.recipes.routing import fields_of
from nestvec.engine.results import RawVectors
from nestvec.engine.tokenization import resolve_prompt
from nestvec.engine.types import EmbedCall, FloatArray, ItemOptions, Layout, OutputKind, Submission
from nestvec.engine.vectors.maps import SPACE_CHARS
from nestvec.engine.vectors.pooler import Pooler
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import ConfigError, InputError, InternalError, ModelError
from nestvec.system.public_names import public_name

ARCHITECTURE: Final = "recipe"
# Calibration vectors of these sources are of the same texts, in the same order, whatever the model.
SHARED_TEXTS: Final = ("bundled", "texts")


class RecipeCore:
    """Stands where a model has its core: a recipe's items are run by the cores of its parts.

    Args:
        info: What stands where a backend describes itself: values of all vectors of an input, and where they come from.
        max_batch_tokens: The least of the parts'.
    """

    def __init__(self, info: BackendInfo, max_batch_tokens: int) -> None:
        self.backend_info, self.max_batch_tokens = info, max_batch_tokens
        self.pooler = Pooler("mean")

    def expecting(self, tokens: int, options: ItemOptions) -> AbstractContextManager[None]:
        """Refuse nothing: the parts' cores do."""
        del tokens, options
        return nullcontext()

    def health(self, now_s: float, batch_timeout_s: float) -> CoreHealth:
        """Return that nothing waits here."""
        del now_s, batch_timeout_s
        return CoreHealth()

    async def submit(self, submission: Submission) -> RawVectors:
        """Refuse items.

        Raises:
            InternalError: Always: nothing submits any.
        """
        del submission
        raise InternalError("a recipe runs nothing itself")

    def close(self) -> None:
        """Do nothing: there is nothing to stop."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Checked:
    """A part that was checked against its model."""

    opened: OpenPart
    model: ServedModel
    plan: VectorPlan


def open_recipe(slot: RecipeSlot, *, allows_untrained: bool) -> ServedModel:
    """Open a recipe whose parts' models are loaded; notes its parts in the slot.

    Args:
        slot: The recipe.
        allows_untrained: Whether early layers are served that nothing makes useful.

    Raises:
        ModelError: A part is not loaded.
        ConfigError: Parts cannot give what the recipe says, or do not fit together; names each.
    """
    recipe, problems, parts = slot.recipe, [], []
    for number, (part_slot, part) in enumerate(zip(slot.parts, recipe.parts, strict=True)):
        try:
            parts.append(_checked(part_slot, part, allows_untrained=allows_untrained))
        except InputError as error:
            problems.append(f"{recipe.place(number)}: {error.message}")
    problems = problems or _misfits(recipe, [each.opened for each in parts])
    if problems:
        raise ConfigError(problems)
    slot.opened = tuple(each.opened for each in parts)
    return _as_model(recipe, parts)


def _checked(slot: ModelSlot, part: RecipePart, *, allows_untrained: bool) -> _Checked:
    """Check what a recipe says of a part against its model.

    Raises:
        ModelError: It is not loaded.
        InputError: It cannot give what the recipe asks for.
    """
    model = slot.model
    if model is None:
        raise ModelError(f"{public_name(slot.name)}, a part of it, is not loaded")
    preset = slot.preset(part.model) if part.model else NO_PRESET
    part = dataclasses.replace(
        part,
        dimensions=part.dimensions or preset.dimensions,
        prompt_name=part.prompt_name if part.has_prompt else preset.prompt_name,
    )
    call = EmbedCall(
        (),
        dimensions=part.dimensions,
        normalize=True,
        prompt=part.prompt,
        prompt_name=part.prompt_name,
        layers=() if part.layers is None else (part.layers,),
        map_id=part.map_name,
    )
    plan = resolve_plan(call, model, allows_untrained=allows_untrained)
    check_output(call, model, plan)
    resolve_prompt(call, model.spec)
    native = model.spec.hidden_size if plan.map is None else plan.map.width
    name = public_name(part.model or slot.name)
    width = part.dimensions or native
    opened = OpenPart(
        slot,
        part,
        name,
        plan.space,
        width,
        takes_pictures=model.spec.pictures is not None,
        takes_mixtures=model.spec.takes_mixtures,
    )
    return _Checked(opened, model, plan)


def _misfits(recipe: Recipe, parts: list[OpenPart]) -> list[str]:
    """Return why parts do not fit together, a sentence for each problem."""
    problems = []
    if recipe.combination is Combination.MEAN:
        problems = _other_widths(recipe, parts, "only vectors of as many dimensions have a mean")
    if recipe.combination is Combination.ROUTE:
        if not recipe.allows_spaces:
            problems = [
                f"{recipe.place(number)}: its vectors are in another space than those of {parts[0].name}, and cannot "
                "be compared with them; set allow_spaces = true where the caller keeps them apart"
                for number, part in enumerate(parts)
                if part.space != parts[0].space
            ]
            problems = problems or _other_widths(
                recipe, parts, "set the same 'dimensions' for all, or allow_spaces = true"
            )
        if "language" in fields_of(recipe):
            problems += _unknown_languages(recipe)
    return problems


def _other_widths(recipe: Recipe, parts: list[OpenPart], reason: str) -> list[str]:
    return [
        f"{recipe.place(number)}: gives {part.dimensions} dimensions, and {recipe.place(0)} gives "
        f"{parts[0].dimensions}: {reason}"
        for number, part in enumerate(parts)
        if part.dimensions != parts[0].dimensions
    ]


def _unknown_languages(recipe: Recipe) -> list[str]:
    """Return which languages of a route's conditions can never be told.

    Raises:
        ConfigError: The library that tells them is not installed.
    """
    known = language_teller()[1]
    asked = {
        (number, word)
        for number, part in enumerate(recipe.parts)
        if part.condition is not None
        for comparison in part.condition.comparisons
        if comparison.field == "language"
        for word in comparison.words
    }
    return [
        f"{recipe.place(number)}.when: the language '{word}' is never told; these are: {', '.join(sorted(known))}"
        for number, word in sorted(asked)
        if word not in known
    ]


def _as_model(recipe: Recipe, parts: list[_Checked]) -> ServedModel:
    """Return what a recipe is, where a model is described."""
    specs = [each.model.spec for each in parts]
    opened = [each.opened for each in parts]
    widths = [each.dimensions for each in opened]
    sums_widths = recipe.combination in (Combination.CONCAT, Combination.VIEWS)
    values = sum(widths) if sums_widths else max(widths)
    width = max(widths) if recipe.combination is Combination.VIEWS else values
    # A route's parts share the inputs, so that one may take what is too long for another.
    longest = max if recipe.combination is Combination.ROUTE else min
    limiting = longest(parts, key=lambda each: each.model.tokenizer.max_tokens).model
    providers = {each.model.core.backend_info.provider for each in parts}
    info = BackendInfo(Layout.PACKED, _one_of(providers), values, gives_tokens=False)
    spec = ModelSpec(
        name=recipe.name,
        hidden_size=width,
        max_tokens=limiting.spec.max_tokens,
        vocabulary_size=limiting.spec.vocabulary_size,
        pooling=recipe.combination.value,
        is_normalized=True,
        prompts=_shared_prompts(opened, specs),
        default_prompt=None,
        pools_prompt=False,
        trained_dimensions=(width,),
        space=space_of(recipe, opened),
        created_s=max(spec.created_s for spec in specs),
        source="",
        license=_one_of({spec.license for spec in specs}),
        architecture=ARCHITECTURE,
        precision=_one_of({spec.precision for spec in specs}),
        kinds=(OutputKind.DENSE,),
        # Each part makes pixels of its own; of a recipe it only says that there are pictures.
        pictures=specs[0].pictures if all(each.takes_pictures for each in opened) else None,
    )
    core = RecipeCore(info, min(each.model.core.max_batch_tokens for each in parts))
    return ServedModel(spec, limiting.tokenizer, core, quantizer=_quantizer(recipe, parts))


def space_of(recipe: Recipe, parts: list[OpenPart]) -> str:
    """Return the fingerprint of the space that a recipe's vectors are in.

    It is the recipe's own: of the parts' spaces, dimensions and prompts, of shares rather than weights, and of the
    order in which parts are joined. The vectors of a route are those of its parts, and in their space where all share
    one.
    """
    spaces = {part.space for part in parts}
    if recipe.combination is Combination.ROUTE and len(spaces) == 1:
        return parts[0].space
    shares = shares_of([part.part.weight for part in parts])
    described = [
        {
            "space": each.space,
            "dimensions": each.dimensions,
            "share": f"{share:.9g}",
            "prompt": each.part.prompt,
            "prompt_name": each.part.prompt_name,
            "view": each.part.view,
            "when": each.part.condition.text if each.part.condition is not None else None,
        }
        for each, share in zip(parts, shares, strict=True)
    ]
    content = orjson.dumps([recipe.combination.value, described], option=orjson.OPT_SORT_KEYS)
    return sha256(b"recipe " + content).hexdigest()[:SPACE_CHARS]


def _shared_prompts(parts: list[OpenPart], specs: list[ModelSpec]) -> dict[str, str]:
    """Return the prompts that a call can name: those that all parts have which the recipe gives none."""
    free = [
        spec.prompts for part, spec in zip(parts, specs, strict=True) if not part.part.has_prompt
    ]
    shared = set(free[0]).intersection(*free) if free else set()
    return dict.fromkeys(sorted(shared), "")


def _one_of(words: set[str]) -> str:
    """Return the word that all parts share; several with a plus between."""
    return "+".join(sorted(word for word in words if word))


def _quantizer(recipe: Recipe, parts: list[_Checked]) -> Quantizer:
    """Return the ranges of int8 and uint8 vectors: of calibration vectors made as the recipe makes its own.

    That takes calibration vectors of the same texts from each part; where one has none, the formula's ranges are used.
    Views and routes give a part's vectors, in the part's ranges.
    """
    quantizers = [each.plan.quantizer for each in parts]
    if recipe.combination in (Combination.VIEWS, Combination.ROUTE):
        return quantizers[0]
    calibration = [quantizer.vectors for quantizer in quantizers]
    sources = {quantizer.source for quantizer in quantizers}
    counts = {0 if vectors is None else len(vectors) for vectors in calibration}
    rounding = quantizers[0].rounding
    if len(sources) != 1 or not sources.issubset(SHARED_TEXTS) or len(counts) != 1 or 0 in counts:
        return Quantizer(rounding=rounding)
    cut: list[FloatArray] = [
        finish(np.asarray(vectors), dimensions=each.opened.dimensions, normalize=True)
        for vectors, each in zip(calibration, parts, strict=True)
    ]
    weights = [each.opened.part.weight for each in parts]
    if recipe.combination is Combination.CONCAT:
        return Quantizer(joined(cut, weights), sources.pop(), rounding)
    mean = finish(averaged(cut, weights), dimensions=None, normalize=True)
    return Quantizer(mean, sources.pop(), rounding)
