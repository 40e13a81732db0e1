"""What is made of a call is bounded, not only what it sends: each place of text, times what repeats it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from nestvec.engine import limits
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.recipes.recipe import RecipePart
from nestvec.engine.splitting import Splitter, SplitterKind
from nestvec.engine.text.preparation.instructions import Instruct
from nestvec.engine.types import EmbedCall, Example, OutputKind, Pair, Truncation
from nestvec.errors import InputError, RequestTooLargeError

from tests.support.recipes import concat, serve_recipes
from tests.support.served import SPEC, Served, ServedOptions, serve_fake
from tests.support.tokenizer_calls import tokenized_chars

# 64 windows of 64 tokens may be made, and 16,000 characters put before inputs.
MAX_TOKENS: Final = 2_000
MAX_READ_CHARS: Final = 128_000
INPUTS: Final = 256
WORDS: Final = "one two three four "
# Two slices: what is tokenized before a refusal at most.
SLICES_CHARS: Final = 200_000
MODEL: Final = dataclasses.replace(
    SPEC,
    kinds=(OutputKind.DENSE, OutputKind.TOKENS, OutputKind.LABELS),
    labels=("score",),
    prompts={"long": WORDS * 200},
    instruct=Instruct("{instruction} : ", "{query} {response} "),
)
PROMPT_FITS: Final = {"truncate": Truncation.START}

# By field of `EmbedCall`: calls that would come to far more than they hold, and the field that the refusal names.
CASES: Final[dict[str, list[tuple[dict[str, Any], str]]]] = {
    "inputs": [
        ({"inputs": [WORDS * 50] * INPUTS, "truncate": Truncation.END}, "input"),
        ({"inputs": [" " * 1000] * INPUTS, "truncate": Truncation.END}, "input"),
        ({"inputs": ["a" * 1000] * INPUTS, "truncate": Truncation.END}, "input"),
        ({"inputs": [list(range(5, 15))] * INPUTS}, "input"),
        (
            {
                "inputs": [Pair(WORDS * 2000, "a")] * INPUTS,
                "kind": OutputKind.LABELS,
                "truncate": Truncation.END,
            },
            "input",
        ),
        (
            {
                "inputs": [Pair("a", WORDS)] * INPUTS,
                "kind": OutputKind.LABELS,
                "truncate": Truncation.END,
            },
            "input",
        ),
    ],
    "prompt": [
        ({"prompt": WORDS * 400}, "prompt"),
        ({"prompt": WORDS * 400, "truncate": Truncation.END}, "prompt"),
        ({"prompt": WORDS * 400, "truncate": Truncation.WINDOWS}, "prompt"),
        ({"prompt": " " * 100_000}, "prompt"),
        ({"prompt": " " * 100_000, "truncate": Truncation.WINDOWS}, "prompt"),
        ({"prompt": WORDS * 40, **PROMPT_FITS}, "prompt"),
        ({"prompt": WORDS * 40, "inputs": [[5, 6, 7]] * INPUTS, **PROMPT_FITS}, "prompt"),
        ({"prompt": WORDS * 40, "inputs": ["a"] * 4}, "input"),
    ],
    "prompt_name": [({"prompt_name": "long"}, "prompt_name")],
    "prompt_role": [({"prompt_role": "long"}, "prompt_name")],
    "instruction": [
        ({"instruction": WORDS * 400}, "instruction"),
        ({"instruction": WORDS * 40, "inputs": ["a"] * 4}, "input"),
    ],
    "examples": [
        ({"examples": (Example(WORDS, WORDS),) * 100}, "examples"),
        ({"examples": (Example(WORDS, WORDS),) * 100, "truncate": Truncation.END}, "examples"),
        ({"examples": (Example("a", WORDS),) * 20, "inputs": ["a"] * 4}, "input"),
    ],
    # One token of the text in each window of 16, and a prompt's thirteen beside it.
    "max_tokens": [
        ({"inputs": [WORDS * 100], "max_tokens": 3, "truncate": Truncation.WINDOWS}, "input"),
        (
            {
                "inputs": [WORDS * 100],
                "prompt": "one two three four one two three four one two three four one",
                "truncate": Truncation.WINDOWS,
            },
            "input",
        ),
    ],
    "truncate": [({"inputs": [WORDS * 1000], "truncate": Truncation.WINDOWS}, "input")],
    "chunks": [
        ({"inputs": [WORDS * 20] * INPUTS, "chunks": (1,) * INPUTS, "prompt": WORDS * 5}, "prompt"),
        (
            {
                "inputs": [WORDS * 5] * INPUTS,
                "chunks": (INPUTS,),
                "truncate": Truncation.WINDOWS,
            },
            "input",
        ),
    ],
    "splits": [
        ({"splits": (Splitter(SplitterKind.SENTENCES),) * INPUTS, "prompt": " " * 1000}, "prompt"),
        (
            {
                "inputs": [WORDS * 20] * INPUTS,
                "splits": (Splitter(SplitterKind.TOKENS, 4),) * INPUTS,
            },
            "input",
        ),
        (
            {
                "inputs": ["one. " * 300],
                "splits": (Splitter(SplitterKind.TOKENS, 4, 3),),
            },
            "input",
        ),
    ],
    "context": [
        ({"context": (WORDS * 400,) * INPUTS}, "context"),
        ({"context": (" " * 100_000,) * INPUTS, "truncate": Truncation.END}, "context"),
        ({"inputs": ["a"] * 4, "context": (WORDS * 40,) * 4}, "input"),
        (
            {
                "inputs": ["a"] * INPUTS,
                "context": ("one two three four one",) * INPUTS,
                "truncate": Truncation.END,
            },
            "input",
        ),
    ],
    "kind": [({"inputs": ["one two"] * INPUTS, "kind": OutputKind.TOKENS}, "input")],
}
# Fields that hold no text and repeat none.
OTHERS: Final = {
    *("model", "dimensions", "normalize", "refuses_wider_limit", "adds_special_tokens", "key_id"),
    *(
        "output_dtypes",
        "priority",
        "deadline_s",
        "layers",
        "adapter",
        "map_id",
        "uses_cache",
        "admit",
    ),
    # It only lets less of a text be used …
    "max_second_tokens",
    # … says how many tokens pictures have, which are counted with theirs (tests/engine/pictures/test_naflex.py) …
    "picture_patches",
    # They make fewer vectors of what was bounded before.
    *("groups", "weights"),
    # … merges what was bounded before …
    "pool_factor",
    # … or says that there is a place for what a recipe gives, whose parts have cases below.
    "takes_views",
}
# Calls for a recipe of two parts that would be fine for either alone.
OF_RECIPES: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "inputs": ({"inputs": ["a"] * (INPUTS // 2 + 1)}, "input"),
    "tokens": ({"inputs": [WORDS * 15] * 20}, "input"),
    "short inputs": ({"inputs": [WORDS * 15] * 17}, "input"),
    "prompt": ({"inputs": ["a"] * 100, "prompt": " " * 100, **PROMPT_FITS}, "prompt"),
    "windows": ({"inputs": [" " * 9000], "truncate": Truncation.WINDOWS}, "input"),
    "characters": ({"inputs": [" " * 1000] * 65, "truncate": Truncation.END}, "input"),
}


@pytest.fixture
def served(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service with small bounds over a fake backend."""
    monkeypatch.setattr(limits, "MIN_READ_CHARS", MAX_READ_CHARS)
    bounds = ServiceLimits(max_inputs=INPUTS, max_tokens=MAX_TOKENS, max_token_vectors=300)
    options = ServedOptions(spec=MODEL, limits=bounds, max_queue_tokens=10**9)
    parts = serve_fake(tiny_folder / "tokenizer.json", options)
    yield parts
    parts.service.close()


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters the tokenizer's library was given, call by call."""
    return tokenized_chars(monkeypatch)


