"""EmbeddingService: validation, prompts, limits, deadlines."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.core.engine_core import EngineCore
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.served_model import AliasPreset, check_presets
from nestvec.engine.results import RawVectors
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import EmbedCall, FloatArray, OutputKind, Priority, Submission, Truncation
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
    service_parts = serve_fake(tiny_folder / "tokenizer.json")
    yield service_parts
    service_parts.backend.gate.set()
    service_parts.service.close()


def unit(vector: FloatArray) -> FloatArray:
    """Scale a vector to length one."""
    scaled: FloatArray = vector / np.linalg.norm(vector)
    return scaled


def ids_of(served: Served, text: str) -> list[int]:
    """Return the token ids of a text."""
    (encoded,) = served.tokenizer.encode_texts([text], TokenizeOptions(Truncation.END))
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


async def test_dimensions_cut_then_renormalize(served: Served) -> None:
    """A vector cut to fewer dimensions is the renormalized prefix of the whole one."""
    result = await served.service.embed(EmbedCall(["alpha"], dimensions=3))
    np.testing.assert_allclose(
        result.vectors[0], unit(fake_vector(ids_of(served, "alpha"))[:3]), atol=1e-6
    )


async def test_raw_vectors_on_request(served: Served) -> None:
    """`normalize=False` gives the pooled vector as it is."""
    result = await served.service.embed(EmbedCall(["alpha"], normalize=False))
    np.testing.assert_array_equal(result.vectors[0], fake_vector(ids_of(served, "alpha")))


async def test_token_ids_are_used_as_given(served: Served) -> None:
    """Token ids run as they are: no special tokens are added."""
    result = await served.service.embed(EmbedCall([[5, 6], [7]], normalize=False))
    np.testing.assert_array_equal(result.vectors, [fake_vector([5, 6]), fake_vector([7])])


async def test_truncation_follows_the_call_then_the_server(served: Served) -> None:
    """The server's default refuses long inputs; a call may have them cut, and the answer says so."""
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
    """The prompt is put before the text, and the answer names it."""
    result = await served.service.embed(EmbedCall(["alpha"], normalize=False, **options))
    np.testing.assert_array_equal(result.vectors[0], fake_vector(ids_of(served, f"{prefix}alpha")))
    assert result.prompt_used == name


async def test_the_models_default_prompt_is_used(tiny_folder: Path) -> None:
    """A call without a prompt gets the model's default prompt, where its files name one."""
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
    """The message names the range of dimensions that the model has."""
    with pytest.raises(InputError, match="Must be 1 to 8"):
        await served.service.embed(EmbedCall(["a"], dimensions=100))


async def test_limits_on_tokens_and_empty_inputs(tiny_folder: Path) -> None:
    """Tokens are counted after truncation; where empty inputs are refused, the error names the input."""
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
    ("inputs", "requested", "expected"),
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
    requested: Priority | None,
    expected: Priority,
) -> None:
    """Calls of many inputs are bulk (ingestion) and others interactive, unless the caller says otherwise."""
    core = served.service.models.resolve("").core
    seen: list[Priority] = []
    submit = type(core).submit

    async def watch(self: EngineCore, submission: Submission) -> RawVectors:
        seen.append(submission.options.priority)
        return await submit(self, submission)

    monkeypatch.setattr(EngineCore, "submit", watch)
    await served.service.embed(EmbedCall(["alpha"] * inputs, priority=requested))
    assert seen == [expected]


async def test_a_deadline_ends_the_wait(served: Served) -> None:
    """A call fails at its deadline, and its items leave the queue."""
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
    """Finishing in a thread gives the same vectors as finishing on the loop."""
    inline = await served.service.embed(EmbedCall(["alpha", "beta"], dimensions=5))
    monkeypatch.setattr("nestvec.engine.service.INLINE_VALUES", 0)
    threaded = await served.service.embed(EmbedCall(["alpha", "beta"], dimensions=5))
    np.testing.assert_array_equal(inline.vectors, threaded.vectors)


