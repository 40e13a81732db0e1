"""`groups`, `weights` and `context` over HTTP: what they make, and what they refuse."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from nestvec.engine.cache.vector_cache import CacheCounts, VectorCache
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import OutputKind, Truncation
from numpy.typing import NDArray

from tests.api.applications import Api, Jobs, MakeApi, line
from tests.support.fakes import fake_states
from tests.support.served import SPEC, ServedOptions

TEXTS = ["alpha beta", "one", "two three", "red", "green blue"]
WEIGHTS = [1, 0.5, -0.25, 2, 0.1]


async def _vectors(api: Api, body: dict[str, Any]) -> NDArray[np.float64]:
    answer = await api.embed(body)
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]])


def _ids(api: Api, text: str) -> NDArray[np.int32]:
    return api.served.tokenizer.encode_texts([text], TokenizeOptions(Truncation.END))[0].ids


async def test_a_group_is_the_weighted_sum_of_single_calls(api: Api) -> None:
    """Groups equal what numpy makes of each input's own vector, before the cut; usage counts every input."""
    alone = np.concatenate([await _vectors(api, {"input": text}) for text in TEXTS])
    weighted = alone * np.array(WEIGHTS)[:, None]
    sums = np.array([weighted[:3].sum(axis=0), weighted[3:].sum(axis=0)])
    unit = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    body = {"input": TEXTS, "groups": [3, 2], "weights": WEIGHTS}
    np.testing.assert_allclose(await _vectors(api, body), unit, atol=1e-6)
    cut = unit[:, :4] / np.linalg.norm(unit[:, :4], axis=1, keepdims=True)
    np.testing.assert_allclose(await _vectors(api, {**body, "dimensions": 4}), cut, atol=1e-6)
    raw = await _vectors(api, {**body, "normalize": False})
    np.testing.assert_allclose(raw, unit, atol=1e-6)
    bits = await _vectors(api, {**body, "output_dtype": "ubinary"})
    assert (bits[:, 0] == np.packbits(unit > 0, axis=1)[:, 0]).all()
    equal = alone.sum(axis=0) / np.linalg.norm(alone.sum(axis=0))
    np.testing.assert_allclose(
        await _vectors(api, {"input": TEXTS, "groups": [5]}), [equal], atol=1e-6
    )
    answer = (await api.embed(body)).json()
    plain = (await api.embed({"input": TEXTS})).json()
    assert answer["usage"] == plain["usage"]
    assert [row["index"] for row in answer["data"]] == [0, 1]


def _counts(cache: VectorCache) -> CacheCounts:
    """Return what happened to the inputs of the only model."""
    (counts,) = cache.counts.values()
    return counts


async def test_inputs_of_groups_are_cached_as_any_others(make_api: MakeApi) -> None:
    """A group's inputs are found by a plain call, and the other way round; the group's own vector is not kept."""
    cache = VectorCache(1_000_000)
    api = make_api(ServedOptions(cache=cache))
    await _vectors(api, {"input": TEXTS, "groups": [3, 2]})
    await _vectors(api, {"input": TEXTS})
    await _vectors(api, {"input": TEXTS[1:3], "groups": [2], "dimensions": 4})
    assert (_counts(cache).misses, _counts(cache).hits) == (5, 7)


async def test_chunks_of_a_document_may_be_grouped(api: Api) -> None:
    """Late chunking's vectors are combined as any inputs' are."""
    chunks = {"input": TEXTS, "late_chunking": True}
    alone = await _vectors(api, chunks)
    sums = np.array([alone[:1].sum(axis=0), alone[1:].sum(axis=0)])
    unit = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    vectors = await _vectors(api, {**chunks, "groups": [1, 4]})
    np.testing.assert_allclose(vectors, unit, atol=1e-6)


async def test_a_context_is_read_and_not_pooled(api: Api) -> None:
    """The vector is the mean over the text's own tokens and what ends it, of states that saw the context."""
    context, text = "red green", "alpha beta"
    for given, made in ((context, "red green\nalpha beta"), ("red green ", "red green alpha beta")):
        states = fake_states(_ids(api, made))
        own = len(_ids(api, text)) - 1  # all but what stands before a text
        expected = states[-own:].mean(axis=0)
        vectors = await _vectors(api, {"input": [text], "context": [given]})
        np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=1e-6)
    answer = (await api.embed({"input": text, "context": context})).json()
    assert answer["usage"]["prompt_tokens"] == len(_ids(api, f"{context}\n{text}"))


async def test_contexts_may_be_one_for_all_or_missing(api: Api) -> None:
    """A bare text stands before every input; an empty one changes no bit of a vector."""
    plain = await _vectors(api, {"input": TEXTS[:2]})
    one = await _vectors(api, {"input": TEXTS[:2], "context": "red"})
    assert (one == await _vectors(api, {"input": TEXTS[:2], "context": ["red", "red"]})).all()
    some = await _vectors(api, {"input": TEXTS[:2], "context": ["", "red"]})
    assert (some == [plain[0], one[1]]).all()
    for nothing in ("", [], None, ["", ""], "   "):
        assert (await _vectors(api, {"input": TEXTS[:2], "context": nothing}) == plain).all()


