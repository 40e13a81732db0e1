"""Texts of many characters and few tokens, over HTTP: their tokens count, whatever a dialect does with long inputs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.api.applications import Api, unit_vector

SENTENCE = "alpha beta gamma"
TEXT = " " * 70_000 + SENTENCE
ROUTES: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "openai": ("/v1/embeddings", {"input": TEXT}, lambda body: body["data"][0]["embedding"]),
    "tei": ("/embed", {"inputs": TEXT}, lambda body: body[0]),
    "ollama": ("/api/embed", {"input": TEXT}, lambda body: body["embeddings"][0]),
    "cohere": (
        "/v2/embed",
        {"texts": [TEXT], "input_type": "clustering", "embedding_types": ["float"]},
        lambda body: body["embeddings"]["float"][0],
    ),
}


@pytest.mark.parametrize("dialect", ROUTES)
async def test_a_sentence_behind_blanks_has_its_vector(api: Api, dialect: str) -> None:
    """70,000 blanks and a sentence are not too long and not cut: the vector is the sentence's."""
    path, body, vector = ROUTES[dialect]
    answer = await api.client.post(path, json={"model": "fake-model", **body})
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(vector(answer.json()), unit_vector(api, SENTENCE), atol=1e-6)
    assert "x-embed-truncated" not in answer.headers


@pytest.mark.parametrize("truncate", [True, "start", "windows", False])
async def test_nothing_is_lost_of_it(api: Api, truncate: Any) -> None:
    """No way to treat long inputs has anything to do, and `usage` counts the sentence's tokens."""
    answer = await api.embed({"input": TEXT, "truncate": truncate})
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] == 5
    assert not usage.get("long_inputs")


async def test_what_is_cut_behind_blanks_is_told(api: Api) -> None:
    """Where tokens are cut off, as many are told as were, or so many at least."""
    answer = await api.embed({"input": TEXT + " beta" * 50_000, "truncate": True})
    (long,) = answer.json()["usage"]["long_inputs"]
    assert long["at_least"]
    assert long["tokens_dropped"] > 0
    assert answer.headers["x-embed-truncated"] == "1"
    answer = await api.embed({"input": TEXT + " beta" * 20, "truncate": "start"})
    (long,) = answer.json()["usage"]["long_inputs"]
    assert long["tokens_dropped"] == 3 + 20 - 14


async def test_a_refusal_tells_where_counting_ended(api: Api) -> None:
    """A refusal of what is too long gives a number of tokens that it has at least."""
    answer = await api.embed({"input": TEXT + " beta" * 50_000, "truncate": False})
    assert answer.status_code == 400
    assert "at least" in answer.json()["error"]["message"]
