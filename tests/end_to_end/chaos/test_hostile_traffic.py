"""A small container under attack: it lives, and an honest caller beside the attackers notices next to nothing."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from nestvec.keys.records import KeyFile, KeyLimits

from tests.end_to_end.chaos.conftest import Report
from tests.end_to_end.chaos.load import texts, truth
from tests.end_to_end.chaos.measured import Size, default_server
from tests.support.cgroups import MemoryCgroup, NoCgroupError, memory_cgroup

pytestmark = [pytest.mark.load, pytest.mark.model]
SECONDS = float(os.environ.get("CHAOS_HOSTILE_S", "600"))
CONNECTIONS = 50
LIMIT_BYTES = 2**30
HONEST_PER_S = 5
MAX_P99_S = 0.5
TOLERANCE = 1e-5


@dataclass
class Honest:
    """What the honest caller met.

    Attributes:
        statuses: How often each status was answered; 0 where the connection broke.
        took_s: How long each answer took.
        wrong: How many vectors were not those of the quiet server.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)
    wrong: int = 0

    async def ask(self, client: httpx.AsyncClient, text: str, expected: np.ndarray) -> None:
        """Ask for the vector of one text, and note the answer."""
        started_s = time.perf_counter()
        try:
            answer = await client.post("/v1/embeddings", json={"input": text})
        except httpx.TransportError:
            self.statuses[0] += 1
            return
        self.took_s.append(time.perf_counter() - started_s)
        self.statuses[answer.status_code] += 1
        if answer.status_code == httpx.codes.OK:
            vector = np.array(answer.json()["data"][0]["embedding"])
            self.wrong += bool(np.abs(vector - expected).max() > TOLERANCE)

    async def call_for(self, duration_s: float, url: str, key: str) -> None:
        """Ask for one short text at a time, so many a second, whatever becomes of the answers before."""
        known = texts(200, seed=5, longest=20)
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            expected = await truth(client, known)
            started_s = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for number in range(round(duration_s * HONEST_PER_S)):
                    due_s = started_s + number / HONEST_PER_S
                    await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                    known_number = number % len(known)
                    group.create_task(self.ask(client, known[known_number], expected[known_number]))


@contextmanager
def small_container() -> Iterator[MemoryCgroup]:
    """A cgroup of the size of a small container; skips the test where there can be none."""
    try:
        with memory_cgroup("nestvec-hostile", LIMIT_BYTES) as cgroup:
            yield cgroup
    except NoCgroupError as error:
        pytest.skip(str(error))


@contextmanager
def attacking(url: str, key: str) -> Iterator[subprocess.Popen[str]]:
    """Run the attackers in a process of their own."""
    arguments = [url, key, "all-MiniLM-L6-v2", str(SECONDS), str(CONNECTIONS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.end_to_end.chaos.hostile", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


@pytest.mark.timeout(SECONDS + 200)
async def test_an_honest_caller_beside_attackers(tmp_path: Path, report: Report) -> None:
    """Beside 50 hostile connections a server in 1 GB lives, and answers an honest caller's texts, right and fast."""
    file = KeyFile.read(tmp_path / "keys.json")
    honest_key, hostile_key = (file.add(name, KeyLimits())[1] for name in ("honest", "hostile"))
    file.write()
    honest = Honest()
    settings = {"keys_file": tmp_path / "keys.json", "truncate": "error"}
    with (
        small_container() as cgroup,
        default_server(tmp_path, cgroup.command, **settings) as server,
        attacking(server.url, hostile_key) as attackers,
    ):
        size = Size(server.process.pid)
        watching = asyncio.create_task(size.watch())
        await honest.call_for(SECONDS, server.url, honest_key)
        watching.cancel()
        statuses: dict[str, int] = json.loads((await asyncio.to_thread(attackers.communicate))[0])
        killed, status = cgroup.killed(), server.terminate()
    took_ms = np.percentile(honest.took_s, [50, 99, 100]) * 1000
    report(
        f"{CONNECTIONS} hostile connections for {SECONDS:.0f} s, server in a cgroup of 1 GB, "
        f"an honest key's {HONEST_PER_S} texts/s",
        f"honest answers {dict(honest.statuses)}, {honest.wrong} wrong, p50 {took_ms[0]:.0f} ms, "
        f"p99 {took_ms[1]:.0f} ms, longest {took_ms[2]:.0f} ms; RSS at most "
        f"{max(size.rss_bytes) / 2**20:.0f} MB, killed {killed}; attackers {statuses}",
    )
    assert status == 0
    assert killed == 0
    assert set(honest.statuses) == {200}
    assert honest.wrong == 0
    assert took_ms[1] <= MAX_P99_S * 1000
    assert max(size.rss_bytes) < LIMIT_BYTES
    assert not [name for name in statuses if name.endswith(" 500")]
