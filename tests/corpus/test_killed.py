"""`nestvec embed` as a real process, killed in the middle, and as a filter between pipes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
LINES = 40_000
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
    """A run that kill -9 ends, then runs to its end, writes every line once and in order."""
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("\n".join(f"alpha beta {n % 97}" for n in range(LINES)))
    progress = tmp_path / ".out.jsonl.embed/progress.json"
    process = subprocess.Popen(command(model, str(source), str(target)), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and not progress.is_file():
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


ROOT = Path(__file__).parents[2]
FILES = 300


def make_notes(folder: Path) -> None:
    """Write 300 Markdown files: this repository's pages, and others made by a seed."""
    chance = random.Random(28)
    words = ["alpha", "beta", "gamma", "red", "blue", "query", "passage"]
    pages = sorted((ROOT / "docs").glob("*.md"))
    for number in range(FILES):
        path = folder / f"part{number % 7}" / f"note{number // 7}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < len(pages):
            path.write_text(pages[number].read_text("utf-8")[:4000], "utf-8")
            continue
        sections = (
            f"# {chance.choice(words)} {n}\n\n" + " ".join(chance.choices(words, k=40)) + ".\n\n"
            for n in range(chance.randint(8, 14))
        )
        path.write_text("".join(sections))


@pytest.mark.load
def test_a_folder_is_indexed_killed_changed_and_indexed_again(model: Path, tmp_path: Path) -> None:
    """A folder's chunks survive kill -9, and of a second run only changed files are embedded; ids are distinct."""
    notes, target = tmp_path / "notes", tmp_path / "out.jsonl"
    make_notes(notes)
    index = [
        *command(model, str(notes), str(target)),
        *("--append", "--chunk", "markdown", "--chunk-tokens", "12"),
    ]
    process = subprocess.Popen(index, stderr=subprocess.DEVNULL)
    progress = tmp_path / ".out.jsonl.embed/progress.json"
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None and not progress.is_file():
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    committed = json.loads(progress.read_text())["records"]
    assert 0 < committed < FILES
    done = subprocess.run(index, capture_output=True, text=True, check=True)
    assert f"({committed} texts by an earlier run)" in done.stdout
    first = check_index(notes, target)
    changed = [notes / f"part{n}" / "note20.md" for n in range(3)]
    for number, path in enumerate(changed):
        path.write_text(f"# changed {number}\n\nalpha beta\n\n# more\n\n{'gamma ' * 50}")
    done = subprocess.run(index, capture_output=True, text=True, check=True)
    assert f"{FILES - 3} texts unchanged" in done.stdout
    second = check_index(notes, target)
    names = {path.relative_to(tmp_path).as_posix() for path in changed}
    untouched = {name: row for name, row in first.items() if row["document"] not in names}
    assert {name: second[name] for name in untouched} == untouched
    assert {row["document"] for name, row in second.items() if name not in untouched} == names


def check_index(notes: Path, target: Path) -> dict[str, dict[str, Any]]:
    """Check that an output holds each part of each file once; return its rows by their ids."""
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    documents: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        documents.setdefault(row["document"], []).append((row["start"], row["end"]))
    assert len(documents) == FILES
    for name, places in documents.items():
        ends = [0, *(end for _, end in sorted(places))]
        assert [start for start, _ in sorted(places)] == ends[:-1]
        assert ends[-1] == len((notes.parent / name).read_text("utf-8"))
    return by_id


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
    kept = re.search(rf"interrupted: (\d+) of {10 * LINES} texts are kept", stderr)
    assert kept is not None
    assert int(kept[1]) == json.loads(progress.read_text())["records"]
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
