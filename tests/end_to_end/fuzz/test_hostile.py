"""Thousands of hostile requests to a real server: none is answered with an error of the server, and none ends it."""

import asyncio
import json
import os
import re
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.fuzz.requests import Sent, hostile, operations_of
from tests.support.server import running_server
from tests.support.tiny import write_tiny_bert

# `make fuzz` sends 20,000.
COUNT = int(os.environ.get("FUZZ_HOSTILE", "1500"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
AT_ONCE = 8
# What a server that is well may say with a 5xx: the caller's own deadline.
EXPECTED_5XX = {504}
BROKEN = 0


async def send(client: httpx.AsyncClient, sent: Sent, findings: list[str]) -> int:
    """Send a request; gives the status, 0 where the client's own library refuses to send it."""
    try:
        request = client.build_request(
            sent.method, sent.path, content=sent.body, headers=dict(sent.headers)
        )
        answer = await client.send(request)
    except (httpx.InvalidURL, httpx.LocalProtocolError, ValueError, UnicodeError):
        return BROKEN
    except httpx.TransportError as error:
        findings.append(f"{type(error).__name__} for {sent}"[:500])
        return BROKEN
    if answer.status_code >= 500 and answer.status_code not in EXPECTED_5XX:
        findings.append(f"{answer.status_code} {answer.text[:200]} for {sent}"[:700])
    if (
        answer.status_code >= 400
        and sent.method not in ("HEAD", "TRACE", "BREW")
        and answer.content
    ):
        kind = answer.headers.get("content-type", "")
        if not kind.startswith(("application/json", "text/plain")):
            findings.append(f"{answer.status_code} of type {kind} for {sent}"[:500])
        if kind.startswith("application/json"):
            json.loads(answer.content)
    return answer.status_code


@pytest.mark.process
@pytest.mark.timeout(120 + COUNT // 20)
async def test_none_of_them_is_too_much(tmp_path: Path) -> None:
    """Afterwards the server is as it was: it answers, holds nothing, and has crashed nowhere."""
    model = write_tiny_bert(tmp_path / "model")
    settings = {
        "model": model,
        "served_model_name": "all-MiniLM-L6-v2",
        "cache_dir": tmp_path / "cache",
        "request_timeout_s": 20,
    }
    findings: list[str] = []
    with running_server(tmp_path, **settings) as server:
        process = psutil.Process(server.process.pid)
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            document = (await client.get("/openapi.json")).json()
            requests = hostile(list(operations_of(document)), COUNT, SEED)
            statuses: Counter[int] = Counter()
            before = process.num_fds()

            async def work() -> None:
                for sent in requests:  # shared: each takes the next
                    statuses[await send(client, sent, findings)] += 1

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
            print(f"{sum(statuses.values())} requests: {dict(sorted(statuses.items()))}")
            answer = await client.post("/v1/embeddings", json={"input": "alpha"})
            assert answer.status_code == 200
            metrics = (await client.get("/metrics")).text
        assert process.num_fds() <= before + AT_ONCE + 10
        assert re.search(r"nestvec_in_flight_requests 1\.0", metrics)
        assert "nestvec_in_flight_body_bytes 0.0" in metrics
        assert "request_crashed" not in server.logs()
        assert server.terminate() == 0
    assert not findings, "\n".join(findings[:10])
    assert statuses[200] > COUNT / 50
    assert statuses[BROKEN] < COUNT / 5
