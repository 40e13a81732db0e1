"""Calls for recipes: what they give is what their parts give, within one call's bounds."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_registry import visible_models
from nestvec.engine.recipes.recipe import Combination, Recipe, RecipePart
from nestvec.engine.results import EmbedResult
from nestvec.engine.splitting import Splitter, SplitterKind
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import EmbedCall, OutputKind, Pair, Truncation
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import (
    DeadlineError,
    InputError,
    InputTooLongError,
    InternalError,
    RateLimitError,
    RequestTooLargeError,
    UnsupportedError,
)

from tests.support.recipes import ServedRecipes, concat, serve_recipes

TEXTS = ["alpha", "beta gamma", "one two three", "alpha"]
BOTH = concat(RecipePart("one", 3.0), RecipePart("two", 1.0))
MEAN = Recipe(
    "mean",
    Combination.MEAN,
    (RecipePart("one", 2.0, dimensions=4), RecipePart("two", prompt="query : ")),
)
VIEWS = Recipe(
    "views",
    Combination.VIEWS,
    (
        RecipePart("one", view="plain"),
        RecipePart("one", view="asked", prompt_name="query", dimensions=2),
        RecipePart("two", view="other"),
    ),
)
Serve = Callable[..., ServedRecipes]


@pytest.fixture
def serve(tiny_folder: Path) -> Iterator[Serve]:
    """Make services, and close them."""
    made: list[ServedRecipes] = []

    def serve_one(*recipes: Recipe, **options: Any) -> ServedRecipes:
        made.append(serve_recipes(tiny_folder / "tokenizer.json", *recipes, **options))
        return made[-1]

    yield serve_one
    for served in made:
        served.close()


async def embed(served: ServedRecipes, model: str, **options: Any) -> EmbedResult:
    """Embed the texts by a model or recipe."""
    call = EmbedCall(**{"inputs": TEXTS, "model": model, "takes_views": True, **options})
    return await served.service.embed(call)


async def test_the_cosine_of_a_join_is_the_weighted_mean_of_the_parts(serve: Serve) -> None:
    """To 1e-6; tokens of all parts count, and the space is the recipe's own."""
    served = serve(BOTH)
    joined = await embed(served, "both")
    one, two = [await embed(served, name) for name in ("one", "two")]
    expected = 0.75 * (one.vectors @ one.vectors.T) + 0.25 * (two.vectors @ two.vectors.T)
    np.testing.assert_allclose(joined.vectors @ joined.vectors.T, expected, atol=1e-6)
    assert joined.vectors.shape == (4, 12)
    assert joined.input_tokens == tuple(2 * count for count in one.input_tokens)
    assert joined.model == "both"
    assert len({joined.space, one.space, two.space}) == 3


async def test_a_mean_is_the_unit_vector_of_the_weighted_sum(serve: Serve) -> None:
    """Of parts cut to their own dimensions, each with its own prompt; it can be cut again."""
    served = serve(MEAN)
    one = (await embed(served, "one", dimensions=4)).vectors
    two = (await embed(served, "two", prompt="query : ")).vectors
    total = (2 * one + two) / 3
    unit = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose((await embed(served, "mean")).vectors, unit, atol=1e-6)
    raw = (await embed(served, "mean", normalize=False)).vectors
    np.testing.assert_allclose(raw, total, atol=1e-6)
    cut = (await embed(served, "mean", dimensions=2)).vectors
    head = total[:, :2] / np.linalg.norm(total[:, :2], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, head, atol=1e-6)


async def test_views_are_those_of_single_calls(serve: Serve) -> None:
    """Bit for bit, in every dtype, also where views have other widths."""
    served = serve(VIEWS)
    dtypes = (OutputDtype.FLOAT32, OutputDtype.INT8)
    views = (await embed(served, "views", output_dtypes=dtypes)).views
    alone = {
        "plain": await embed(served, "one", output_dtypes=dtypes),
        "asked": await embed(
            served, "one", output_dtypes=dtypes, prompt_name="query", dimensions=2
        ),
        "other": await embed(served, "two", output_dtypes=dtypes),
    }
    assert list(views) == list(alone)
    for name, result in alone.items():
        for dtype in dtypes:
            np.testing.assert_array_equal(views[name].converted[dtype], result.converted[dtype])


