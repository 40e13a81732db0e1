"""Which items are held to have ended the core's process: pure but for one small file.

Whatever ran when the process died is suspect, and runs alone from then on until it has run well. An item that was
running alone at a death, twice, is quarantined for an hour: its calls fail at once. So one poisoned text costs its
callers and a few restarts, not the service.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Final

from nestvec.engine.core.ports import Lane
from nestvec.engine.types import Item
from nestvec.errors import QuarantinedError
from nestvec.ipc.status_page import Digest, Flight
from nestvec.system.durable_files import write_whole

log = logging.getLogger(__name__)

END_S: Final = 30.0  # long enough for a supervisor that looks ten times a second
QUARANTINE_S: Final = 3600.0
DEATHS_ALONE: Final = 2
MAX_SUSPECTS: Final = 100_000  # the oldest go first


class Suspects:
    """The `Recorder` of a core that may be killed.

    Args:
        flight: Where workers note what they run; what an earlier process left there is read now.
        path: Where suspects are kept between processes.
        clock: Monotonic seconds, the same for all processes.
    """

    def __init__(self, flight: Flight, path: Path, clock: Callable[[], float]) -> None:
        self._flight, self._path, self._clock = flight, path, clock
        self._deaths: dict[Digest, int] = {}
        self._until_s: dict[Digest, float] = {}
        self._end_comes = Event()
        self._read()
        self._learn(flight.running())
        flight.wipe()

    @property
    def counts(self) -> tuple[int, int]:
        """How many are suspect, and quarantined."""
        return len(self._deaths), len(self._until_s)

    def lane(self) -> Lane:
        """A place for one more worker."""
        return self._flight.lane()

    def check(self, items: Sequence[Item]) -> list[bool]:
        """Which of the items must run alone.

        Raises:
            QuarantinedError: One of them is quarantined; names it.
        """
        if not self._deaths and not self._until_s:
            return [False] * len(items)
        found = []
        for item in items:
            digest = self._flight.digest(item)
            if self._until_s.get(digest, 0.0) > self._clock():
                raise QuarantinedError(
                    "This input ended the model's process each time that it ran; it is not run again for now.",
                    input_index=item.index,
                )
            found.append(digest in self._deaths)
        return found

    def clear(self, item: Item) -> None:
        """It ran alone, and well."""
        if self._deaths.pop(self._flight.digest(item), None):
            self._write()

    def await_end(self) -> None:
        """The supervisor ends the process soon; what runs is noted, goes to the next one, and is suspect there."""
        self._end_comes.wait(END_S)

    def _learn(self, running: Sequence[Sequence[Digest]]) -> None:
        """What ran when the last process died."""
        is_alone = len(running) == 1 and len(running[0]) == 1
        for digest in (one for batch in running for one in batch):
            deaths = self._deaths.pop(digest, 0) + is_alone
            self._deaths[digest] = deaths
            if deaths >= DEATHS_ALONE:
                del self._deaths[digest]
                self._until_s[digest] = self._clock() + QUARANTINE_S
                log.error("an input ended the engine's process alone, twice: it is quarantined")
        while len(self._deaths) > MAX_SUSPECTS:
            del self._deaths[next(iter(self._deaths))]
        if running:
            self._write()

    def _read(self) -> None:
        try:
            kept = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return
        now = self._clock()
        self._deaths = {bytes.fromhex(name): count for name, count in kept["deaths"].items()}
        until = {bytes.fromhex(name): when for name, when in kept["until_s"].items()}
        self._until_s = {name: when for name, when in until.items() if when > now}

    def _write(self) -> None:
        kept = {
            "deaths": {name.hex(): count for name, count in self._deaths.items()},
            "until_s": {name.hex(): when for name, when in self._until_s.items()},
        }
        write_whole(self._path, json.dumps(kept).encode())