async def test_a_query_is_tokenized_on_the_loop_more_in_a_thread(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread's wake-up costs more than tokenizing a query; tokenizing a large body would block the loop."""
    threads: list[bool] = []
    encode = Tokenizer.encode_texts

    def watched(self: Tokenizer, *arguments: Any, **named: Any) -> list[Encoded]:
        threads.append(threading.current_thread() is threading.main_thread())
        return encode(self, *arguments, **named)

    monkeypatch.setattr(Tokenizer, "encode_texts", watched)
    await served.service.embed(EmbedCall(["alpha"]))
    await served.service.embed(EmbedCall(["alpha beta"] * 200))
    assert threads == [True, False]


def states_of(served: Served, text: str) -> FloatArray:
    """Return the token states of a text, (n, HIDDEN)."""
    states: FloatArray = fake_states(ids_of(served, text)).astype(np.float32)
    return states


async def test_token_vectors(served: Served) -> None:
    """There are as many rows as tokens, in order, also beside inputs of other calls that want one vector."""
    texts = ["alpha", "beta gamma red"]
    call = EmbedCall(texts, kind=OutputKind.TOKENS, normalize=False)
    result, plain = await asyncio.gather(
        served.service.embed(call), served.service.embed(EmbedCall(texts))
    )
    assert result.rows == result.input_tokens == (3, 5)
    by_input = result.by_input(result.vectors)
    for states, text in zip(by_input, texts, strict=True):
        np.testing.assert_allclose(states, states_of(served, text), atol=1e-6)
    np.testing.assert_allclose(plain.vectors[1], unit(by_input[1].mean(axis=0)), atol=1e-6)


async def test_token_vectors_are_cut_and_converted(served: Served) -> None:
    """Token vectors are cut to dimensions and converted as vectors of inputs are."""
    call = EmbedCall(
        ["alpha"], kind=OutputKind.TOKENS, dimensions=4, output_dtypes=(OutputDtype.FLOAT16,)
    )
    result = await served.service.embed(call)
    cut = states_of(served, "alpha")[:, :4]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    np.testing.assert_allclose(result.vectors, expected, atol=1e-6)
    assert result.converted[OutputDtype.FLOAT16].dtype == np.float16


async def test_token_vectors_are_bounded(tiny_folder: Path) -> None:
    """Calls for more token vectors than the limit are refused: an answer of a million vectors would not fit."""
    limits = ServiceLimits(max_token_vectors=7)
    service_parts = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(limits=limits))
    try:
        call = EmbedCall(["alpha beta", "red"], kind=OutputKind.TOKENS)
        await service_parts.service.embed(call)
        with pytest.raises(RequestTooLargeError, match="vectors of 8 tokens, max 7"):
            await service_parts.service.embed(
                dataclasses.replace(call, inputs=["alpha beta", "red green"])
            )
    finally:
        service_parts.service.close()


async def test_late_chunking_pools_each_chunk(served: Served) -> None:
    """Each chunk is pooled from states that saw the whole document; special tokens belong to the chunks at its ends."""
    chunks = ["alpha beta", "red", "one two three"]
    result = await served.service.embed(EmbedCall(chunks, chunks=(2, 1)))
    first = states_of(served, "alpha beta red")
    last = states_of(served, chunks[2])
    expected = [states.mean(axis=0) for states in (first[:3], first[3:], last)]
    np.testing.assert_allclose(result.vectors, [unit(vector) for vector in expected], atol=1e-6)
    assert result.input_tokens == (3, 2, 5)
    lone = await served.service.embed(EmbedCall(chunks[2:]))
    np.testing.assert_allclose(result.vectors[2], lone.vectors[0], atol=1e-7)


async def test_late_chunking_names_the_chunk(served: Served) -> None:
    """Errors name the chunk's index, counted over all documents of the call."""
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
    """Calls for what a model cannot give are refused before anything is computed."""
    service_parts = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(spec=spec))
    service_parts.backend.info = replace(service_parts.backend.info, gives_tokens=gives_tokens)
    try:
        with pytest.raises(error):
            await service_parts.service.embed(call)
        assert service_parts.backend.batches == []
    finally:
        service_parts.service.close()


async def test_texts_and_ids_may_be_mixed(served: Served) -> None:
    """Texts and ids may be mixed, as in TEI; where there is a prompt, ids become text first."""
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
async def test_raw_vectors_are_not_quantized(served: Served, dtype: OutputDtype) -> None:
    """Quantized dtypes are refused for raw vectors, because the ranges are those of unit vectors."""
    with pytest.raises(InputError, match="unit vectors") as caught:
        await served.service.embed(EmbedCall(["a"], normalize=False, output_dtypes=(dtype,)))
    assert caught.value.param == "output_dtype"


async def test_bits_take_whole_bytes(served: Served) -> None:
    """Dimensions that do not fill whole bytes of bits are refused: clients expect dimensions / 8 bytes."""
    with pytest.raises(InputError, match="no multiple of 8") as caught:
        await served.service.embed(
            EmbedCall(["a"], dimensions=4, output_dtypes=(OutputDtype.UBINARY,))
        )
    assert caught.value.param == "dimensions"


async def test_a_name_may_stand_for_a_prompt_and_dimensions(tiny_folder: Path) -> None:
    """An alias may stand for a prompt and dimensions, for callers that can say neither; what a call says wins."""
    presets = {"short-queries": AliasPreset("query", 4)}
    service_parts = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(presets=presets))
    try:
        embed = service_parts.service.embed
        by_alias = await embed(EmbedCall(["alpha"], model="Short-Queries:latest"))
        expected = await embed(EmbedCall(["alpha"], prompt_name="query", dimensions=4))
        np.testing.assert_array_equal(by_alias.vectors, expected.vectors)
        assert (by_alias.prompt_used, by_alias.model) == ("query", SPEC.name)
        literal = await embed(EmbedCall(["a"], model="short-queries", prompt="x", dimensions=2))
        assert (literal.prompt_used, literal.vectors.shape) == ("", (1, 2))
        role = await embed(EmbedCall(["a"], model="short-queries", prompt_role="passage"))
        assert role.prompt_used == "document"
    finally:
        service_parts.service.close()
    with pytest.raises(ConfigError, match=r"aliases\.a\.prompt_name.*aliases\.b\.dimensions"):
        check_presets(
            {"a": AliasPreset(prompt_name="none such"), "b": AliasPreset(dimensions=9)}, SPEC
        )
