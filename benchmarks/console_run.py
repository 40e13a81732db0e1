"""Measures the console: bytes of its files, and how long a browser takes until the first view can be used.

`python -m benchmarks.console_run [--url http://127.0.0.1:8080] [--rounds 5]` against a running server; needs Chromium.
Each round is a browser with an empty cache; the view is there once its table of cosines is.
"""

import argparse
import gzip
import shutil
import statistics
import time
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

FILES: Final = Path(__file__).resolve().parent.parent / "app/nestvec/api/console"


def first_view_s(url: str, rounds: int) -> list[float]:
    """Return the seconds from the address to the first view, of each round."""
    took = []
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for _ in range(rounds):
            page = browser.new_context().new_page()
            started = time.perf_counter()
            page.goto(f"{url}/console/index.html")
            page.get_by_role("region", name="Cosine similarity of each pair of texts").wait_for()
            took.append(time.perf_counter() - started)
        browser.close()
    return took


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    contents = [path.read_bytes() for path in sorted(FILES.iterdir())]
    compressed = sum(len(gzip.compress(content)) for content in contents)
    print(f"{sum(map(len, contents))} bytes, {compressed} compressed")
    took = first_view_s(arguments.url, arguments.rounds)
    print(f"first view: median {statistics.median(took):.2f} s, slowest {max(took):.2f} s")


if __name__ == "__main__":
    main()
