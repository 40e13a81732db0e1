"""Measures how late the event loop is: for so long nobody can be answered."""

import asyncio
import time
from typing import Final

from nestvec.observability.metrics import Metrics

INTERVAL_S: Final = 0.1
# Ticks between two samples of what others count.
TICKS_PER_SAMPLE: Final = 10


async def measure_event_loop_lag(metrics: Metrics) -> None:
    """Note by how much each tick comes too late, for as long as the loop runs; sample the metrics every second."""
    tick = 0
    while True:
        due_s = time.monotonic() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        metrics.http.loop_lag.observe(max(0.0, time.monotonic() - due_s))
        tick += 1
        if tick % TICKS_PER_SAMPLE == 0:
            metrics.sample()