def test_every_field_of_a_call_has_a_case() -> None:
    """A new field is either one that text comes in by, or repeats, and has a case; or it is said not to be."""
    names = {field.name for field in dataclasses.fields(EmbedCall)}
    assert CASES.keys() | OTHERS == names
    assert not CASES.keys() & OTHERS


@pytest.mark.parametrize(
    ("fields", "param"),
    [case for cases in CASES.values() for case in cases],
    ids=[f"{name}-{number}" for name, cases in CASES.items() for number in range(len(cases))],
)
async def test_products_are_refused_before_they_are_made(
    served: Served, tokenized: list[int], fields: dict[str, Any], param: str
) -> None:
    """The refusal names the field; no more than two slices were tokenized by then, and nothing was run."""
    call = EmbedCall(**{"inputs": ["a"] * INPUTS, **fields})
    with pytest.raises(InputError) as caught:
        await served.service.embed(call)
    assert caught.value.param == param
    assert sum(tokenized) <= SLICES_CHARS
    assert served.backend.batches == []


async def test_tokenizing_stops_at_the_first_refusal(served: Served, tokenized: list[int]) -> None:
    """Of 500,000 characters the first too-long input is found in the first slice, and no other is tokenized."""
    bounds = ServiceLimits(max_tokens=1_000_000)
    served.service.limits = bounds
    with pytest.raises(InputError) as caught:
        await served.service.embed(EmbedCall(["a", *[WORDS * 100] * 250]))
    assert caught.value.input_index == 1
    assert sum(tokenized) <= SLICES_CHARS


