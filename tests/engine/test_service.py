"""EmbeddingService: validation, prompts, limits, deadlines."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.core.engine_core import EngineCore
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ModelSpec, Pin, check_pins
from nestvec.engine.service import ServiceLimits
from nestvec.engine.text.encoded import Encoded, Fit
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import (
    EmbedCall,
    FloatArray,
    Item,
    OutputKind,
    Priority,
    RawVectors,
    Truncation,
)
from nestvec.errors import (
    ConfigError,
    DeadlineError,
    InputError,
    InputTooLongError,
    RequestTooLargeError,
    UnknownModelError,
    UnsupportedError,
)

from tests.support.fakes import fake_states, fake_vector
from tests.support.served import SPEC, Served, ServedOptions, serve_fake

LONG = "alpha " * 40


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake backend."""
    made = serve_fake(tiny_folder / "tokenizer.json")
    yield made
    made.backend.gate.set()
    made.service.close()


def unit(vector: FloatArray) -> FloatArray:
    """Scaled to length one."""
    scaled: FloatArray = vector / np.linalg.norm(vector)
    return scaled


def ids_of(served: Served, text: str) -> list[int]:
    """Token ids of a text."""
    (encoded,) = served.tokenizer.encode_texts([text], Fit(Truncation.END))
    ids: list[int] = encoded.ids.tolist()
    return ids


async def test_texts_become_unit_vectors_in_order(served: Served) -> None:
    """Each row is the vector of its own text, and tokens are counted with the special ones."""
    texts = ["alpha", "beta gamma", "", "one two three"]
    result = await served.service.embed(EmbedCall(texts))
    for row, text in zip(result.vectors, texts, strict=True):
        np.testing.assert_allclose(row, unit(fake_vector(ids_of(served, text))), atol=1e-6)
    assert result.input_tokens == (3, 4, 2, 5)
    assert result.is_truncated == (False,) * 4
    assert (result.model, result.space) == (SPEC.name, SPEC.space)
    assert served.observer.calls == [(4, 14, 0)]


async def test_dimensions_cut_then_renormalise(served: Served) -> None:
    """A cut vector is the renormalised prefix."""
    result = await served.service.embed(EmbedCall(["alpha"], dimensions=3))
    np.testing.assert_allclose(
        result.vectors[0], unit(fake_vector(ids_of(served, "alpha"))[:3]), atol=1e-6
    )


async def test_raw_vectors_on_request(served: Served) -> None:
    """`normalize=False` gives the pooled vector as it is."""
    result = await served.service.embed(EmbedCall(["alpha"], normalize=False))
    np.testing.assert_array_equal(result.vectors[0], fake_vector(ids_of(served, "alpha")))


async def test_token_ids_are_used_as_given(served: Served) -> None:
    """No special tokens are added."""
    result = await served.service.embed(EmbedCall([[5, 6], [7]], normalize=False))
    np.testing.assert_array_equal(result.vectors, [fake_vector([5, 6]), fake_vector([7])])


async def test_truncation_follows_the_call_then_the_server(served: Served) -> None:
    """The default refuses; a call may cut, and is told so."""
    with pytest.raises(InputTooLongError) as caught:
        await served.service.embed(EmbedCall(["alpha", LONG]))
    assert caught.value.input_index == 1
    result = await served.service.embed(EmbedCall(["alpha", LONG], truncate=Truncation.END))
    assert result.input_tokens == (3, 16)
    assert result.is_truncated == (False, True)
    assert served.observer.calls == [(2, 19, 1)]


@pytest.mark.parametrize(
    ("options", "prefix", "name"),
    [
        ({}, "", None),
        ({"prompt_name": "query"}, "query : ", "query"),
        ({"prompt_role": "query"}, "query : ", "query"),
        ({"prompt_role": "passage"}, "passage : ", "document"),
        ({"prompt_role": "cluster"}, "", None),
        ({"prompt": "red "}, "red ", ""),
        ({"prompt": "", "prompt_name": "query"}, "", ""),
    ],
    ids=[
        "none",
        "by name",
        "by role",
        "role by synonym",
        "role without prompt",
        "literal",
        "literal wins",
    ],
)
async def test_prompts(
    served: Served, options: dict[str, Any], prefix: str, name: str | None
) -> None:
    """The prompt is put before the text, and its name is told."""
    result = await served.service.embed(EmbedCall(["alpha"], normalize=False, **options))
    np.testing.assert_array_equal(result.vectors[0], fake_vector(ids_of(served, f"{prefix}alpha")))
    assert result.prompt_used == name


