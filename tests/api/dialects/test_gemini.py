"""Gemini's form: one content or a batch, purposes, titles, sizes, both ways of sending a key, Google's errors."""

from typing import Any

import numpy as np
import pytest

from tests.api.applications import Api, MakeApi

MODEL = "/v1beta/models/org/fake-model"


def content(text: str, **fields: Any) -> dict[str, Any]:
    """Return a request to embed a text."""
    return {"content": {"parts": [{"text": text}]}, **fields}


async def openai_rows(api: Api, texts: list[str], **fields: Any) -> list[list[float]]:
    """Return the vectors of the same texts in OpenAI's form."""
    answer = await api.client.post("/v1/embeddings", json={"input": texts, **fields})
    return [row["embedding"] for row in answer.json()["data"]]


@pytest.mark.parametrize("prefix", ["/v1beta", "/v1"])
async def test_one_content(api: Api, prefix: str) -> None:
    """A content gives one vector; its parts are one text."""
    body = {
        "model": "models/org/fake-model",
        "content": {"parts": [{"text": "alpha"}, {"text": "beta"}]},
    }
    answer = await api.client.post(f"{prefix}/models/org/fake-model:embedContent", json=body)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["embedding", "usageMetadata"]
    (expected,) = await openai_rows(api, ["alpha\nbeta"])
    np.testing.assert_allclose(answer.json()["embedding"]["values"], expected, atol=1e-6)
    assert answer.headers["x-embed-space"]


async def test_a_batch_keeps_its_order_whatever_each_asks_for(api: Api) -> None:
    """Contents of several sizes and purposes come back in the order of the request; tokens are those of all."""
    requests = [
        content("alpha", outputDimensionality=4),
        content("beta gamma", taskType="RETRIEVAL_QUERY"),
        content("red", output_dimensionality=4, task_type="RETRIEVAL_DOCUMENT"),
        content("alpha", outputDimensionality=4),
    ]
    answer = await api.client.post(f"{MODEL}:batchEmbedContents", json={"requests": requests})
    assert answer.status_code == 200, answer.text
    rows = [row["values"] for row in answer.json()["embeddings"]]
    assert [len(row) for row in rows] == [4, 8, 4, 4]
    assert rows[0] == rows[3]
    (alpha,) = await openai_rows(api, ["alpha"], dimensions=4)
    (beta,) = await openai_rows(api, ["beta gamma"], input_type="query")
    (red,) = await openai_rows(api, ["red"], input_type="document", dimensions=4)
    for row, expected in zip(rows, (alpha, beta, red), strict=False):
        np.testing.assert_allclose(row, expected, atol=1e-6)
    usage = answer.json()["usageMetadata"]
    assert usage["promptTokenCount"] == usage["totalTokenCount"] > 8


async def test_a_title_stands_before_its_text(api: Api) -> None:
    """A document's title is a line before it."""
    body = content("beta gamma", taskType="RETRIEVAL_DOCUMENT", title="alpha")
    answer = await api.client.post(f"{MODEL}:embedContent", json=body)
    (expected,) = await openai_rows(api, ["alpha\nbeta gamma"], input_type="document")
    np.testing.assert_allclose(answer.json()["embedding"]["values"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (content("alpha", taskType="SEARCH"), "requests[1].taskType"),
        (content("alpha", outputDimensionality="4"), "requests[1].outputDimensionality"),
        (content("alpha", model="models/other"), "requests[1].model"),
        ({"content": "alpha"}, "requests[1].content"),
        ({"content": {"parts": []}}, "requests[1].content.parts"),
        ({"content": {"parts": [{"text": "a"}] * 1001}}, "requests[1].content.parts"),
        ({"content": {"parts": [{"text": 7}]}}, "requests[1].content.parts[0].text"),
        (
            {"content": {"parts": [{"inlineData": {}}]}},
            "requests[1].content.parts[0].inlineData",
        ),
        ({}, "requests[1].content"),
        (7, "requests[1]"),
    ],
)
async def test_errors_are_googles_and_name_the_place(api: Api, body: Any, field: str) -> None:
    """What is wrong in a batch is a google.rpc.Status that names the request and the field."""
    answer = await api.client.post(
        f"{MODEL}:batchEmbedContents", json={"requests": [content("red"), body]}
    )
    fault = answer.json()["error"]
    assert (answer.status_code, fault["code"], fault["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert fault["details"][0]["fieldViolations"][0]["field"] == field
    assert api.served.backend.batches == []


async def test_an_item_that_fails_is_named_across_groups(api: Api) -> None:
    """An index is that of the request, also where contents of other sizes lie between."""
    requests = [content("alpha"), content("red", outputDimensionality=4), content("alpha " * 40)]
    body = {"requests": requests, "autoTruncate": False}
    answer = await api.client.post(f"{MODEL}:batchEmbedContents", json=body)
    violation = answer.json()["error"]["details"][0]["fieldViolations"][0]
    assert violation["field"] == "requests[2]"


@pytest.mark.parametrize("path", [":generateContent", ":", "", ":countTokens"])
async def test_other_methods_are_told_apart(api: Api, path: str) -> None:
    """A method that is no embedding is refused, and says what there is."""
    answer = await api.client.post(f"{MODEL}{path}", json=content("alpha"))
    assert answer.status_code == 400
    assert "embedContent" in answer.json()["error"]["message"]


async def test_more_than_a_hundred_are_too_many(api: Api) -> None:
    """Google's bound on a batch holds."""
    body = {"requests": [content("alpha")] * 101}
    answer = await api.client.post(f"{MODEL}:batchEmbedContents", json=body)
    assert answer.status_code in (400, 413)
    assert "100" in answer.json()["error"]["message"]


async def test_keys_come_in_googles_header_or_query(
    make_api: MakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ways of Google's clients are known; a wrong key is UNAUTHENTICATED; no key reaches the log."""
    client = make_api(api_keys=["sesame-open"]).client
    path = f"{MODEL}:embedContent"
    by_header = await client.post(
        path, json=content("alpha"), headers={"x-goog-api-key": "sesame-open"}
    )
    by_query = await client.post(f"{path}?alt=json&key=sesame-open", json=content("alpha"))
    assert (by_header.status_code, by_query.status_code) == (200, 200)
    wrong = await client.post(f"{path}?key=guess-this", json=content("alpha"))
    assert (wrong.status_code, wrong.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert (await client.get("/v1beta/models?key=sesame-open")).status_code == 200
    # Elsewhere a query is no place for a key.
    assert (await client.get("/v1/models?key=sesame-open")).status_code == 401
    said = "".join(capsys.readouterr())
    assert "sesame-open" not in said
    assert "guess-this" not in said


async def test_models_are_listed_as_resources(api: Api) -> None:
    """Each model that embeds is listed, and described by itself; an unknown one is NOT_FOUND."""
    rows = (await api.client.get("/v1beta/models")).json()["models"]
    assert rows[0]["name"] == "models/org/fake-model"
    assert rows[0]["supportedGenerationMethods"] == ["embedContent"]
    one = await api.client.get("/v1beta/models/org/fake-model")
    assert one.json() == rows[0]
    google = {"x-goog-api-client": "google-genai-sdk/3.6.1"}
    for prefix in ("/v1/models", "/v1/models/org/fake-model"):
        beta = prefix.replace("/v1/", "/v1beta/")
        by_name = await api.client.get(prefix, headers=google)
        assert by_name.json() == (await api.client.get(beta)).json()
        assert "models/" not in (await api.client.get(prefix)).text
    unknown = await api.client.get("/v1beta/nothing")
    assert unknown.json()["error"]["status"] == "NOT_FOUND"