async def test_a_prompt_stands_before_the_context(api: Api) -> None:
    """A prompt, the context, the text: only the text is pooled."""
    states = fake_states(_ids(api, "query : red\nalpha"))
    expected = states[-2:].mean(axis=0)
    body = {"input": ["alpha"], "context": "red", "input_type": "query"}
    vectors = await _vectors(api, body)
    np.testing.assert_allclose(vectors[0], expected / np.linalg.norm(expected), atol=1e-6)


async def test_the_context_gives_way_first(api: Api) -> None:
    """Beyond the limit the context is cut from its start, then the text as the call says; the answer counts it."""
    text, context = "alpha beta one two", " ".join(["red", "green", "blue"] * 5)
    ids = _ids(api, f"blue {text}")  # 16 tokens in all: 10 of the context stay
    assert len(ids) - 2 == 5
    refused = await api.embed({"input": [text], "context": context})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input[0]"
    answer = await api.embed({"input": [text], "context": context, "truncate": True})
    kept = " ".join(context.split()[-10:])
    states = fake_states(_ids(api, f"{kept} {text}"))
    expected = states[-5:].mean(axis=0)
    row = np.array(answer.json()["data"][0]["embedding"])
    np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] == 16
    long_input = {"index": 0, "tokens_seen": 16, "tokens_dropped": 5, "windows": 1}
    assert usage["long_inputs"] == [long_input]
    assert answer.headers["x-embed-truncated"] == "1"


@pytest.mark.parametrize("truncate", ["end", "start"])
async def test_a_text_that_fills_the_window_has_no_context(api: Api, truncate: str) -> None:
    """Where the text alone is too long, its vector is the one that it has without a context."""
    long = " ".join(["one", "two", "three"] * 8)
    body = {"input": [long], "truncate": truncate}
    answer = (await api.embed({**body, "context": "red green"})).json()
    plain = (await api.embed(body)).json()
    assert answer["data"] == plain["data"]
    dropped = [a["usage"]["long_inputs"][0]["tokens_dropped"] for a in (answer, plain)]
    assert dropped[0] == dropped[1] + 2


async def test_a_context_is_part_of_the_caches_key(make_api: MakeApi) -> None:
    """The same text with another context, or none, is another vector; the same of both is found."""
    cache = VectorCache(1_000_000)
    api = make_api(ServedOptions(cache=cache))
    bodies = [
        {"input": "alpha"},
        *({"input": "alpha", "context": c} for c in ("red", "blue green")),
    ]
    first = [await _vectors(api, body) for body in bodies]
    # The same tokens, all of them pooled.
    first.append(await _vectors(api, {"input": "red alpha"}))
    assert (_counts(cache).misses, _counts(cache).hits) == (4, 0)
    again = [await _vectors(api, body) for body in bodies]
    assert (_counts(cache).misses, _counts(cache).hits) == (4, 3)
    assert len({vector.tobytes() for vector in first}) == 4
    assert all((a == b).all() for a, b in zip(first, again, strict=False))


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"groups": "x"}, "groups", "list of integers"),
    ({"groups": [2.5, 2.5]}, "groups[0]", "integer"),
    ({"groups": [True, 4]}, "groups[0]", "integer"),
    ({"groups": [2, 2]}, "groups", "add up"),
    ({"groups": [1e30]}, "groups", "add up"),
    ({"groups": [5, 0]}, "groups[1]", "at least one"),
    ({"weights": [1]}, "weights", "goes with 'groups'"),
    ({"groups": [5], "weights": [1]}, "weights", "each of the 5"),
    ({"groups": [5], "weights": 1}, "weights", "list of numbers"),
    ({"groups": [5], "weights": ["1"] * 5}, "weights[0]", "number"),
    ({"groups": [5], "weights": [1, True, 1, 1, 1]}, "weights[1]", "number"),
    ({"groups": [4, 1], "weights": [1, 1, 1, 1, 0]}, "weights", "group 1"),
    ({"groups": [4, 1], "weights": [1, 1, 1, -9, 1]}, "weights", "group 0"),
    ({"groups": [5], "late_chunking": {"splitter": "sentences"}}, "groups", "chunks"),
    ({"context": 1}, "context", "string"),
    ({"context": ["a"]}, "context", "each of the 5"),
    ({"context": ["a", 1, "a", "a", "a"]}, "context[1]", "string"),
    ({"context": "a", "late_chunking": True}, "context", "late chunking"),
    ({"context": "a", "input": [[5, 6]]}, "context", "token ids"),
    ({"context": "a", "truncate": "windows"}, "truncate", "windows"),
    ({"output_types": "dense"}, "output_types", "list of some of dense, sparse, tokens"),
    ({"output_types": ["labels"]}, "output_types", "list of some of"),
    ({"output_types": [["dense"]]}, "output_types", "list of some of"),
    ({"output_types": ["dense"] * 9}, "output_types", "list of some of"),
    ({"output_types": ["sparse"]}, None, "sparse model"),
    ({"output_types": ["dense", "sparse"]}, None, "sparse model"),
    ({"output_types": ["dense", "tokens"], "late_chunking": True}, "late_chunking", "one kind"),
    ({"output_types": ["dense", "tokens"], "groups": [5]}, "groups", "one vector"),
    ({"output_types": ["dense", "tokens"], "context": "a"}, "context", "one vector"),
    ({"output_types": ["dense", "tokens"], "layers": 1}, "layers", "vectors of texts"),
    ({"output_types": ["tokens"], "encoding_format": "bytes"}, "encoding_format", "float"),
    ({"group": [5]}, "group", "did you mean 'groups'"),
]


