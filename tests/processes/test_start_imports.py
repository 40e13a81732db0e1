"""What a server's start imports: nothing of features that are off."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.model_store.two_towers.towers import write_model
from tests.support.server import environment
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process

# Starts an application with each of several settings, one after the other, until its engine is ready; prints which
# packages of a list have been imported by then.
START: Final = """
import asyncio, json, sys
from nestvec.config.settings import Settings
from nestvec.main import build_app

async def start(settings, packages):
    ready, started = asyncio.Event(), asyncio.Event()

    async def receive():
        if started.is_set():
            await ready.wait()
            return {"type": "lifespan.shutdown"}
        started.set()
        return {"type": "lifespan.startup"}

    async def send(message):
        assert "failed" not in message["type"], message

    phases = []
    def on_ready(state):
        phases.append(str(state.phase))
        ready.set()

    app = build_app(Settings(**settings), on_ready=on_ready)
    await asyncio.wait_for(app({"type": "lifespan"}, receive, send), 60)
    print(json.dumps([phases, [name for name in packages if name in sys.modules]]))

all_settings, packages = map(json.loads, sys.argv[1:])
for settings in all_settings:
    asyncio.run(start(settings, packages))
"""
# What files and batches, usage, rates, object stores, documents, downloads and other backends need.
OF_FEATURES: Final = (
    *("sqlalchemy", "alembic", "mako", "redis", "obstore", "psycopg"),
    *("huggingface_hub", "httpx", "tqdm", "pyarrow", "tiktoken", "sentencex", "markdown_it"),
    *("openvino", "pypdfium2", "matplotlib", "scipy", "cryptography", "jinja2"),
    *("opentelemetry.sdk", "opentelemetry.exporter", "PIL"),
)


def test_a_start_imports_nothing_of_what_is_off(tmp_path: Path) -> None:
    """Without files, batches and keys no database library is imported, nor that of another feature; with keys it is.

    What reads pictures is there before the first of them comes, where a model takes some.
    """
    write_tiny_bert(tmp_path / "model")
    folders = {name: str(tmp_path / name) for name in ("model", "cache_dir", "data_dir")}
    off = {**folders, "files_api": False}
    clip = str(write_model(tmp_path / "clip", "clip"))
    starts = [off, {**off, "api_keys": "a-key-of-sixteen-letters"}, {**off, "model": clip}]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START, json.dumps(starts), json.dumps(OF_FEATURES)],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert found == [
        [["ready"], []],
        [["ready"], ["sqlalchemy"]],
        [["ready"], ["sqlalchemy", "PIL"]],
    ]


# What `nestvec serve` imports before it starts the processes that serve.
SUPERVISOR: Final = """
import json, sys
import nestvec.cli.serve, nestvec.assembly.sources, nestvec.processes.supervisor
print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))
"""
OF_SERVING: Final = ("fastapi", "uvicorn", "starlette", "onnxruntime", "onnx", "sqlalchemy")


def test_the_supervisor_imports_nothing_that_serves() -> None:
    """What its processes need each of them imports itself: a start waits for none of it twice."""
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, json.dumps(OF_SERVING)],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == []
