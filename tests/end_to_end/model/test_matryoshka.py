"""The default model cut, coarse, chunked and cached: its published curve, and that nothing is run twice."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.assembly.service import build_engine
from nestvec.config.loading import load_settings
from nestvec.engine.types import NullObserver
from nestvec.engine.vectors.postprocess import finish
from nestvec.model_store.package import Package
from nestvec.tools.quality.scores import pair_cosines, spearman
from nestvec.tools.quality.tasks import read_pairs
from nestvec.tools.quality.vectors import ModelVectors
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Server, running_server

pytestmark = pytest.mark.model
DATA = Path(__file__).parents[4] / "shared/data"
CURVE = {384: 0.820, 256: 0.819, 128: 0.807, 64: 0.792, 32: 0.767}
WINDOW, OVERLAP = 254, 254 // 8
DOCUMENT = "".join(
    f"Paragraph {n}: the cafe\u0301 in Zu\u0308rich 😀 sells “crêpes”, 東京 tea and {n * 37} rolls.\r\n"
    for n in range(40)
)


def test_the_curve_of_sts_b(default_package: Package) -> None:
    """At each of its sizes as published, to 0.3 points; one pass for all."""
    del default_package
    if not (DATA / "stsb/test.tsv").is_file():
        pytest.skip(f"{DATA / 'stsb/test.tsv'} is absent")
    task = read_pairs(DATA / "stsb/test.tsv")
    texts = list(dict.fromkeys((*task.first, *task.second)))
    place = {text: number for number, text in enumerate(texts)}
    service = build_engine(load_settings({"offline": True}).for_own_work(), NullObserver())
    with ModelVectors(service, lambda _: None) as model:
        raw = model.raw(texts)[0]
    for size, expected in CURVE.items():
        cut = finish(raw, dimensions=size, normalize=True)
        first, second = (cut[[place[t] for t in side]] for side in (task.first, task.second))
        score = spearman(pair_cosines(first, second).tolist(), task.gold)
        assert score == pytest.approx(expected, abs=0.003), size


@pytest.fixture(scope="module")
def server(default_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With its cache in memory, as it is by default."""
    del default_package
    with running_server(tmp_path_factory.mktemp("matryoshka")) as made:
        yield made


def metric(server: Server, name: str) -> float:
    """A counter, summed over its labels."""
    text = httpx.get(f"{server.url}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


def post(server: Server, path: str, **body: Any) -> Any:
    """The answer's body."""
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text[:300]
    return answer.json()


@pytest.mark.process
def test_another_form_of_known_texts_runs_no_token(server: Server) -> None:
    """128 dimensions in int8 after 384 floats."""
    if not (DATA / "corpus/paragraph.txt").is_file():
        pytest.skip(f"{DATA / 'corpus'} is absent")
    texts = (DATA / "corpus/paragraph.txt").read_text().splitlines()[:60]
    asked = {"input": texts, "truncate": True, "encoding_format": "base64"}
    whole = post(server, "/v1/embeddings", **asked)
    before = metric(server, "nestvec_batch_tokens_sum")
    cut = post(server, "/v1/embeddings", **asked, dimensions=128, output_dtype="int8")
    assert metric(server, "nestvec_batch_tokens_sum") == before > 0
    assert cut["usage"] == whole["usage"]
    assert metric(server, "nestvec_vector_cache_saved_tokens_total") >= before
    assert post(server, "/v1/embeddings", **asked)["data"] == whole["data"]


@pytest.mark.process
def test_vectors_outlive_the_process(default_package: Package, tmp_path: Path) -> None:
    """In a file, where the operator names one."""
    del default_package
    texts = [DOCUMENT[:300], "another", "one more"]
    answers, runs = [], []
    for _ in range(2):
        with running_server(tmp_path, vector_cache_file=tmp_path / "vectors.db") as made:
            answers.append(post(made, "/v1/embeddings", input=texts)["data"])
            runs.append(metric(made, "nestvec_batch_inputs_sum"))
            assert made.terminate() == 0
    assert answers[0] == answers[1]
    assert runs == [3, 0]


@pytest.mark.process
def test_a_hundred_callers_with_one_text_run_it_once(server: Server) -> None:
    """All at once."""
    before = metric(server, "nestvec_batch_inputs_sum")

    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            body = {"input": "the same text of a hundred callers " * 12}
            return await asyncio.gather(
                *(client.post("/v1/embeddings", json=body) for _ in range(100))
            )

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert metric(server, "nestvec_batch_inputs_sum") == before + 1


@pytest.mark.process
def test_chunks_of_a_document_of_several_windows(server: Server) -> None:
    """They equal means of token vectors that the server gives for each window."""
    tokens = post(server, "/tokenize", inputs=[DOCUMENT])[0]
    own = [token for token in tokens if not token["special"]]
    ids, starts = [token["id"] for token in own], [token["start"] for token in own]
    edges = [n for n in range(0, len(ids), WINDOW - OVERLAP) if n + WINDOW < len(ids)]
    windows = [(n, n + WINDOW) for n in [*edges, len(ids) - WINDOW]]
    assert len(windows) > 2
    lead, tail = tokens[0]["id"], tokens[-1]["id"]
    states: NDArray[np.float64] = np.zeros((len(ids) + 2, 384))
    depth = np.full(len(ids), -1)
    for start, stop in windows:
        window = [[lead, *ids[start:stop], tail]]
        answer = httpx.post(
            f"{server.url}/embed_all",
            json={"inputs": window},
            headers={"x-embed-token-vocab": "model"},
            timeout=60,
        )
        found = np.array(answer.json()[0])
        for place in range(start, stop):
            before = place - start if start else 10**6
            behind = stop - 1 - place if stop < len(ids) else 10**6
            if min(before, behind) > depth[place]:
                depth[place] = min(before, behind)
                states[1 + place] = found[1 + place - start]
        states[0] = found[0] if start == 0 else states[0]
        states[-1] = found[-1]
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
