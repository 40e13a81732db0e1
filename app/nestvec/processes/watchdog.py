"""Ends a process whose engine hangs, where there is no supervisor to do it.

A process that an orchestrator restarts is better than one that says it is alive and never answers. A thread of its own
looks at the running batches: once one is past its time readiness goes off, once it is past twice that the process ends.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nestvec.observability.logs import get_logger

log = get_logger(__name__)

# sysexits.h: EX_SOFTWARE, an internal software error.
EXIT_CODE: Final = 70
INTERVAL_S: Final = 1.0


@dataclass(slots=True)
class Watchdog:
    """Checks once a second whether the engine hangs.

    Attributes:
        overdue_s: Gives by how much the slowest batch is over its time; 0 where none is.
        batch_timeout_s: How long a batch may take; the process ends once one is over its time by so much.
        on_change: Told whether the engine hangs, whenever that changes; called in the watchdog's thread.
        end: Ends the process.
    """

    overdue_s: Callable[[], float]
    batch_timeout_s: float
    on_change: Callable[[bool], None]
    end: Callable[[int], object] = os._exit
    _stop: threading.Event = field(default_factory=threading.Event)
    _hangs: bool = False

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="nestvec-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop checking."""
        self._stop.set()

    def check(self) -> None:
        """Check once: tell `on_change` of a change, and end the process where the engine is lost."""
        overdue_s = self.overdue_s()
        if (overdue_s > 0) is not self._hangs:
            self._hangs = overdue_s > 0
            self.on_change(self._hangs)
            event = "engine_hangs" if self._hangs else "engine_runs_again"
            write = log.error if self._hangs else log.info
            write(event, overdue_s=round(overdue_s, 1))
        if overdue_s > self.batch_timeout_s:
            log.error("engine_is_lost", overdue_s=round(overdue_s, 1), exit_code=EXIT_CODE)
            self.end(EXIT_CODE)

    def _run(self) -> None:
        last_s = time.monotonic()
        while not self._stop.wait(INTERVAL_S):
            now_s = time.monotonic()
            # Where this thread was held up itself (a paused container), batches were too: check again a second later.
            if now_s - last_s < 3 * INTERVAL_S:
                self.check()
            last_s = now_s
