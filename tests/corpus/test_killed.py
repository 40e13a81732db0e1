"""`nestvec embed` as a real process, killed in the middle, and as a filter between pipes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
LINES = 60_000
NESTVEC = str(Path(sys.executable).parent / "nestvec")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model, in a cache that only this test uses."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    return write_tiny_bert(tmp_path / "model")


def command(model: Path, *paths: str) -> list[str]:
    """Return the command line of `nestvec embed` as a user types it."""
    return [NESTVEC, "embed", *paths, "--model", str(model)]


def test_a_killed_run_loses_and_doubles_nothing(model: Path, tmp_path: Path) -> None:
    """A run that kill -9 ends twice, then runs to its end, writes every line once and in order."""
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("\n".join(f"alpha beta {n % 97}" for n in range(LINES)))
    progress = tmp_path / ".out.jsonl.embed/progress.json"
    committed = 0
    for _ in range(2):
        process = subprocess.Popen(
            command(model, str(source), str(target)), stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            if progress.is_file() and json.loads(progress.read_text())["records"] > committed:
                break
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        committed = json.loads(progress.read_text())["records"]
        assert not target.exists()
    done = subprocess.run(
        command(model, str(source), str(target)), capture_output=True, text=True, check=True
    )
    assert f"{LINES} vectors ({committed} texts by an earlier run)" in done.stdout
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(n) for n in range(LINES)]
    # Texts come again every 97 lines, so their vectors must too, whichever run made them.
    firsts = {n: rows[n]["embedding"] for n in range(97)}
    for n in range(0, LINES, 1009):
        assert rows[n]["embedding"] == pytest.approx(firsts[n % 97], abs=1e-5)


def test_ctrl_c_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a run without a traceback, and says that the same command resumes it."""
    # Enough that a busy machine sends the signal before the end.
    source, target = tmp_path / "in.txt", tmp_path / "out.npy"
    source.write_text("\n".join(f"alpha {n}" for n in range(10 * LINES)))
    # A shell's background job ignores Ctrl-C, and so would every process that it starts.
    process = subprocess.Popen(
        command(model, str(source), str(target)),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    progress = tmp_path / ".out.npy.embed/progress.json"
    until = time.monotonic() + 60
    while time.monotonic() < until and not progress.is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "the same command goes on from here" in stderr
    assert "Traceback" not in stderr


def test_a_filter_between_pipes(model: Path) -> None:
    """Standard output holds vectors alone; all else goes to standard error."""
    done = subprocess.run(
        [*command(model, "-", "-"), "--stdin-format", "jsonl"],
        input='{"id": "a", "text": "alpha"}\n"beta"\n',
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["a", "1"]
    assert "2 vectors" in done.stderr
