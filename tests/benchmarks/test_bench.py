"""The parts of the benchmarks: settings, tables, batching, processes, and a worker that really answers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nestvec.tools.bench.texts import unique_texts
from typing_extensions import override

from benchmarks.arguments import parser_for
from benchmarks.engines import HERE, Engine, Setting, Worker, engines_of
from benchmarks.http_run import (
    SCENARIOS,
    Contest,
    requests_of,
    servers_of,
)
from benchmarks.http_run import table as http_table
from benchmarks.processes import Server
from benchmarks.run import check_agreement, result_file, table

ECHO = """
import sys
sys.path.insert(0, sys.argv[1])
from protocol import serve
serve({"echo": "1"}, lambda texts, setting: [[len(t), setting["x"], 0.0, 0.0] for t in texts])
"""
SLEEPER = """
import http.server, os, sys
if os.fork() == 0:
    while True:
        sum(range(100000))  # a child that computes
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/up" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ok).serve_forever()
"""


def engine(name: str = "nestvec") -> Engine:
    """Return an engine with one setting."""
    return Engine(name, "script", "fp32", ({"x": 2},), is_peer=False)


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_no_setting_asks_for_more_threads_than_cores(cores: int) -> None:
    """No engine is oversubscribed, ours is in each table, and every script exists."""
    for engines in engines_of(cores).values():
        assert any(not engine.is_peer for engine in engines)
        for engine in engines:
            assert (HERE / "workers" / f"{engine.script}.py").is_file()
            for setting in engine.settings:
                assert setting.get("inter", 1) * setting.get("intra", 1) <= cores
                assert setting.get("threads", 1) <= cores


def test_a_worker_is_asked_and_answers(tmp_path: Path) -> None:
    """It answers over its real pipes, for texts all at once and one by one."""
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    line = [sys.executable, str(script), str(HERE / "workers")]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        worker = Worker(engine("echo"), process)
        assert worker.read() == {"ready": {"echo": "1"}}
        answer = worker.ask(["four", "two"], {"x": 2})
        assert answer["check"] == [4.0, 2.0, 0.0, 0.0]
        assert answer["seconds"] >= 0
        assert answer["each_s"] == []
        assert len(worker.ask(["a", "b", "c"], {"x": 2}, each=True)["each_s"]) == 3
        assert worker.rss_mb > 1
        worker.stop()
        assert process.returncode == 0


def test_a_worker_that_dies_ends_the_run() -> None:
    """The error has the worker's name and exit status."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", "raise SystemExit(3)"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        pytest.raises(SystemExit, match="dead ended with status 3"),
    ):
        Worker(engine("dead"), process).read()


class Canned(Worker):
    """A worker that answers without a process."""

    def __init__(self, name: str, values: list[float], seconds: list[float]) -> None:
        super().__init__(engine(name), None)  # type: ignore[arg-type] # never used
        self.values = values
        self.best = {"short": {"x": 1}}
        self.seconds_per_token = {"short": seconds}
        self.query_s = [0.001, 0.002, 0.009]

    @override
    def ask(
        self,
        texts: list[str],
        setting: Setting,
        *,
        each: bool = False,
        with_vectors: bool = False,
        timeout_s: float = 0.0,
    ) -> dict[str, Any]:
        """Return the values that it was made with."""
        return {"check": self.values}


def test_engines_with_other_vectors_are_not_compared() -> None:
    """Vectors may differ by rounding, but not in direction."""
    right = Canned("right", [1.0, 0.0, 0.5], [1])
    check_agreement([right, Canned("rounded", [0.99, 0.01, 0.51], [1])], "text")
    with pytest.raises(SystemExit, match="wrong gives other vectors"):
        check_agreement([right, Canned("wrong", [0.0, 1.0, 0.5], [1])], "text")
    with pytest.raises(SystemExit, match="nan"):
        check_agreement([right, Canned("broken", [float("nan")] * 3, [1])], "text")


def test_the_table_shows_ratios_of_the_best_rounds() -> None:
    """Twice as fast is 2.00, with the spread beside it."""
    base, ours = Canned("peer", [1], [0.002, 0.004]), Canned("nestvec", [1], [0.001, 0.002])
    text = table("fp32", [base, ours], {"short": 0.81})
    assert "1.00 (1.50) 500 tok/s | 2.00 (1.50) 1,000 tok/s" in text
    assert "2.0 / 8.9" in text
    assert "short 81%" in text


def test_absent_texts_are_made(tmp_path: Path) -> None:
    """Where the folder that `--data` names does not exist, the benchmarks make texts."""
    parser = parser_for("what it does", rounds=3)
    arguments = ["--model", "folder", "--data", str(tmp_path)]
    assert parser.parse_args(arguments).data == tmp_path
    assert parser.parse_args([*arguments[:3], str(tmp_path / "absent")]).data is None


def test_result_files_are_named_by_processor() -> None:
    """Their names have no odd characters."""
    name = result_file("-http").name
    assert name.endswith("-http.md")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_requests_hold_every_text_once() -> None:
    """A request has several texts as a list, or a single one as a string."""
    texts = unique_texts("short", 96, None, seed=1)
    assert len(set(texts)) == len(texts) == 96
    assert [request.texts for request in requests_of(texts[:70], 32)] == [32, 32, 6]
    single = next(requests_of(texts, 1))
    assert f'"input":"{texts[0]}"'.encode() in single.body


def test_a_server_is_watched_with_its_children(tmp_path: Path) -> None:
    """CPU time and memory are counted for children too, and nothing is left running."""
    script = tmp_path / "server.py"
    script.write_text(SLEEPER)
    server = Server("sleeper", [sys.executable, str(script), "{port}"], health="/up")
    server.start()
    try:
        before = server.cpu_s()
        deadline = 200
        while server.cpu_s() - before < 0.1 and deadline:
            deadline -= 1
            sum(range(300_000))
        assert server.cpu_s() - before >= 0.1
        assert server.peak_rss_mb() > 5
    finally:
        assert server.process is not None
        os.system(f"pkill -P {server.process.pid}")  # noqa: S605 - the child this test made
        server.stop()
    assert server.process.poll() is not None


def test_a_server_that_ends_is_reported(tmp_path: Path) -> None:
    """The error has its exit status, and its output is in its log."""
    server = Server(
        "dead", [sys.executable, "-c", "print('why'); exit(4)"], log=tmp_path / "dead.log"
    )
    with pytest.raises(SystemExit, match="dead ended with 4"):
        server.start()
    assert "why" in (tmp_path / "dead.log").read_text()


def test_the_http_table_has_every_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratios are of nestvec to the other; the server's CPU time is given over that of the bare engine."""
    servers = servers_of(tmp_path, tmp_path, tmp_path)
    monkeypatch.setattr(Server, "peak_rss_mb", lambda _: 100.0)
    contest = Contest()
    for name in ("engine", "engine int8", *(server.name for server in servers)):
        contest.query_s[name] = [0.004]
        for scenario in SCENARIOS:
            figures = contest.of(name, scenario.name)
            figures.tokens_per_s, figures.cpu_s_per_mtok = [800.0], [200.0]
            figures.p50_s, figures.p99_s = [0.01], [0.02]
    contest.of("nestvec", SCENARIOS[0].name).tokens_per_s = [1600.0]
    contest.of("nestvec", SCENARIOS[0].name).cpu_s_per_mtok = [220.0]
    text = http_table(contest, servers)
    assert "| FastAPI + sentence-transformers | 800 | 2.00 | 1.00 | 200 | 10 | 20 |" in text
    assert "over the bare engine's, nestvec: 1.10" in text
