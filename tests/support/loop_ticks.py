"""Runs `nestvec` with a watch on its event loop: `python loop_ticks.py FILE ARGUMENT …`.

A tick goes round the loop every few milliseconds and notes how much the loop's thread has computed since the last one,
in the time of that thread: a busy machine makes nothing look slow. What is over `NOTED_S` goes into the file, a line
each, as milliseconds.
"""

import asyncio
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

TICK_S = 0.002
NOTED_S = 0.01


def watched(arguments: list[str], file: Path) -> list[str]:
    """Return a command line of nestvec as one whose event loop is watched.

    Args:
        arguments: The command line, `python -m nestvec …`.
        file: Where long ticks are noted.
    """
    python, _, _, *rest = arguments
    return [python, str(Path(__file__).resolve()), str(file), *rest]


def long_ticks_ms(file: Path, after: int = 0) -> list[float]:
    """Return the ticks noted in a file behind so many bytes of it, in milliseconds."""
    if not file.exists():
        return []
    with file.open() as lines:
        lines.seek(after)
        return [float(line) for line in lines]


async def _tick(file: Path) -> None:
    with file.open("a", buffering=1) as notes:
        last_s = time.thread_time()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.thread_time()
            if now_s - last_s > NOTED_S:
                notes.write(f"{(now_s - last_s) * 1000:.1f}\n")
            last_s = time.thread_time()


def _main() -> None:
    file = Path(sys.argv[1])
    started = uvicorn.Server.startup
    tasks = []

    async def startup(server: uvicorn.Server, *arguments: Any, **options: Any) -> None:
        tasks.append(asyncio.ensure_future(_tick(file)))
        await started(server, *arguments, **options)

    # The only way in without a hook in the product.
    setattr(uvicorn.Server, "startup", startup)  # noqa: B010 - mypy takes it for a static method
    sys.argv = ["nestvec", *sys.argv[2:]]
    runpy.run_module("nestvec", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