async def test_cache_and_neighbours_change_nothing(serve: Serve) -> None:
    """A join from the cache, of a lone text, and among others in the batch are one vector."""
    served = serve(BOTH, cache=VectorCache(2**20, "float32"))
    first = (await embed(served, "both")).vectors
    batches = len(served.one.batches) + len(served.two.batches)
    again = (await embed(served, "both")).vectors
    assert len(served.one.batches) + len(served.two.batches) == batches
    alone = (await embed(served, "both", inputs=TEXTS[:1], uses_cache=False)).vectors
    plain = (await embed(served, "one")).vectors
    assert len(served.one.batches) + len(served.two.batches) == batches + 2
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(alone[0], first[0], atol=1e-6)
    np.testing.assert_allclose(plain * np.sqrt(0.75), first[:, :8], atol=1e-6)


async def test_codes_are_of_the_joined_vector_in_ranges_of_joined_calibration(
    serve: Serve,
) -> None:
    """Where both parts have calibration vectors of the same texts; else in those of the formula."""
    served = serve(BOTH, calibration=(20, 20))
    result = await embed(served, "both", output_dtypes=(OutputDtype.INT8,))
    one, two = (served.service.models.resolve(name).quantizer.vectors for name in ("one", "two"))
    assert one is not None
    assert two is not None
    ranges = Quantizer(np.hstack([one * np.sqrt(0.75), two * np.sqrt(0.25)]).astype(np.float32))
    expected = ranges.int8(result.vectors)
    assert np.abs(result.converted[OutputDtype.INT8].astype(int) - expected).max() <= 1
    even = serve(concat(RecipePart("one"), RecipePart("one"), name="even"))
    packed = await embed(even, "even", output_dtypes=(OutputDtype.UBINARY,))
    np.testing.assert_array_equal(
        packed.converted[OutputDtype.UBINARY], np.packbits(packed.vectors > 0, axis=1)
    )
    with pytest.raises(InputError, match="12 is no multiple of 8") as refusal:
        await embed(served, "both", output_dtypes=(OutputDtype.UBINARY,))
    assert refusal.value.param == "dimensions"
    assert result.quantization not in ("", Quantizer().id)
    other = await embed(
        serve(BOTH, calibration=(20, 10)), "both", output_dtypes=(OutputDtype.INT8,)
    )
    assert other.quantization == Quantizer().id