async def test_the_models_default_prompt_is_used(tiny_folder: Path) -> None:
    """Where its files name one, a call without a prompt gets it."""
    spec = dataclasses.replace(SPEC, default_prompt="query", pools_prompt=False)
    served = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(spec=spec))
    result = await served.service.embed(EmbedCall(["alpha"]))
    served.service.close()
    assert result.prompt_used == "query"
    assert result.input_tokens == (5,)


@pytest.mark.parametrize(
    ("call", "kind", "param"),
    [
        (EmbedCall([]), InputError, "input"),
        (EmbedCall(["a"], model="nope"), UnknownModelError, "model"),
        (EmbedCall(["a"] * 2049), RequestTooLargeError, "input"),
        (EmbedCall(["a"], dimensions=0), InputError, "dimensions"),
        (EmbedCall(["a"], dimensions=-3), InputError, "dimensions"),
        (EmbedCall(["a"], dimensions=9), InputError, "dimensions"),
        (EmbedCall(["a"], prompt_name="nope"), InputError, "prompt_name"),
        (EmbedCall(["a"], layers=(1,)), InputError, "layers"),
        (EmbedCall(["a"], map_id="x"), InputError, "map"),
        (EmbedCall([[1], [10_000]]), InputError, "input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_wrong_calls_name_their_field(
    served: Served, call: EmbedCall, kind: type[InputError], param: str
) -> None:
    """Nothing of a refused call reaches the backend."""
    with pytest.raises(kind) as caught:
        await served.service.embed(call)
    assert caught.value.param == param
    assert served.backend.batches == []


async def test_dimension_errors_name_the_range(served: Served) -> None:
    """The message says what would do."""
    with pytest.raises(InputError, match="Must be 1 to 8"):
        await served.service.embed(EmbedCall(["a"], dimensions=100))


async def test_limits_on_tokens_and_empty_inputs(tiny_folder: Path) -> None:
    """Counted after truncation; the strict switch names the empty input."""
    limits = ServiceLimits(max_tokens=20, truncate=Truncation.START, allows_empty=False)
    served = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(limits=limits))
    result = await served.service.embed(EmbedCall([LONG]))
    assert result.input_tokens == (16,)
    with pytest.raises(RequestTooLargeError, match="Requested 32 tokens, max 20") as caught:
        await served.service.embed(EmbedCall([LONG, LONG]))
    assert caught.value.code == "max_tokens_per_request"
    with pytest.raises(InputError) as empty:
        await served.service.embed(EmbedCall(["a", ""]))
    assert empty.value.input_index == 1
    served.service.close()


@pytest.mark.parametrize(
    ("inputs", "asked", "expected"),
    [
        (16, None, Priority.INTERACTIVE),
        (17, None, Priority.BULK),
        (1, Priority.BULK, Priority.BULK),
        (17, Priority.INTERACTIVE, Priority.INTERACTIVE),
    ],
)
async def test_the_class_follows_the_caller_then_the_size(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    inputs: int,
    asked: Priority | None,
    expected: Priority,
) -> None:
    """Many inputs a request are ingestion."""
    core = served.service.models.resolve("").core
    seen: list[Priority] = []
    submit = type(core).submit

    async def watch(self: EngineCore, items: Sequence[Item]) -> RawVectors:
        seen.extend(one.priority for one in items)
        return await submit(self, items)

    monkeypatch.setattr(EngineCore, "submit", watch)
    await served.service.embed(EmbedCall(["alpha"] * inputs, priority=asked))
    assert seen == [expected] * inputs


async def test_a_deadline_ends_the_wait(served: Served) -> None:
    """The caller hears in time; its items leave the queue."""
    served.backend.gate.clear()
    running = asyncio.create_task(served.service.embed(EmbedCall(["alpha"])))
    await asyncio.to_thread(served.backend.started.acquire)
    with pytest.raises(DeadlineError):
        await served.service.embed(EmbedCall(["beta"], deadline_s=time.monotonic() + 0.05))
    assert served.observer.queue == (0, 0)
    served.backend.gate.set()
    await running
    assert len(served.backend.batches) == 1


async def test_large_answers_are_finished_off_the_loop(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way over the thread gives the same vectors."""
    inline = await served.service.embed(EmbedCall(["alpha", "beta"], dimensions=5))
    monkeypatch.setattr("nestvec.engine.service.INLINE_VALUES", 0)
    threaded = await served.service.embed(EmbedCall(["alpha", "beta"], dimensions=5))
    np.testing.assert_array_equal(inline.vectors, threaded.vectors)


async def test_a_query_is_tokenised_on_the_loop_more_in_a_thread(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread's wake-up costs more than a query's tokenising; a large body would hold the loop."""
    threads: list[bool] = []
    encode = Tokenizer.encode_texts

    def watched(self: Tokenizer, *given: Any, **named: Any) -> list[Encoded]:
        threads.append(threading.current_thread() is threading.main_thread())
        return encode(self, *given, **named)

    monkeypatch.setattr(Tokenizer, "encode_texts", watched)
    await served.service.embed(EmbedCall(["alpha"]))
    await served.service.embed(EmbedCall(["alpha beta"] * 200))
    assert threads == [True, False]


def states_of(served: Served, text: str) -> FloatArray:
    """Token states of a text, (n, HIDDEN)."""
    states: FloatArray = fake_states(ids_of(served, text)).astype(np.float32)
    return states


async def test_token_vectors(served: Served) -> None:
    """As many rows as tokens, in order, also beside plain inputs of other calls."""
    texts = ["alpha", "beta gamma red"]
    call = EmbedCall(texts, kind=OutputKind.TOKENS, normalize=False)
    result, plain = await asyncio.gather(
        served.service.embed(call), served.service.embed(EmbedCall(texts))
    )
    assert result.rows == result.input_tokens == (3, 5)
    found = result.by_input(result.vectors)
    for states, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(states, states_of(served, text), atol=1e-6)
    np.testing.assert_allclose(plain.vectors[1], unit(found[1].mean(axis=0)), atol=1e-6)


async def test_token_vectors_are_cut_and_converted(served: Served) -> None:
    """As vectors of inputs are."""
    call = EmbedCall(
        ["alpha"], kind=OutputKind.TOKENS, dimensions=4, output_dtypes=(OutputDtype.FLOAT16,)
    )
    result = await served.service.embed(call)
    cut = states_of(served, "alpha")[:, :4]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(result.vectors, expected, atol=1e-6)
    assert result.converted[OutputDtype.FLOAT16].dtype == np.float16


async def test_token_vectors_are_bounded(tiny_folder: Path) -> None:
    """An answer of a million vectors would not fit."""
    limits = ServiceLimits(max_token_vectors=7)
    made = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(limits=limits))
    try:
        call = EmbedCall(["alpha beta", "red"], kind=OutputKind.TOKENS)
        await made.service.embed(call)
        with pytest.raises(RequestTooLargeError, match="vectors of 8 tokens, max 7"):
            await made.service.embed(dataclasses.replace(call, inputs=["alpha beta", "red green"]))
    finally:
        made.service.close()


async def test_late_chunking_pools_each_chunk(served: Served) -> None:
    """S27: from states of the whole document; special tokens go to its ends."""
    chunks = ["alpha beta", "red", "one two three"]
    result = await served.service.embed(EmbedCall(chunks, chunks=(2, 1)))
    first = states_of(served, "alpha beta red")
    last = states_of(served, chunks[2])
    expected = [states.mean(axis=0) for states in (first[:3], first[3:], last)]
    np.testing.assert_allclose(result.vectors, [unit(v) for v in expected], atol=1e-6)
    assert result.input_tokens == (3, 2, 5)
    lone = await served.service.embed(EmbedCall(chunks[2:]))
    np.testing.assert_allclose(result.vectors[2], lone.vectors[0], atol=1e-7)


async def test_late_chunking_names_the_chunk(served: Served) -> None:
    """Counted over all documents."""
    call = EmbedCall(["alpha", "beta", LONG, "red"], chunks=(2, 2))
    with pytest.raises(InputTooLongError) as caught:
        await served.service.embed(call)
    assert caught.value.input_index == 2
    with pytest.raises(InputError, match="takes texts"):
        await served.service.embed(EmbedCall([[5, 6]], chunks=(1,)))


@pytest.mark.parametrize(
    ("spec", "gives_tokens", "call", "error"),
    [
        (SPEC, False, EmbedCall(["a"], kind=OutputKind.TOKENS), UnsupportedError),
        (SPEC, False, EmbedCall(["a"], chunks=(1,)), UnsupportedError),
        (SPEC, True, EmbedCall(["a"], kind=OutputKind.SPARSE), UnsupportedError),
        (
            dataclasses.replace(SPEC, pooling="cls"),
            True,
            EmbedCall(["a"], chunks=(1,)),
            InputError,
        ),
    ],
)
async def test_what_a_model_cannot_give_is_refused(
    tiny_folder: Path,
    spec: ModelSpec,
    *,
    gives_tokens: bool,
    call: EmbedCall,
    error: type[InputError],
) -> None:
    """Before anything is computed."""
    made = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(spec=spec))
    made.backend.gives_tokens = gives_tokens
    try:
        with pytest.raises(error):
            await made.service.embed(call)
        assert made.backend.batches == []
    finally:
        made.service.close()


