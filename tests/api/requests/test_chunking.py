"""Documents, spans and splitters over HTTP; long inputs and what answers tell of them."""

from typing import Any

import numpy as np
import pytest

from tests.api.applications import Api

TEXT = "alpha beta. Gamma 😀 one! two e\u0301 中文。\r\nred green blue. "


async def test_spans_lead_back_to_the_document(api: Api) -> None:
    """Chunks name their spans in characters, whatever the script, and those spans give the same vectors."""
    for late in (
        {"splitter": "sentences"},
        {"splitter": "tokens", "chunk_tokens": 4, "overlap_tokens": 2},
        {"splitter": "markdown", "chunk_tokens": 5},
    ):
        answer = await api.embed({"input": [TEXT, "one two"], "late_chunking": late})
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        assert [row["index"] for row in data] == list(range(len(data)))
        assert {row["document"] for row in data} == {0, 1}
        first = [row for row in data if row["document"] == 0]
        if "overlap_tokens" not in late:
            assert "".join(TEXT[row["start"] : row["end"]] for row in first) == TEXT
        assert first[-1]["end"] == len(TEXT)
        spans = [
            [[row["start"], row["end"]] for row in data if row["document"] == d] for d in (0, 1)
        ]
        again = await api.embed({"input": [TEXT, "one two"], "late_chunking": {"spans": spans}})
        for row, row_again in zip(data, again.json()["data"], strict=True):
            np.testing.assert_allclose(row["embedding"], row_again["embedding"], atol=1e-6)


async def test_one_documents_spans_may_come_bare(api: Api) -> None:
    """The spans of a single document may be a list of pairs, without a list around it."""
    for spans in ([[0, 5], [6, 10]], [[[0, 5], [6, 10]]]):
        answer = await api.embed({"input": "alpha beta", "late_chunking": {"spans": spans}})
        assert [row["tokens"] for row in answer.json()["data"]] == [1, 1]


@pytest.mark.parametrize(
    ("late", "word"),
    [
        ("yes", "true, false, or an object"),
        ({}, "either"),
        ({"splitter": "tokens", "spans": []}, "either"),
        ({"splitter": "words"}, "'sentences' or 'tokens' or 'markdown'"),
        ({"splitter": None}, "null"),
        ({"splitter": "tokens", "chunk_tokens": 3}, "at least 4"),
        ({"splitter": "tokens", "chunk_tokens": "8"}, "integer"),
        ({"splitter": "tokens", "chunk_tokens": 8, "overlap_tokens": 5}, "0 to 4"),
        ({"splitter": "tokens", "overlap_tokens": -1}, "half a chunk"),
        ({"splitter": "sentences", "overlap_tokens": 2}, "'tokens'"),
        ({"splitter": "sentences", "size": 2}, "no 'size'"),
        ({"spans": [[0, 1]], "language": "en"}, "splitter"),
        ({"spans": "x"}, "list"),
        ({"spans": [[[0, 1]], [[0, 1]]]}, "2 lists for 1"),
        ({"spans": [[[0]]]}, "span 0 of document 0"),
        ({"spans": [[["0", 1]]]}, "span 0 of document 0"),
        ({"spans": [[[0, 1, 2]]]}, "span 0 of document 0"),
        ({"spans": [[]]}, "at least one span"),
        ({"spans": [[0, 99]]}, "outside"),
        ({"spans": [[-1, 3]]}, "outside"),
    ],
    ids=str,
)
async def test_wrong_options_are_refused(api: Api, late: Any, word: str) -> None:
    """Wrong options are refused with the field's name and what is wrong in it."""
    answer = await api.embed({"input": "alpha", "late_chunking": late})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "late_chunking"), answer.text
    assert word in error["message"]


async def test_documents_are_texts(api: Api) -> None:
    """Documents of token ids are refused, as they have no characters to cut at."""
    answer = await api.embed(
        {"input": [[5, 6]], "late_chunking": {"splitter": "tokens"}}, x_embed_token_vocab="model"
    )
    assert answer.status_code == 400
    assert "texts" in answer.json()["error"]["message"]


async def test_bits_and_dimensions_of_chunks(api: Api) -> None:
    """Chunks come in every form of a vector, and usage counts the tokens that were run."""
    body = {"input": TEXT, "late_chunking": {"splitter": "sentences"}, "output_dtype": "ubinary"}
    answer = (await api.embed({**body, "encoding_format": "base64"})).json()
    assert all(isinstance(row["embedding"], str) for row in answer["data"])
    assert answer["usage"]["prompt_tokens"] > 16
    assert answer["usage"]["long_inputs"][0]["windows"] > 1


async def test_long_inputs_are_told_in_usage_headers_and_metrics(api: Api) -> None:
    """Long inputs are told in usage, headers and metrics, with the tokens seen and dropped; short ones are not."""
    texts = ["alpha", "beta " * 20]
    cut = await api.embed({"input": texts, "truncate": True})
    assert cut.json()["usage"]["long_inputs"] == [
        {"index": 1, "tokens_seen": 16, "tokens_dropped": 6, "windows": 1}
    ]
    assert cut.headers["x-embed-truncated"] == "1"
    read = await api.embed({"input": texts, "truncate": "windows"})
    assert read.json()["usage"]["long_inputs"] == [
        {"index": 1, "tokens_seen": 22, "tokens_dropped": 0, "windows": 2}
    ]
    assert read.headers["x-embed-windows"] == "1"
    assert "x-embed-truncated" not in read.headers
    plain = await api.embed({"input": "alpha"})
    assert "long_inputs" not in plain.json()["usage"]
    metrics = (await api.client.get("/metrics")).text
    name = api.served.service.models.all()[0].name
    for line in (
        f'nestvec_truncated_inputs_total{{model="{name}"}} 1.0',
        f'nestvec_truncated_tokens_total{{model="{name}"}} 6.0',
        f'nestvec_windowed_inputs_total{{model="{name}"}} 1.0',
    ):
        assert line in metrics


async def test_windows_in_other_dialects(api: Api) -> None:
    """Jina's dialect reads long inputs in windows too, as its field takes the same words."""
    answer = await api.client.post(
        "/v1/embeddings", json={"input": [{"text": "beta " * 20}], "truncate": "windows"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-embed-windows"] == "1"
