"""Drift of what a running server is asked for: in /metrics, from its settings on."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import nestvec.main
import pytest
from nestvec.assembly.drift import build_drift_watch
from nestvec.corpus.reports.drift_watch import DriftWatch

from tests.api.routes.test_several_models import serving
from tests.support.tiny import write_tiny_bert

NUMBERS = ("one", "two", "three", "four", "the", "of")
COLOURS = ("red", "green", "blue", "the", "of", "and")


def texts(words: tuple[str, ...], seed: int, count: int = 120) -> list[str]:
    """Return texts of random words."""
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(words, k=drawn.randint(3, 8))) for _ in range(count)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Return a tiny model's folder, in 32 bits as it is: nothing to calibrate."""
    write_tiny_bert(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a server's watch test all the time."""

    def built(*arguments: Any) -> DriftWatch:
        watch = build_drift_watch(*arguments)
        watch.interval_s, watch.pause_s = 0.02, 0.0
        return watch

    monkeypatch.setattr(nestvec.main, "build_drift_watch", built)


async def drift_metrics(client: httpx.AsyncClient) -> dict[str, float]:
    """Return the samples of drift in /metrics."""
    lines = (await client.get("/metrics")).text.splitlines()
    rows = [line.rsplit(" ", 1) for line in lines if line.startswith("nestvec_drift_")]
    return {name.split("{")[0]: float(value) for name, value in rows}


async def is_ready(client: httpx.AsyncClient) -> None:
    """Wait until the model is served."""
    async with asyncio.timeout(30):
        while (await client.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("_often")
async def test_a_server_tells_whether_its_texts_are_like_the_reference(
    tmp_path: Path, model: str
) -> None:
    """No series before the first test; then what the last one found."""
    reference = tmp_path / "reference.txt"
    reference.write_text("\n".join(texts(COLOURS, 1)), "utf-8")
    async with serving(
        tmp_path, model=model, precision="fp32", drift_reference=reference
    ) as client:
        await is_ready(client)
        assert not await drift_metrics(client)
        found = []
        for words in (COLOURS, NUMBERS):
            before = await drift_metrics(client)
            answer = await client.post("/v1/embeddings", json={"input": texts(words, 2)})
            assert answer.status_code == 200, answer.text
            async with asyncio.timeout(30):
                while (now := await drift_metrics(client)) == before or len(now) < 2:
                    await asyncio.sleep(0.02)
            found.append(now)
    same, moved = found
    assert same["nestvec_drift_p"] > 0.01
    assert moved["nestvec_drift_p"] == pytest.approx(0.001)
    assert moved["nestvec_drift_distance"] > 2 * same["nestvec_drift_distance"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such file"), ("red\n" * 99, "99 texts; at least 100 tell anything")],
)
async def test_a_reference_that_is_none_ends_the_start(
    tmp_path: Path,
    model: str,
    content: str | None,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A server that could not say what it is asked to say does not start, and says why; without reading the model."""
    file = tmp_path / "reference.txt"
    if content is not None:
        file.write_text(content, "utf-8")
    async with serving(tmp_path, model=model, precision="fp32", drift_reference=file) as client:
        async with asyncio.timeout(30):
            while "model_failed" not in (told := capsys.readouterr().out):
                await asyncio.sleep(0.02)
        assert (await client.get("/health/ready")).status_code == 503
    assert "drift_reference: " in told
    assert says in told
