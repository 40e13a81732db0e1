"""What the suite found, as a page: each test adds lines with its figures."""

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
    found: list[tuple[str, str]] = []
    yield found
    if not found:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [f"| {what} | {figures} |" for what, figures in found]
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
    """Add a line: what was done, and the figures seen."""

    def add(what: str, figures: str) -> None:
        print(f"\n{what}: {figures}")
        _lines.append((what, figures))

    return add
