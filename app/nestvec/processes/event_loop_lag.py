"""How late the event loop is: what nobody can be answered meanwhile."""

import asyncio
import time
from typing import Final

from nestvec.observability.metrics import Metrics

EVERY_S: Final = 0.1
SAMPLES: Final = 10  # ticks between two looks at what others count


async def watch_loop(metrics: Metrics) -> None:
    """Note by how much each tick comes too late, as long as the loop runs."""
    tick = 0
    while True:
        due_s = time.monotonic() + EVERY_S
        await asyncio.sleep(EVERY_S)
        metrics.loop_lag.observe(max(0.0, time.monotonic() - due_s))
        tick += 1
        if tick % SAMPLES == 0:
            metrics.sample()
