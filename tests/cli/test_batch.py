"""`nestvec batch` against a real server."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from nestvec.cli import group

from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
KEY = "a-key"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a key and a tiny model."""
    folder = tmp_path_factory.mktemp("batch")
    model = write_tiny_bert(folder / "model")
    with running_server(folder, model=model, cache_dir=folder / "cache", api_keys=KEY) as server:
        yield server


def invoke(server: RunningServer, *arguments: str, key: str = KEY) -> Result:
    """Run `nestvec batch`."""
    environment = {"OPENAI_API_KEY": key}
    return CliRunner().invoke(group, ["batch", "--url", server.url, *arguments], env=environment)


def test_texts_go_round(server: RunningServer, tmp_path: Path) -> None:
    """Texts are submitted, awaited and fetched; ids and vectors are right."""
    source, target = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("key,body\na,alpha\nb,beta beta\n")
    done = invoke(
        server,
        *("submit", str(source), "--text-column", "body", "--id-column", "key"),
        *("--dimensions", "4", "--watch"),
    )
    assert done.exit_code == 0, done.output
    assert "completed: 2 answered, 0 refused" in done.output
    batch_id = next(word for word in done.output.split() if word.startswith("batch_"))
    fetched = invoke(server, "fetch", batch_id, str(target))
    assert f"{target}: 2 lines" in fetched.output
    rows = {row["custom_id"]: row for row in map(json.loads, target.read_text().splitlines())}
    encoded = rows["a"]["response"]["body"]["data"][0]["embedding"]
    plain = httpx.post(
        f"{server.url}/v1/embeddings",
        json={"input": "alpha", "dimensions": 4},
        headers={"authorization": f"Bearer {KEY}"},
    ).json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(encoded), "<f4"), plain, atol=1e-5)
    assert set(rows) == {"a", "b"}
    assert not target.with_name("out.jsonl.errors").exists()


def test_ready_requests_are_sent_as_they_are(server: RunningServer, tmp_path: Path) -> None:
    """Ready requests are sent unchanged, and refused ones come in a file of their own."""
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body}
        for name, body in (("good", {"input": "alpha"}), ("bad", {"input": None}))
    ]
    source.write_text("\n".join(map(json.dumps, rows)))
    batch_id = invoke(server, "submit", str(source)).output.split()[0]
    watched = invoke(server, "watch", batch_id)
    assert watched.exit_code == 0
    assert "completed: 1 answered, 1 refused" in watched.output
    invoke(server, "fetch", batch_id, str(target))
    assert json.loads(target.read_text())["custom_id"] == "good"
    assert json.loads(target.with_name("out.jsonl.errors").read_text())["custom_id"] == "bad"
    assert invoke(server, "cancel", batch_id).output.strip() == "completed"


def test_batches_are_listed(server: RunningServer, tmp_path: Path) -> None:
    """The key's batches are listed, newest first, as far as asked for."""
    source = tmp_path / "in.txt"
    source.write_text("alpha\nbeta\n")
    ids = [invoke(server, "submit", str(source), "--watch").output.split()[0] for _ in range(2)]
    listed = invoke(server, "list").output.splitlines()
    assert [row.split()[0] for row in listed[:2]] == ids[::-1]
    assert "completed" in listed[0]
    assert "  2/2  0 refused  " in listed[0]
    assert len(invoke(server, "list", "--limit", "1").output.splitlines()) == 1
    assert invoke(server, "list", "--unfinished").output == ""


def test_a_bad_file_says_which_line(server: RunningServer, tmp_path: Path) -> None:
    """A bad file fails its batch, and the line is named; the exit status is 1."""
    source = tmp_path / "in.jsonl"
    row = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}
    source.write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    done = invoke(server, "submit", str(source), "--watch")
    assert done.exit_code == 1
    assert "line 2: Another line has the same 'custom_id'." in done.output


def test_what_goes_wrong_is_said(server: RunningServer, tmp_path: Path) -> None:
    """An absent server, a wrong key and an unknown batch are errors with a reason."""
    source = tmp_path / "in.txt"
    source.write_text("alpha")
    for result, reason in (
        (invoke(server, "submit", str(source), key="wrong"), "Incorrect API key"),
        (invoke(server, "watch", "batch_none"), "No batch found with id 'batch_none'"),
        (
            CliRunner().invoke(group, ["batch", "--url", "http://127.0.0.1:1", "cancel", "x"]),
            "cannot be reached",
        ),
    ):
        assert result.exit_code == 1
        assert reason in str(result.exception)
