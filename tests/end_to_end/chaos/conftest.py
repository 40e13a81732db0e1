"""Collects what the suite measured into a page, to which each test adds lines with its figures."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nestvec.system.cpus import cpu_model, usable_cpus

FOLDER = Path(os.environ.get("CHAOS_REPORT", ".chaos"))
Report = Callable[[str, str], None]


@pytest.fixture(scope="session")
def _lines() -> Iterator[list[tuple[str, str]]]:
    lines: list[tuple[str, str]] = []
    yield lines
    if not lines:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [f"| {what} | {figures} |" for what, figures in lines]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = [
        "# Chaos and soak",
        "",
        f"{now}, {cpu_model()}, {usable_cpus()} CPUs. Made by `make test-chaos`.",
        "",
        "| what | figures |",
        "|---|---|",
    ]
    (FOLDER / "report.md").write_text("\n".join([*head, *rows, ""]))


@pytest.fixture
def report(_lines: list[tuple[str, str]]) -> Report:
    """A function that adds a line: what was done, and the figures that were measured."""

    def add(what: str, figures: str) -> None:
        print(f"\n{what}: {figures}")
        _lines.append((what, figures))

    return add
