"""`return_offsets`: the places of the tokens whose vectors an answer holds, in the text as it was sent."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.token_vectors import TokenPooling

from tests.api.applications import Api, Jobs, MakeApi, line
from tests.support.served import SPEC, ServedOptions
from tests.support.tiny import vocabulary

KINDS = (OutputKind.DENSE, OutputKind.TOKENS)
OPTIONS = ServedOptions(spec=dataclasses.replace(SPEC, kinds=KINDS))
BODY: dict[str, Any] = {"output_types": ["tokens"], "return_offsets": True}


async def _row(api: Api, text: str, **fields: Any) -> dict[str, Any]:
    answer = await api.embed({"input": [text], **BODY, **fields})
    assert answer.status_code == 200, answer.text
    row: dict[str, Any] = answer.json()["data"][0]
    assert len(row["embeddings"]) == len(row["offsets"])
    return row


@pytest.mark.parametrize("prompt", [None, "query : "])
async def test_offsets_lead_to_the_tokens_of_the_text(
    make_api: MakeApi, prompt: str | None
) -> None:
    """Each is the part of the text that its token stands for; special tokens and a prompt's have none."""
    text = "Alpha  beta 😀 中 one"
    row = await _row(make_api(OPTIONS), text, prompt=prompt)
    places = row["offsets"]
    words = [text[place[0] : place[1]] for place in places if place is not None]
    assert (words[0], words[-1]) == ("Alpha", "one")
    assert [place is None for place in places] == (
        [True] * (1 if prompt is None else 3) + [False] * len(words) + [True]
    )
    assert "".join(words).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("truncate", ["end", "start"])
async def test_what_was_cut_off_has_no_vector_and_no_place(
    make_api: MakeApi, truncate: str
) -> None:
    """The offsets are those of the tokens that stayed, at either end."""
    text = " ".join(["one", "two", "three", "four"] * 5)
    row = await _row(make_api(OPTIONS), text, truncate=truncate)
    places = row["offsets"]
    assert (len(places), places[0], places[-1]) == (16, None, None)
    words = text.split()
    kept = words[:14] if truncate == "end" else words[-14:]
    assert [text[start:stop] for start, stop in places[1:-1]] == kept


@pytest.mark.parametrize("role", ["query", "document"])
async def test_late_interaction_has_places_for_its_own_tokens(make_api: MakeApi, role: str) -> None:
    """Markers and masks have none; what is left out of a document has neither vector nor place."""
    words = vocabulary()
    late = LateInteraction(
        query_marker=words.index("alpha"),
        document_marker=words.index("beta"),
        query_tokens=12,
        document_tokens=10,
        skip_ids=(words.index(":"),),
    )
    spec = dataclasses.replace(SPEC, kinds=(OutputKind.TOKENS,), late_interaction=late, prompts={})
    api = make_api(ServedOptions(spec=spec))
    text = "one : two"
    row = await _row(api, text, input_type=role)
    shown = [None if place is None else text[place[0] : place[1]] for place in row["offsets"]]
    if role == "query":
        assert shown == [None, None, "one", ":", "two", *[None] * 7]
    else:
        assert shown == [None, None, "one", "two", None]


async def test_jinas_form_has_offsets_dimensions_and_types(make_api: MakeApi) -> None:
    """Beside `return_multivector`: each token's vector cut and scaled, in each type, and the tokens' places."""
    api = make_api(OPTIONS)
    body = {"input": [{"text": "alpha beta"}], "return_multivector": True, "normalized": True}
    whole = np.array((await api.embed(body)).json()["data"][0]["embeddings"])
    types = ["float", "float16", "ubinary"]
    short = {**body, "dimensions": 8, "embedding_type": types, "return_offsets": True}
    row = (await api.embed(short)).json()["data"][0]
    np.testing.assert_allclose(row["embeddings"]["float16"], whole, atol=1e-3)
    bits = np.packbits(whole > 0, axis=1)
    assert row["embeddings"]["ubinary"] == bits.tolist()
    assert row["offsets"] == [None, [0, 5], [6, 10], None]
    cut = (await api.embed({**body, "dimensions": 3})).json()["data"][0]["embeddings"]
    unit = whole[:, :3] / np.linalg.norm(whole[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, unit, atol=1e-6)


async def test_tei_cuts_and_scales_each_token(make_api: MakeApi) -> None:
    """`/embed_all` takes `dimensions` and `normalize` as `/embed` does, and gives raw vectors without them."""
    api = make_api(OPTIONS)
    raw = np.array((await api.client.post("/embed_all", json={"inputs": "alpha beta"})).json()[0])
    body = {"inputs": "alpha beta", "dimensions": 3, "normalize": True}
    cut = (await api.client.post("/embed_all", json=body)).json()[0]
    unit = raw[:, :3] / np.linalg.norm(raw[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, unit, atol=1e-6)


async def test_offsets_that_cannot_be_are_refused(make_api: MakeApi) -> None:
    """Other outputs and token ids have no places in a text."""
    api = make_api(OPTIONS, token_input="model")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"output_types": ["dense"]}, "vectors of tokens"),
        ({"input": [[5, 6]]}, "not token ids"),
        ({"return_offsets": 1}, "true or false"),
    ]
    for fields, word in refused:
        answer = await api.embed({"input": ["alpha"], **BODY, **fields})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "return_offsets")
        assert word in answer.text
    assert api.served.backend.batches == []


async def test_merged_tokens_have_no_places(make_api: MakeApi) -> None:
    """A model that merges its tokens' vectors says so."""
    pooling = TokenPooling(factor=2, pools_documents=True)
    spec = dataclasses.replace(SPEC, kinds=KINDS, token_pooling=pooling)
    api = make_api(ServedOptions(spec=spec))
    answer = await api.embed({"input": ["alpha beta one two"], **BODY})
    assert (answer.status_code, "no places" in answer.text) == (400, True)


async def test_lines_of_a_batch_have_offsets(jobs: Jobs) -> None:
    """As the same request has; the batch's own refusals too."""
    rows = {"a": {"input": ["alpha", "beta one"], **BODY}, "b": {"input": "alpha", **BODY}}
    content = b"".join(line(name, body["input"], **body) for name, body in rows.items())
    batch = await jobs.until((await jobs.create(content))["id"])
    answers = await jobs.rows(batch["output_file_id"])
    for name, body in rows.items():
        direct = (await jobs.api.embed(body)).json()
        assert answers[name]["response"]["body"]["data"] == direct["data"]