async def test_texts_and_ids_may_be_mixed(served: Served) -> None:
    """As in TEI; with a prompt ids become text first."""
    ids = ids_of(served, "beta")
    result = await served.service.embed(EmbedCall(["alpha", ids]))
    plain = await served.service.embed(EmbedCall(["alpha", "beta"]))
    np.testing.assert_array_equal(result.vectors, plain.vectors)
    prompted = await served.service.embed(EmbedCall([ids], prompt_name="query"))
    expected = await served.service.embed(EmbedCall(["query : beta"]))
    np.testing.assert_array_equal(prompted.vectors, expected.vectors)
    with pytest.raises(InputError) as caught:
        await served.service.embed(EmbedCall(["alpha", [10**6]]))
    assert caught.value.input_index == 1


@pytest.mark.parametrize("dtype", [OutputDtype.INT8, OutputDtype.UBINARY, OutputDtype.BINARY])
async def test_raw_vectors_are_not_quantised(served: Served, dtype: OutputDtype) -> None:
    """Ranges are those of unit vectors."""
    with pytest.raises(InputError, match="unit vectors") as caught:
        await served.service.embed(EmbedCall(["a"], normalize=False, output_dtypes=(dtype,)))
    assert caught.value.param == "output_dtype"


async def test_bits_take_whole_bytes(served: Served) -> None:
    """Clients take dimensions / 8 for the size."""
    with pytest.raises(InputError, match="no multiple of 8") as caught:
        await served.service.embed(
            EmbedCall(["a"], dimensions=4, output_dtypes=(OutputDtype.UBINARY,))
        )
    assert caught.value.param == "dimensions"


async def test_a_name_may_stand_for_a_prompt_and_dimensions(tiny_folder: Path) -> None:
    """For callers that can say neither; what a call says wins."""
    pins = {"short-queries": Pin("query", 4)}
    made = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(pins=pins))
    try:
        embed = made.service.embed
        found = await embed(EmbedCall(["alpha"], model="Short-Queries:latest"))
        expected = await embed(EmbedCall(["alpha"], prompt_name="query", dimensions=4))
        np.testing.assert_array_equal(found.vectors, expected.vectors)
        assert (found.prompt_used, found.model) == ("query", SPEC.name)
        own = await embed(EmbedCall(["a"], model="short-queries", prompt="x", dimensions=2))
        assert (own.prompt_used, own.vectors.shape) == ("", (1, 2))
        role = await embed(EmbedCall(["a"], model="short-queries", prompt_role="passage"))
        assert role.prompt_used == "document"
    finally:
        made.service.close()
    with pytest.raises(ConfigError, match=r"aliases\.a\.prompt_name.*aliases\.b\.dimensions"):
        check_pins({"a": Pin(prompt_name="none such"), "b": Pin(dimensions=9)}, SPEC)
