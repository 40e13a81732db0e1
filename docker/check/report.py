"""The report of docker/check: what the containers promise, and what was seen."""

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """What was promised, and what was seen."""

    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    failures: int = 0

    def note(self, promise: str, seen: object, *, bound: str = "", ok: bool | None = True) -> None:
        """Add a line; `ok` is None where nothing was asserted."""
        verdict = {True: "yes", False: "**NO**", None: "–"}[ok]
        self.failures += ok is False
        load = f"{os.getloadavg()[0]:.1f}"
        self.rows.append((promise, bound, str(seen), verdict, load))
        print(
            f"[{verdict}] {promise}: {seen} {f'({bound})' if bound else ''} load {load}", flush=True
        )

    def within(self, promise: str, seconds: float, bound_s: float) -> None:
        """Add a line about a time."""
        self.note(promise, f"{seconds:.1f} s", bound=f"≤ {bound_s} s", ok=seconds <= bound_s)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note that a part of the check failed as a whole, and go on with the next one."""
        print(f"-- {name}", flush=True)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was seen
            self.note(name, f"{type(error).__name__}: {error}".strip()[-1500:], ok=False)

    def markdown(self, engine: str) -> str:
        """Return the report as a page."""
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        lines = [
            f"# `make image-check`, {time.strftime('%Y-%m-%d')}",
            "",
            f"{engine}; {platform.freedesktop_os_release()['PRETTY_NAME']}; {os.cpu_count()} CPUs"
            f"{f' ({model[1]})' if model else ''}. The base images are stand-ins made of Debian packages. The load "
            "is the average of the last minute; times on a busy machine show the order of size.",
            "",
            "| promise | bound | seen | kept | load |",
            "|---|---|---|---|---|",
        ]
        escaped = (
            [cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in self.rows
        )
        lines += [f"| {' | '.join(row)} |" for row in escaped]
        lines += ["", f"{len(self.rows)} lines, {self.failures} promises broken.", ""]
        return "\n".join(lines)