async def test_tokenizing_stops_at_the_bound_on_tokens(
    served: Served, tokenized: list[int]
) -> None:
    """Inputs that are each short enough are tokenized no further than the call may have tokens."""
    served.service.limits = ServiceLimits(max_tokens=20_000, max_inputs=30_000)
    with pytest.raises(RequestTooLargeError, match=r"at least \d+ tokens, max 20000"):
        await served.service.embed(EmbedCall(["one two three four"] * 30_000))
    assert sum(tokenized) <= SLICES_CHARS


async def test_a_query_is_tokenized_once_for_all_its_pairs(
    served: Served, tokenized: list[int]
) -> None:
    """Pairs with the same first text cost its tokens once."""
    query = "one two three " * 5
    pairs = [Pair(query, f"alpha {number}") for number in range(100)]
    call = EmbedCall(pairs, kind=OutputKind.LABELS, truncate=Truncation.END)
    result = await served.service.embed(call)
    assert len(result.vectors) == 100
    assert sum(tokenized) < len(query) + 100 * 10
    alone = await served.service.embed(dataclasses.replace(call, inputs=[pairs[7]]))
    assert (alone.vectors == result.vectors[7]).all()


async def test_only_the_models_own_prompts_are_kept(
    tiny_folder: Path, tokenized: list[int]
) -> None:
    """A named prompt is tokenized once, not at each call; what a caller writes is kept no longer than the call."""
    spec = dataclasses.replace(SPEC, pools_prompt=False)
    served = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(spec=spec))
    costs = []
    calls = (EmbedCall(["alpha"], prompt_name="query"), EmbedCall(["alpha"], prompt="blue : "))
    for call in calls * 2:
        tokenized.clear()
        await served.service.embed(call)
        costs.append(sum(tokenized))
    served.service.close()
    text, prompt = len("query : alpha"), len("query : ")
    own = len("blue : alpha") + len("blue : ")
    assert costs == [text + prompt, own, text, own]


@pytest.mark.parametrize("case", OF_RECIPES)
async def test_parts_of_a_recipe_share_what_one_call_may_have(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """What a model takes, a recipe of twice that model refuses, before anything is run."""
    monkeypatch.setattr(limits, "MIN_READ_CHARS", MAX_READ_CHARS)
    fields, param = OF_RECIPES[case]
    served = serve_recipes(
        tiny_folder / "tokenizer.json",
        concat(RecipePart("one"), RecipePart("one")),
        limits=ServiceLimits(max_inputs=INPUTS, max_tokens=MAX_TOKENS),
    )
    try:
        await served.service.embed(EmbedCall(**{**fields, "model": "one"}))
        batches = len(served.one.batches)
        with pytest.raises(RequestTooLargeError) as refusal:
            await served.service.embed(EmbedCall(**{**fields, "model": "both"}))
        assert refusal.value.param == param
        assert len(served.one.batches) == batches
    finally:
        served.close()
