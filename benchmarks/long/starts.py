"""How long our server takes until it is ready, and its peak memory: first with an empty cache, then again."""

import shutil
import time
from pathlib import Path

from benchmarks.long.report import START_COLUMNS, Report, start_row
from benchmarks.processes import Server


def measure_starts(
    title: str, servers: list[tuple[str, Server]], cache: Path, report: Report
) -> None:
    """Start each server twice from an empty cache, and write what it took.

    Args:
        title: Title of the section.
        servers: The servers, each with its precision.
        cache: Their cache folder, which is emptied before each one's first start and removed in the end.
        report: Where the rows go.
    """
    section = report.begin(
        f"{title}: starts",
        START_COLUMNS,
        "First start: with an empty cache, export, probes and calibration included; the model's files in the page "
        "cache. Peak memory until the server is ready.",
    )
    for precision, server in servers:
        shutil.rmtree(cache, ignore_errors=True)
        try:
            starts = [_start(server), _start(server)]
            report.add_row(section, start_row(server.name, precision, starts))
        except SystemExit as error:
            report.add_note(section, f"{precision}: {error}")
        finally:
            server.stop()
            shutil.rmtree(cache, ignore_errors=True)


def _start(server: Server) -> tuple[float, float]:
    """Return the seconds until a server is ready and its peak memory in MB; it is stopped then."""
    started = time.monotonic()
    try:
        server.start()
        return time.monotonic() - started, server.peak_rss_mb()
    finally:
        server.stop()
