"""`POST /v1/chunk`, and the splitter that needs vectors of sentences, there and in late chunking."""

import re
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nestvec.engine.limits import ServiceLimits

from tests.api.applications import Api, MakeApi
from tests.api.http.test_key_limits import add, bearer
from tests.support.served import ServedOptions

TEXT = "alpha beta. gamma one! two three? red green blue. the a of and."
LATE = {"input": [TEXT], "truncate": "end", "late_chunking": {"splitter": "semantic"}}
SPLITTERS = ("sentences", "tokens", "markdown", "code", "semantic")


async def chunks(api: Api, **body: Any) -> list[dict[str, Any]]:
    """The chunks of an answer."""
    answer = await api.client.post("/v1/chunk", json=body)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


async def test_places_and_tokens(api: Api) -> None:
    """Chunks tell where they lie and how many tokens start there; nothing runs but the tokenizer."""
    answer = await api.client.post("/v1/chunk", json={"input": [TEXT, "one 😀 two. red"]})
    rows = answer.json()["data"]
    found = [([TEXT, "one 😀 two. red"][r["document"]])[r["start"] : r["end"]] for r in rows]
    assert found[:2] == ["alpha beta. ", "gamma one! "]
    assert found[-2:] == ["one 😀 two. ", "red"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert rows[0]["tokens"] == 3
    assert sum(row["tokens"] for row in rows) == answer.json()["usage"]["total_tokens"]
    assert api.served.backend.batches == []


async def test_joined_they_are_the_document(api: Api) -> None:
    """Whatever the splitter, the chunks of a document are all of it, without overlap."""
    text = "# one\n\n" + TEXT * 3 + "\n\ndef two():\n    red\n"
    for splitter in SPLITTERS:
        rows = await chunks(api, input=text, splitter=splitter, chunk_tokens=8)
        assert "".join(text[row["start"] : row["end"]] for row in rows) == text, splitter


async def test_the_same_words_as_late_chunking(api: Api) -> None:
    """Late chunking cuts where this route says."""
    for options in ({"splitter": "code"}, {"splitter": "semantic", "chunk_tokens": 8}):
        rows = await chunks(api, input=TEXT * 3, **options)
        late = await api.embed({"input": TEXT * 3, "late_chunking": options})
        assert late.status_code == 200, late.text
        names = ("document", "start", "end", "tokens")
        cut = [[row[name] for name in names] for row in late.json()["data"]]
        assert cut == [[row[name] for name in names] for row in rows]


async def test_sentences_that_are_embedded_count(api: Api) -> None:
    """`semantic` embeds the sentences first: they are in the usage of both routes."""
    plain = await api.client.post("/v1/chunk", json={"input": TEXT})
    own = plain.json()["usage"]["total_tokens"]
    body = {"input": TEXT, "splitter": "semantic"}
    answer = await api.client.post("/v1/chunk", json=body)
    ran = sum(sum(batch) for batch in api.served.backend.batches)
    assert answer.json()["usage"]["total_tokens"] == own + ran
    usage = (await api.embed(LATE)).json()["usage"]["total_tokens"]
    assert usage == sum(map(sum, api.served.backend.batches)) - ran > ran


BAD: list[tuple[dict[str, Any], str]] = [
    ({"splitter": "words"}, "splitter"),
    ({"chunk_tokens": 3}, "chunk_tokens"),
    ({"splitter": "code", "overlap_tokens": 2}, "overlap_tokens"),
    ({"splitter": "tokens", "chunk_tokens": 8, "overlap_tokens": 5}, "overlap_tokens"),
    ({"input": ["alpha", " "]}, "input[1]"),
    ({"input": " "}, "input"),
    ({"input": []}, "input"),
    ({"input": [1]}, "input[0]"),
    ({"model": "none"}, "model"),
    ({"spliter": "code"}, "spliter"),
]


async def test_bad_requests(api: Api) -> None:
    """What is wrong is named."""
    for body, param in BAD:
        answer = await api.client.post("/v1/chunk", json={"input": "alpha", **body})
        assert answer.status_code in (400, 404), (body, answer.text)
        assert answer.json()["error"]["param"] == param, body


async def test_bounds(make_api: MakeApi) -> None:
    """Tokens, chunks, and sentences to compare are bounded; what is refused runs nothing."""
    limits = ServiceLimits(max_inputs=4, max_tokens=400, max_token_vectors=20)
    api = make_api(ServedOptions(limits=limits))
    for body, message in (
        ({"input": ["alpha"] * 5}, "at most 4 inputs"),
        ({"input": "alpha " * 500}, "400 tokens"),
        ({"input": "alpha. " * 30}, "20 per request"),
        ({"input": "alpha. " * 30, "splitter": "semantic"}, "sentences to compare, max 20"),
    ):
        answer = await api.client.post("/v1/chunk", json=body)
        assert answer.status_code == 400, answer.text
        assert message in answer.text
    assert api.served.backend.batches == []
    rows = await chunks(api, input="alpha. " * 19, splitter="semantic")
    assert sum(row["tokens"] for row in rows) == 38


async def test_late_options_are_checked_before_sentences_run(api: Api) -> None:
    """What would be refused of the chunks' vectors is refused before any sentence is embedded."""
    body = {"input": [TEXT], "dimensions": 999, "late_chunking": {"splitter": "semantic"}}
    assert (await api.embed(body)).status_code == 400
    assert api.served.backend.batches == []


async def test_a_key_pays_for_all_tokens(make_api: MakeApi, tmp_path: Path) -> None:
    """A key pays for the documents' tokens and for those of their sentences; what is refused costs nothing."""
    number, key = add(tmp_path / "keys.json", monthly_tokens=130)
    api = make_api(keys_file=tmp_path / "keys.json", data_dir=tmp_path)
    body = {"input": TEXT, "splitter": "semantic"}
    assert (await api.client.post("/v1/chunk", json=body)).status_code == 401
    headers = bearer(key)
    bad = {**body, "input": [TEXT, " "]}
    assert (await api.client.post("/v1/chunk", json=bad, headers=headers)).status_code == 400
    usage = api.app.state.keys.usage
    assert usage.tokens_this_month(number) == 0
    paid = 0
    for path, one in (("/v1/chunk", body), ("/v1/embeddings", LATE), ("/v1/chunk", body)):
        answer = await api.client.post(path, json=one, headers=headers)
        assert answer.status_code == 200, answer.text
        paid += answer.json()["usage"]["total_tokens"]
        assert usage.tokens_this_month(number) == paid
    assert paid > 130
    assert (await api.client.post("/v1/chunk", json=body, headers=headers)).status_code == 429


@settings(
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=st.text(min_size=1, max_size=60), splitter=st.sampled_from(SPLITTERS))
async def test_any_unicode(api: Api, text: str, splitter: str) -> None:
    """Spans cover the text, whatever it is; a text without a token is refused."""
    answer = await api.client.post("/v1/chunk", json={"input": text, "splitter": splitter})
    if answer.status_code == 400:
        assert "no token" in answer.text
        assert not re.search(r"[a-zA-Z0-9]", text)
        return
    rows = answer.json()["data"]
    assert "".join(text[row["start"] : row["end"]] for row in rows) == text
