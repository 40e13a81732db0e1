"""The JDK's own HTTP client, which offers HTTP/2 with every request in plain text, against a real server."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.server import running_server
from tests.support.tiny import write_tiny_bert

pytestmark = [pytest.mark.clients, pytest.mark.process]
CLIENT = Path(__file__).parent / "java/EmbeddingsClient.java"
KEY = {"authorization": "Bearer test-key"}
TEXTS = ["hello", "a ümlaut and 😀"]


def test_the_jdks_client(tmp_path: Path) -> None:
    """It gets the vectors with a body of a length, in chunks, and from many calls at once; forms arrive whole."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("Java absent: install a JDK of 17 or later (Debian: default-jdk-headless)")
    write_tiny_bert(tmp_path / "model")
    chosen: dict[str, Any] = {
        "model": tmp_path / "model",
        "cache_dir": tmp_path / "cache",
        "api_keys": "test-key",
    }
    with running_server(tmp_path, **chosen) as server:
        done = subprocess.run(
            [java, str(CLIENT), server.url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        printed = json.loads(done.stdout)
        body = {"input": TEXTS, "encoding_format": "base64"}
        plain = httpx.post(f"{server.url}/v1/embeddings", json=body, headers=KEY).json()
        logs = server.logs()
    for name in ("sync", "chunked"):
        for got, expected in zip(printed[name]["data"], plain["data"], strict=True):
            np.testing.assert_allclose(
                np.frombuffer(base64.b64decode(got["embedding"]), "<f4"),
                np.frombuffer(base64.b64decode(expected["embedding"]), "<f4"),
                atol=1e-6,
            )
    assert printed["same"] == 20
    assert [file["bytes"] for file in printed["files"]] == [len("Upgrade: h2c\r\n")] * 2
    assert printed["models"]["data"]
    assert "Unsupported upgrade" not in logs
    assert "pip install" not in logs
