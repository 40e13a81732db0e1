"""What a model does not know is told in usage, header and metric; where it knows all, nothing is."""

import dataclasses
from typing import Any

import pytest

from tests.api.applications import Api, Jobs, MakeApi, line, sample, scrape
from tests.support.served import SPEC, ServedOptions

UNKNOWN = sample("nestvec_unknown_tokens_total", model="org/fake-model")
SAYS = ("x-embed-unknown", "x-embed-script")
KNOWN_ONLY: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {"input": ["alpha", "", "naïve beta"]}),
    ("/v1/embeddings", {"input": "alpha", "embedding_type": "float"}),
    ("/embed", {"inputs": ["alpha"]}),
    ("/v2/embed", {"texts": ["alpha"], "model": "fake-model"}),
]


async def test_nothing_unknown_is_told_by_nothing(make_api: MakeApi) -> None:
    """No field, header or count where the vocabulary has all, blank texts included."""
    api = make_api(ServedOptions(spec=dataclasses.replace(SPEC, languages=("en",))))
    for path, body in KNOWN_ONLY:
        answer = await api.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert "unknown" not in answer.text
        assert not any(name in answer.headers for name in SAYS)
    assert (await scrape(api))[UNKNOWN] == 0


@pytest.mark.parametrize("extra", [{}, {"embedding_type": "float"}])
async def test_unknown_tokens_are_counted(api: Api, extra: dict[str, Any]) -> None:
    """`usage` and the metric have the number, and so has the header where it is over 5 %."""
    answer = await api.embed({"input": ["alpha 世界", "beta", "界"], **extra})
    assert answer.json()["usage"]["unknown_tokens"] == 3
    assert answer.headers["x-embed-unknown"] == "3"
    few = await api.embed({"input": ["alpha " * 10] * 4 + ["世 beta " + "gamma " * 8], **extra})
    assert few.json()["usage"]["unknown_tokens"] == 1
    assert "x-embed-unknown" not in few.headers
    assert (await scrape(api))[UNKNOWN] == 4


async def test_other_dialects_have_the_header(api: Api) -> None:
    """The header is in every dialect, also where `usage` has a vendor's fields alone."""
    for path, body in (
        ("/embed", {"inputs": ["世"]}),
        ("/v1/embeddings", {"input": ["世"], "truncation": True}),
        ("/api/embed", {"input": ["世"]}),
        ("/v2/embed", {"texts": ["世"], "model": "fake-model"}),
    ):
        answer = await api.client.post(path, json=body)
        assert answer.headers.get("x-embed-unknown") == "1", path


async def test_lines_of_a_batch_have_their_own(jobs: Jobs) -> None:
    """Lines that run as one call each have the number of their own texts."""
    batch = await jobs.create(line("a", "alpha") + line("b", "世 界") + line("c", ["世", "beta"]))
    rows = await jobs.rows((await jobs.until(batch["id"]))["output_file_id"])
    usage = {name: row["response"]["body"]["usage"] for name, row in rows.items()}
    assert "unknown_tokens" not in usage["a"]
    assert (usage["b"]["unknown_tokens"], usage["c"]["unknown_tokens"]) == (2, 1)


async def test_scripts_that_the_card_does_not_know(make_api: MakeApi) -> None:
    """A header names them, in every dialect; a model of no known languages says nothing."""
    api = make_api(ServedOptions(spec=dataclasses.replace(SPEC, languages=("en", "el"))))
    answer = await api.embed({"input": ["alpha", "Привет", "世界", "Γειά"]})
    assert answer.headers["x-embed-script"] == "cyrillic,han"
    answer = await api.client.post("/embed", json={"inputs": "Привет"})
    assert answer.headers["x-embed-script"] == "cyrillic"
    assert "x-embed-script" not in (await api.embed({"input": "Γειά σου"})).headers
    silent = make_api()
    assert "x-embed-script" not in (await silent.embed({"input": "Привет"})).headers
