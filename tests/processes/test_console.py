"""What a person sees at a terminal, and what collects logs gets instead."""

import io
import json
import logging
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
import structlog
from nestvec.observability.logs import BarHandler, configure_logs, get_logger
from tqdm import tqdm
from typing_extensions import override

from tests.support.server import command, environment
from tests.support.tiny import write_tiny_bert

TIMEOUT_S = 120.0


def at_a_terminal(*arguments: str, until: str, **settings: object) -> str:
    """Run the command at a terminal until it shows some words or ends, then interrupt it; return what it showed."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command(*arguments),
        env={**environment(**settings), "NO_COLOR": "1", "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown, deadline_s = b"", time.monotonic() + TIMEOUT_S
    try:
        while time.monotonic() < deadline_s:
            if not select.select([controller], [], [], 0.1)[0]:
                continue
            try:
                part = os.read(controller, 65_536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            shown += part
            if until.encode() in shown and process.poll() is None:
                process.send_signal(signal.SIGINT)
                until = "\0"
        process.wait(TIMEOUT_S)
    finally:
        process.kill()
        os.close(controller)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.process
def test_a_first_start_at_a_terminal(tmp_path: Path) -> None:
    """The first start shows the time first, one line an event, no library's own lines, then the banner; no colours."""
    model = write_tiny_bert(tmp_path / "model")
    settings = {"model": model, "cache_dir": tmp_path / "cache", "data_dir": tmp_path / "data"}
    shown = at_a_terminal("serve", until="metrics:", port=0, offline=True, **settings)
    assert "\x1b[3" not in shown
    assert "Nestvec is ready: http://127.0.0.1:" in shown
    events = [line for line in shown.splitlines() if "model_ready" in line or "listening" in line]
    assert len(events) == 2
    assert all(re.match(r"(.*\r)?\d\d:\d\d:\d\d \[info", line) for line in events)
    assert "dimensions=32" in shown
    assert "alembic" not in shown
    assert "Traceback" not in shown


@pytest.mark.process
def test_a_wrong_name_ends_before_anything_listens(tmp_path: Path) -> None:
    """One plain line, also where logs are JSON, and nothing was bound or made."""
    settings = {"model": "all-MiniLM-L7-v2", "data_dir": tmp_path / "data", "log_format": "json"}
    done = subprocess.run(
        command("serve"),
        env=environment(port=0, offline=True, **settings),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("nestvec: there is no model")
    assert "did you mean all-MiniLM-L6-v2" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "data").exists()


def test_log_lines_stand_above_a_bar() -> None:
    """A log line takes a bar away and brings it back behind itself, instead of writing into it."""
    stream = io.StringIO()
    logger = logging.Logger("test")  # noqa: LOG001 - of this test only
    handler = BarHandler(stream)
    logger.addHandler(handler)
    with tqdm(total=10, file=stream, mininterval=0, ascii=True) as bar:
        bar.update(3)
        logger.warning("an event")
    before, after = stream.getvalue().split("an event\n", 1)
    assert before.endswith("\r")
    assert "3/10" in after


@pytest.mark.parametrize(("no_color", "has_colors"), [("", True), ("1", False)])
def test_colours_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, no_color: str, *, has_colors: bool
) -> None:
    """At a terminal events have colours, unless NO_COLOR says otherwise."""

    class Terminal(io.StringIO):
        @override
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stderr", terminal)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logs(level="info", style="auto")
        get_logger("nestvec.test").info("an_event", answer=42)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.reset_defaults()
    assert ("\x1b[" in terminal.getvalue()) is has_colors
    assert terminal.getvalue().count("\n") == 1


def test_json_lines_are_written_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and libraries' alike: an object a line, with level, logger and time; what is below the level is left out."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logs(level="info", style="json")
        log = get_logger("nestvec.test")
        log.debug("unseen")
        log.info("an_event", answer=42, text="\x1b\u00fc\n")
        logging.getLogger("library").warning("a %s", "warning")
        try:
            int("no")
        except ValueError:
            log.exception("crashed")
        with tqdm(total=10, file=stream, mininterval=0, ascii=True):
            log.warning("above_a_bar")
        shown = stream.getvalue()
        stream.close()
        log.error("nobody_reads_it")  # and nobody fails for it
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.reset_defaults()
    lines = [line[line.index("{") :] for line in shown.splitlines() if "{" in line]
    events = [json.loads(line) for line in lines]
    assert [(event["event"], event["level"], event["logger"]) for event in events] == [
        ("an_event", "info", "nestvec.test"),
        ("a warning", "warning", "library"),
        ("crashed", "error", "nestvec.test"),
        ("above_a_bar", "warning", "nestvec.test"),
    ]
    assert all(event["time"].endswith("Z") for event in events)
    assert (events[0]["answer"], events[0]["text"]) == (42, "\x1b\u00fc\n")
    assert "ValueError: " in events[2]["exception"]
    assert shown.isascii()
    assert "\x1b" not in lines[0]