async def test_what_cannot_be_is_refused(make_api: MakeApi) -> None:
    """A 400 names the field, and what to send instead."""
    kinds = (OutputKind.DENSE, OutputKind.TOKENS)
    spec = dataclasses.replace(SPEC, kinds=kinds, trained_layers=(1,))
    api = make_api(ServedOptions(spec=spec), token_input="model")
    for fields, param, word in REFUSED:
        answer = await api.embed({"input": TEXTS, **fields})
        assert answer.status_code == 400, (fields, answer.text)
        error = answer.json()["error"]
        assert error["param"] == param, fields
        assert word in error["message"], fields


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"pooling": "cls"}, "cls: its vector says what all of the input says"),
        ({"pooling": "last_token"}, "last_token"),
        ({"pooling": "mean+cls"}, "mean+cls"),
        ({"architecture": "static"}, "each token alone"),
        ({"echo": ("", " ")}, "twice"),
    ],
)
async def test_models_that_cannot_leave_a_context_out_refuse_it(
    make_api: MakeApi, changes: dict[str, Any], word: str
) -> None:
    """The reason is the model's own; without a context it answers."""
    api = make_api(ServedOptions(spec=dataclasses.replace(SPEC, **changes)))
    answer = await api.embed({"input": "alpha", "context": "red"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "context"
    assert word in answer.json()["error"]["message"]
    assert (await api.embed({"input": "alpha"})).status_code == 200


@pytest.mark.parametrize("fields", [{"groups": [1]}, {"context": "red"}])
async def test_only_vectors_of_texts_have_them(make_api: MakeApi, fields: dict[str, Any]) -> None:
    """The pooling route of vLLM knows both for vectors of texts, and refuses them for those of tokens."""
    spec = dataclasses.replace(SPEC, kinds=(OutputKind.DENSE, OutputKind.TOKENS))
    api = make_api(ServedOptions(spec=spec))
    body = {"input": ["alpha beta"], **fields}
    embedded = await api.client.post("/pooling", json={**body, "task": "embed"})
    assert embedded.json()["data"][0]["data"] == (await _vectors(api, body))[0].tolist()
    answer = await api.client.post("/pooling", json={**body, "task": "token_embed"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(fields))


OTHER_DIALECTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {"input": ["a"], "truncation": True}),
    ("/v1/embeddings", {"input": ["a"], "embedding_type": "float"}),
    ("/v2/embed", {"texts": ["a"], "input_type": "search_query"}),
    ("/embed", {"inputs": ["a"]}),
    ("/api/embed", {"model": "fake-model", "input": ["a"]}),
    ("/v1/similarity", {"pairs": [["a", "b"]]}),
]


async def test_dialects_without_them_refuse_them(api: Api) -> None:
    """Ignoring one would give other vectors than were asked for."""
    own: list[dict[str, Any]] = [
        {"groups": [1]},
        {"weights": [1]},
        {"context": "red"},
        {"output_types": ["dense", "tokens"]},
    ]
    for (path, body), fields in itertools.product(OTHER_DIALECTS, own):
        answer = await api.client.post(path, json={**body, **fields})
        assert answer.status_code in (400, 422), (path, answer.text)
        assert next(iter(fields)) in answer.text


async def test_lines_of_a_batch_have_them(jobs: Jobs) -> None:
    """Each line has what the same request would have; lines that share a context still run together."""
    bodies: dict[str, dict[str, Any]] = {
        "groups": {"input": TEXTS, "groups": [3, 2], "weights": WEIGHTS},
        "lone": {"input": "alpha", "groups": [1]},
        "other lone": {"input": "beta", "groups": [1]},
        "context": {"input": "alpha", "context": "red"},
        "same context": {"input": "beta", "context": "red"},
        "list": {"input": "alpha", "context": ["red"]},
        "outputs": {"input": "alpha", "output_types": ["tokens", "dense"]},
        "more outputs": {"input": "beta", "output_types": ["tokens", "dense"]},
        "wrong": {"input": "beta", "groups": [2]},
    }
    content = b"".join(line(name, body["input"], **body) for name, body in bodies.items())
    batch = await jobs.until((await jobs.create(content))["id"])
    rows = await jobs.rows(batch["output_file_id"])
    for name, body in bodies.items():
        if name != "wrong":
            direct = (await jobs.api.embed(body)).json()
            assert rows[name]["response"]["body"]["data"] == direct["data"], name
    errors = await jobs.rows(batch["error_file_id"])
    assert list(errors) == ["wrong"]
    assert "add up" in errors["wrong"]["response"]["body"]["error"]["message"]
