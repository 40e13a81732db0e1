"""Ends a process whose engine hangs, where nobody else could.

An orchestrator that restarts it is better than a server that says it is alive and never answers. A thread of its own
looks at the running batches: past their time readiness goes off, past twice that the process ends.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nestvec.observability.logs import get_logger

log = get_logger(__name__)

EXIT_CODE: Final = 70  # sysexits.h: an internal software error
EVERY_S: Final = 1.0


@dataclass(slots=True)
class Watchdog:
    """Looks once a second.

    Attributes:
        overdue_s: By how much the slowest batch is over its time; 0 where none is.
        patience_s: What a batch may take; so much over that, and the process ends.
        on_change: Told whether the engine hangs, whenever that changes; from a thread.
        end: Ends the process.
    """

    overdue_s: Callable[[], float]
    patience_s: float
    on_change: Callable[[bool], None]
    end: Callable[[int], object] = os._exit
    _stop: threading.Event = field(default_factory=threading.Event)
    _hangs: bool = False

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._live, name="nestvec-watchdog", daemon=True).start()

    def stop(self) -> None:
        """No more."""
        self._stop.set()

    def look(self) -> None:
        """Once."""
        over_s = self.overdue_s()
        if (over_s > 0) is not self._hangs:
            self._hangs = over_s > 0
            self.on_change(self._hangs)
            say = log.error if self._hangs else log.info
            say("engine_hangs" if self._hangs else "engine_runs_again", overdue_s=round(over_s, 1))
        if over_s > self.patience_s:
            log.error("engine_is_lost", overdue_s=round(over_s, 1), exit_code=EXIT_CODE)
            self.end(EXIT_CODE)

    def _live(self) -> None:
        last_s = time.monotonic()
        while not self._stop.wait(EVERY_S):
            now_s = time.monotonic()
            # Where this thread was held up itself (a paused container), batches were too: look again a second later.
            if now_s - last_s < 3 * EVERY_S:
                self.look()
            last_s = now_s
