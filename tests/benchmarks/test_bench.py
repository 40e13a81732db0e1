"""The benchmark's own parts: texts, settings, the table, and a worker that really answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.loads import LOADS, TEXTS, texts_of
from benchmarks.run import HERE, Worker, check_agreement, cpu_name, settings_of, table

ECHO = """
import sys
sys.path.insert(0, sys.argv[1])
from protocol import serve
serve({"echo": "1"}, lambda texts, setting: [[len(t), setting["x"], 0.0, 0.0] for t in texts])
"""


@pytest.mark.parametrize("load", LOADS)
def test_texts_are_unique_and_repeatable(load: str) -> None:
    """No cache can help, and a run can be repeated."""
    texts = texts_of(load, None, seed=3)
    assert len(set(texts)) == len(texts) == TEXTS[load]
    assert texts == texts_of(load, None, seed=3)
    assert not set(texts) & set(texts_of(load, None, seed=4))


def test_texts_from_a_folder(tmp_path: Path) -> None:
    """Lines, or the mixed file's objects."""
    (tmp_path / "short.txt").write_text("one\ntwo\n")
    (tmp_path / "mix.jsonl").write_text('{"text": "three", "kind": "short"}\n')
    assert {t.split(" ", 1)[1] for t in texts_of("short", tmp_path, seed=1)} == {"one", "two"}
    assert texts_of("mixed", tmp_path, seed=1)[0] == "1-0 three"


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_no_setting_asks_for_more_threads_than_cores(cores: int) -> None:
    """Each peer at its best, none oversubscribed."""
    for setting in settings_of(cores)["ctranslate2"]:
        assert setting["inter"] * setting["intra"] <= cores


def test_a_worker_is_asked_and_answers(tmp_path: Path) -> None:
    """Over its real pipes."""
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    line = [sys.executable, str(script), str(HERE / "workers")]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        worker = Worker("echo", process)
        assert worker.read() == {"ready": {"echo": "1"}}
        answer = worker.ask(["abc"], {"x": 5})
        assert answer["check"] == [3.0, 5.0, 0.0, 0.0]
        assert answer["seconds"] > 0
        worker.best["short"] = {"x": 1}
        other = Worker("other", process, best={"short": {"x": 2}})
        with pytest.raises(SystemExit, match="other gives other vectors than echo"):
            check_agreement([worker, other], "text")
        assert process.stdin is not None
        process.stdin.close()


def test_the_table_shows_ratios_to_the_base() -> None:
    """Least time of the rounds; higher is faster."""
    process = subprocess.Popen([sys.executable, "-c", ""], text=True)
    process.wait()
    ours = Worker(
        "nestvec", process, {"nestvec": "1"}, {"short": {"budget": 1}}, {"short": [2.0, 1.0]}
    )
    peer = Worker(
        "ctranslate2", process, {"ct2": "2"}, {"short": {"budget": 2}}, {"short": [2.0, 2.0]}
    )
    text = table([ours, peer], {"short": 100}, 2, 2)
    assert "| short | 100 | 2.00 (1.50) 100 tok/s | 1.00 (1.00) 50 tok/s |" in text
    assert cpu_name() in text
