"""The default model cut short, in coarser dtypes, chunked and cached: its published curve, and no text run twice."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.corpus.reports.statistics.scores import pair_cosines, spearman
from nestvec.engine.vectors.postprocess import finish
from nestvec.model_store.package import Package
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.model.exact_vectors import exact_pairs
from tests.support.data_sets import data_set
from tests.support.server import RunningServer, running_server

pytestmark = pytest.mark.model
CORPUS = data_set("corpus/paragraph.txt")
CURVE = {384: 0.820, 256: 0.819, 128: 0.807, 64: 0.792, 32: 0.767}
WINDOW, OVERLAP = 254, 254 // 8
DOCUMENT = "".join(
    f"Paragraph {n}: the cafe\u0301 in Zu\u0308rich 😀 sells “crêpes”, 東京 tea and {n * 37} rolls.\r\n"
    for n in range(40)
)


@pytest.mark.usefixtures("default_package")
def test_the_curve_of_sts_b(tmp_path_factory: pytest.TempPathFactory) -> None:
    """STS-B is as published at each number of dimensions, to 0.3 points, from one pass."""
    pairs = exact_pairs(tmp_path_factory)
    for size, expected in CURVE.items():
        prefix = finish(pairs.raw, dimensions=size, normalize=True)
        score = spearman(pair_cosines(*pairs.sides(prefix)).tolist(), pairs.task.gold)
        assert score == pytest.approx(expected, abs=0.003), size


@pytest.fixture(scope="module")
def server(
    default_package: Package, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with its cache in memory, as it is by default."""
    del default_package
    with running_server(tmp_path_factory.mktemp("matryoshka")) as running:
        yield running


def metric(server: RunningServer, name: str) -> float:
    """Return a metric, summed over its labels."""
    text = httpx.get(f"{server.url}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


def post(server: RunningServer, path: str, **body: Any) -> Any:
    """Return the body of a response."""
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text[:300]
    return answer.json()


@pytest.mark.process
def test_another_form_of_known_texts_runs_no_token(server: RunningServer) -> None:
    """128 dimensions in int8 of texts that were embedded as 384 floats run no token."""
    if not CORPUS.is_file():
        pytest.skip(f"{CORPUS} is absent")
    texts = CORPUS.read_text().splitlines()[:60]
    body = {"input": texts, "truncate": True, "encoding_format": "base64"}
    whole = post(server, "/v1/embeddings", **body)
    before = metric(server, "nestvec_batch_tokens_sum")
    short = post(server, "/v1/embeddings", **body, dimensions=128, output_dtype="int8")
    assert metric(server, "nestvec_batch_tokens_sum") == before > 0
    assert short["usage"] == whole["usage"]
    assert metric(server, "nestvec_vector_cache_saved_tokens_total") >= before
    assert post(server, "/v1/embeddings", **body)["data"] == whole["data"]


@pytest.mark.process
def test_vectors_outlive_the_process(default_package: Package, tmp_path: Path) -> None:
    """Vectors outlive the process in a file, where the operator names one."""
    del default_package
    texts = [DOCUMENT[:300], "another", "one more"]
    answers, runs = [], []
    for _ in range(2):
        with running_server(tmp_path, vector_cache_file=tmp_path / "vectors.db") as server:
            answers.append(post(server, "/v1/embeddings", input=texts)["data"])
            runs.append(metric(server, "nestvec_batch_inputs_sum"))
            assert server.terminate() == 0
    assert answers[0] == answers[1]
    assert runs == [3, 0]


@pytest.mark.process
def test_a_hundred_callers_with_one_text_run_it_once(server: RunningServer) -> None:
    """A hundred callers at once with one text run it once."""
    before = metric(server, "nestvec_batch_inputs_sum")

    async def send_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            body = {"input": "the same text of a hundred callers " * 12}
            return await asyncio.gather(
                *(client.post("/v1/embeddings", json=body) for _ in range(100))
            )

    answers = asyncio.run(send_all())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert metric(server, "nestvec_batch_inputs_sum") == before + 1


@pytest.mark.process
def test_chunks_of_a_document_of_several_windows(server: RunningServer) -> None:
    """Chunks equal the means of the token vectors that the server gives for each window."""
    tokens = post(server, "/tokenize", inputs=[DOCUMENT])[0]
    content_tokens = [token for token in tokens if not token["special"]]
    ids, starts = (
        [token["id"] for token in content_tokens],
        [token["start"] for token in content_tokens],
    )
    edges = [n for n in range(0, len(ids), WINDOW - OVERLAP) if n + WINDOW < len(ids)]
    windows = [(n, n + WINDOW) for n in [*edges, len(ids) - WINDOW]]
    assert len(windows) > 2
    prefix_id, suffix_id = tokens[0]["id"], tokens[-1]["id"]
    states: NDArray[np.float64] = np.zeros((len(ids) + 2, 384))
    margin = np.full(len(ids), -1)
    for start, stop in windows:
        window = [[prefix_id, *ids[start:stop], suffix_id]]
        answer = httpx.post(
            f"{server.url}/embed_all",
            json={"inputs": window},
            headers={"x-embed-token-vocab": "model"},
            timeout=60,
        )
        window_states = np.array(answer.json()[0])
        for position in range(start, stop):
            before = position - start if start else 10**6
            after = stop - 1 - position if stop < len(ids) else 10**6
            if min(before, after) > margin[position]:
                margin[position] = min(before, after)
                states[1 + position] = window_states[1 + position - start]
        states[0] = window_states[0] if start == 0 else states[0]
        states[-1] = window_states[-1]
    late = {"splitter": "sentences", "chunk_tokens": 60}
    data = post(server, "/v1/embeddings", input=[DOCUMENT], late_chunking=late)["data"]
    assert "".join(DOCUMENT[row["start"] : row["end"]] for row in data) == DOCUMENT
    for row in data:
        members = [n for n, start in enumerate(starts) if row["start"] <= start < row["end"]]
        assert row["tokens"] == len(members)
        first = 0 if members[0] == 0 else members[0] + 1
        last = len(states) if members[-1] == len(ids) - 1 else members[-1] + 2
        pooled = states[first:last].mean(axis=0)
        np.testing.assert_allclose(row["embedding"], pooled / np.linalg.norm(pooled), atol=1e-5)
