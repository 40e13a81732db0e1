"""The examples of docs/embed.md that need Ray, run as they stand, each in a process and a cluster of its own."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.services import free_port

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed; `make test-ray` installs it", allow_module_level=True)

pytestmark = [pytest.mark.model, pytest.mark.process, pytest.mark.timeout(1200)]
PAGE: Final = (Path(__file__).parents[3] / "docs/embed.md").read_text("utf-8")
PIPELINE, SERVE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# A small cluster on loopback, and no waiting for its workers behind others.
BEGIN: Final = """
import ray
ray.init(num_cpus=3, object_store_memory=200_000_000, include_dashboard=False)
"""
ASK: Final = """
import httpx
answer = httpx.post("http://127.0.0.1:8000/v1/embeddings", json={"input": ["a", "b"], "model": "static"}, timeout=60)
print(answer.status_code, [len(row["embedding"]) for row in answer.json()["data"]])
serve.shutdown()
"""


def run(code: str) -> str:
    """Run a program as a file; returns what it printed."""
    environment = os.environ | {"RAY_worker_niceness": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_the_pipeline_of_one_s_own() -> None:
    """It prints what its comment says."""
    said = re.search(r"print\(.*\)  # (.*)", PIPELINE)
    assert said is not None
    assert said[1] in run(BEGIN + PIPELINE)


def test_the_server_under_ray_serve() -> None:
    """It answers as the server does."""
    port = str(free_port())
    assert "200 [256, 256]" in run((BEGIN + SERVE + ASK).replace("8000", port))