REFUSED: dict[str, tuple[str, dict[str, Any], str | None, str]] = {
    "a prefix of a join": ("both", {"dimensions": 6}, "dimensions", "leaves whole parts out"),
    "a prefix of a mean": ("mean", {"dimensions": 5}, "dimensions", "Must be 1 to 4"),
    "dimensions of settled views": ("views", {"dimensions": 3}, "dimensions", "of their own"),
    "token ids": ("both", {"inputs": [[1, 2]]}, "input", "send texts"),
    "late chunks": ("both", {"chunks": (4,)}, "late_chunking", "name a model"),
    "splits": (
        "both",
        {"splits": (Splitter(SplitterKind.SENTENCES),) * 4},
        "late_chunking",
        "name a model",
    ),
    "layers": ("both", {"layers": (2,)}, "layers", "parts have theirs in the settings"),
    "a map": ("mean", {"map_id": "x"}, "map", "parts have theirs in the settings"),
    "groups": ("both", {"groups": (1,)}, "groups", "an option of single models"),
    "a context": ("both", {"context": ("before",)}, "context", "an option of single models"),
    "token vectors": ("both", {"kind": OutputKind.TOKENS}, None, "name a model"),
    "terms": ("both", {"kind": OutputKind.SPARSE}, None, "name a model"),
    "labels": ("both", {"kind": OutputKind.LABELS, "inputs": [Pair("a", "b")]}, None, "name a"),
    "views without a place": ("views", {"takes_views": False}, None, "/v1/embeddings"),
    "no input": ("both", {"inputs": []}, "input", "at least one"),
    "a prompt that no part has": ("both", {"prompt_name": "x"}, "prompt_name", "(part 'one' of"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_a_recipe_cannot_be_asked_for(serve: Serve, case: str) -> None:
    """It is refused by the name of its field, with the way out, and no part runs."""
    model, options, field, says = REFUSED[case]
    served = serve(BOTH, MEAN, VIEWS)
    with pytest.raises(InputError) as refusal:
        await embed(served, model, **options)
    assert refusal.value.param == field
    assert says in refusal.value.message
    assert not served.one.batches
    assert isinstance(refusal.value, UnsupportedError) is (field is None)


async def test_a_prompt_goes_to_parts_that_have_none(serve: Serve) -> None:
    """A role's prompt and a literal one; where all parts have their own, a literal one is refused."""
    settled = concat(RecipePart("one", prompt=""), RecipePart("two", prompt_name="query"), name="s")
    served = serve(BOTH, MEAN, settled)
    asked = await embed(served, "both", prompt_role="query")
    one = await embed(served, "one", prompt_role="query")
    np.testing.assert_allclose(asked.vectors[:, :8], one.vectors * np.sqrt(0.75), atol=1e-6)
    assert asked.prompt_used == "query"
    literal = (await embed(served, "mean", prompt="passage : ")).vectors
    assert np.abs(literal - (await embed(served, "mean")).vectors).max() > 0.01
    role = await embed(served, "s", prompt_role="passage")
    np.testing.assert_array_equal(role.vectors, (await embed(served, "s")).vectors)
    with pytest.raises(InputError, match="prompts of their own") as refusal:
        await embed(served, "s", prompt="x")
    assert refusal.value.param == "prompt"


async def test_parts_times_inputs_are_bounded(serve: Serve) -> None:
    """As many inputs as a call may have are too many for a recipe of two parts; so are tokens of all parts together."""
    served = serve(BOTH, VIEWS, limits=ServiceLimits(max_inputs=7, max_tokens=20))
    with pytest.raises(
        RequestTooLargeError, match=r"reads each input 2 times, and 4 inputs make 8"
    ):
        await embed(served, "both")
    assert len((await embed(served, "both", inputs=TEXTS[:2])).vectors) == 2
    words = " ".join(["alpha"] * 9)
    assert (await embed(served, "one", inputs=[words])).input_tokens == (11,)
    with pytest.raises(RequestTooLargeError, match="22 tokens") as refusal:
        await embed(served, "both", inputs=[words])
    assert "part" not in refusal.value.message
    with pytest.raises(RequestTooLargeError, match="prompt"):
        await embed(served, "both", inputs=["alpha"], prompt=" " * 100)
    assert [len(served.one.batches), len(served.two.batches)] == [2, 1]


async def test_a_key_is_charged_once_for_all_parts(serve: Serve) -> None:
    """Before any part is queued; where it may not have so many tokens, none runs."""
    served = serve(BOTH)
    asked: list[int] = []

    async def admit(tokens: int) -> None:
        asked.append(tokens)
        if len(asked) > 1:
            raise RateLimitError("used up")

    result = await embed(served, "both", admit=admit)
    assert asked == [sum(result.input_tokens)]
    runs = len(served.one.batches), len(served.two.batches)
    with pytest.raises(RateLimitError, match=r"^used up$"):
        await embed(served, "both", admit=admit)
    assert runs == (len(served.one.batches), len(served.two.batches))


async def test_a_failing_part_cancels_the_others_and_names_itself(serve: Serve) -> None:
    """The error has the caller's index; the other part's items leave the queue."""
    served = serve(BOTH)
    (encoded,) = served.service.models.resolve("two").tokenizer.encode_texts(
        ["three"], TokenizeOptions(Truncation.END)
    )
    served.two.fails_on = int(encoded.ids[1])
    served.one.gate.clear()
    waiting = asyncio.ensure_future(embed(served, "one"))
    while not served.one.started.acquire(blocking=False):
        await asyncio.sleep(0)
    with pytest.raises(InternalError, match=r"\(part 'two' of the recipe\)$") as failure:
        await embed(served, "both", inputs=["beta", "gamma", "three"])
    assert failure.value.input_index == 2
    served.one.gate.set()
    await waiting
    await embed(served, "one", inputs=["red"])
    # What was asked for before and after it did run; of the failed call's first part nothing did.
    assert sum(map(len, served.one.batches)) == len(TEXTS) + 1


async def test_an_input_too_long_for_a_part_names_it(serve: Serve) -> None:
    """In OpenAI's words, which clients read, with the part behind them; it is cut where the call says so."""
    served = serve(BOTH, VIEWS)
    with pytest.raises(InputTooLongError, match=r"maximum context length is 64 tokens") as refusal:
        await embed(served, "both", inputs=["a", "alpha " * 80])
    assert refusal.value.input_index == 1
    assert refusal.value.message.endswith("(part 'one' of the recipe)")
    cut = await embed(served, "both", inputs=["a", "alpha " * 80], truncate=Truncation.END)
    assert cut.is_truncated == (False, True)
    assert [each.index for each in cut.long_inputs] == [1]


async def test_the_deadline_holds_for_all_parts(serve: Serve) -> None:
    """A part that waits too long fails the call as any call."""
    served = serve(BOTH)
    served.two.gate.clear()
    deadline_s = served.service._clock() + 0.05
    with pytest.raises(DeadlineError):
        await embed(served, "both", deadline_s=deadline_s)


async def test_a_key_that_sees_the_recipe_alone_may_use_it(serve: Serve) -> None:
    """Its parts need not be visible, and stay unknown to it by their names."""
    served = serve(BOTH)
    token = visible_models.set(frozenset({"both"}))
    try:
        assert (await embed(served, "both")).vectors.shape == (4, 12)
        assert (await embed(served, "")).model == "both"
        with pytest.raises(InputError, match="does not exist"):
            await embed(served, "one")
    finally:
        visible_models.reset(token)


async def test_tokens_are_of_models_not_of_recipes(serve: Serve) -> None:
    """Their tokenizers differ: the models are named instead."""
    served = serve(BOTH)
    with pytest.raises(UnsupportedError, match="name one of these: one, two"):
        await served.service.token_calls.describe(
            ["a"], adds_special_tokens=True, prompt_name=None, model="both"
        )


def route(*rules: tuple[str | None, RecipePart], **more: Any) -> Recipe:
    """Return a route of these rules."""
    from nestvec.engine.recipes.conditions import parse_condition

    parts = tuple(
        replace(part, condition=None if when is None else parse_condition(when))
        for when, part in rules
    )
    return Recipe("route", Combination.ROUTE, parts, **more)


BY_LENGTH = route(
    ("input_type = 'query'", RecipePart("one", prompt_name="query")),
    ("tokens > 4", RecipePart("one", prompt="passage : ")),
    ("script = 'cyrillic' and characters < 9", RecipePart("one", prompt="x ")),
    (None, RecipePart("one")),
)


async def test_each_input_goes_to_the_first_rule_that_holds(serve: Serve) -> None:
    """Rows keep the caller's order; a header's text says which part took how many inputs, and why."""
    served = serve(BY_LENGTH)
    texts = ["alpha", "one two three four", "да", "beta", "one two three"]
    routed = await embed(served, "route", inputs=texts)
    prompts = [None, "passage : ", "x ", None, "passage : "]
    for row, text, prompt in zip(routed.vectors, texts, prompts, strict=True):
        alone = await embed(served, "one", inputs=[text], prompt=prompt)
        np.testing.assert_allclose(row, alone.vectors[0], atol=1e-6)
    assert routed.space == served.service.models.resolve("one").spec.space
    assert routed.model == "route"
    assert routed.route == (
        '1;model="one";when="tokens > 4";inputs=2, '
        '2;model="one";when="script = \'cyrillic\' and characters < 9";inputs=1, '
        '3;model="one";when="otherwise";inputs=2'
    )
    again = await embed(served, "route", inputs=texts)
    np.testing.assert_array_equal(again.vectors, routed.vectors)
    asked = await embed(served, "route", inputs=texts, prompt_role="query")
    assert asked.route.startswith("0;")
    assert asked.route.endswith("inputs=5")


async def test_errors_of_routed_inputs_have_the_callers_index(serve: Serve) -> None:
    """However the inputs were parted; and so does what was cut."""
    served = serve(BY_LENGTH)
    texts = ["alpha", "beta", "alpha " * 80, "gamma"]
    with pytest.raises(InputTooLongError) as refusal:
        await embed(served, "route", inputs=texts)
    assert refusal.value.input_index == 2
    cut = await embed(served, "route", inputs=texts, truncate=Truncation.END)
    assert cut.is_truncated == (False, False, True, False)
    assert [each.index for each in cut.long_inputs] == [2]


async def test_one_answer_has_vectors_of_one_space(serve: Serve) -> None:
    """Inputs that would go to several spaces are refused by their indices; alone each is answered in its own."""
    rules = (("characters > 5", RecipePart("two")), (None, RecipePart("one")))
    served = serve(route(*rules, allows_spaces=True))
    with pytest.raises(InputError, match="inputs 0 and 1 of this request") as refusal:
        await embed(served, "route")
    assert (refusal.value.param, refusal.value.input_index) == ("input", 1)
    short = await embed(served, "route", inputs=["alpha"])
    long = await embed(served, "route", inputs=["beta gamma"])
    assert (short.space, long.space) == ("space of one", "space of two")
    assert (short.vectors.shape, long.vectors.shape) == ((1, 8), (1, 4))


async def test_a_route_counts_each_input_once(serve: Serve) -> None:
    """It reads each by one part: as many inputs and tokens as any call."""
    served = serve(BY_LENGTH, limits=ServiceLimits(max_inputs=4, max_tokens=20))
    result = await embed(served, "route")
    assert sum(result.input_tokens) <= 20
