"""Which items are held to have ended the engine process: pure but for one small file.

Whatever ran when the process died is a suspect, and runs alone from then on until it has run well. An item that was
running alone when the process died, twice, is quarantined for an hour: its calls fail at once. So one poisoned text
costs its callers and a few restarts, not the service.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Final

from nestvec.engine.core.ports import InFlightSlot
from nestvec.engine.types import Item, ItemOptions, Submission
from nestvec.errors import QuarantinedError
from nestvec.ipc.in_flight_journal import Digest, InFlightJournal
from nestvec.system.durable_files import atomic_write
from nestvec.system.private_files import make_private_folder

log = logging.getLogger(__name__)

END_S: Final = 30.0  # long enough for a supervisor that looks ten times a second
QUARANTINE_S: Final = 3600.0
DEATHS_ALONE: Final = 2
MAX_SUSPECTS: Final = 100_000  # the oldest go first


class Quarantine:
    """The `CrashGuard` of an engine process that may be killed.

    Args:
        journal: Where workers note what they run; what an earlier process left there is read now.
        path: Where suspects are kept between processes.
        clock: Monotonic seconds, the same for all processes.
    """

    def __init__(self, journal: InFlightJournal, path: Path, clock: Callable[[], float]) -> None:
        self._journal, self._path, self._clock = journal, path, clock
        self._deaths: dict[Digest, int] = {}
        self._until_s: dict[Digest, float] = {}
        self._end_comes = Event()
        self._read()
        self._learn(journal.running())
        journal.wipe()

    @property
    def counts(self) -> tuple[int, int]:
        """Number of suspects, and of quarantined items."""
        return len(self._deaths), len(self._until_s)

    def slot(self) -> InFlightSlot:
        """Return a slot of the journal for one more worker."""
        return self._journal.slot()

    def check(self, submission: Submission) -> list[bool]:
        """Return for each item of a call whether it is a suspect and must run alone.

        Raises:
            QuarantinedError: An item is quarantined; `input_index` names it.
        """
        items, options = submission.items, submission.options
        if not self._deaths and not self._until_s:
            return [False] * len(items)
        is_suspect = []
        for item in items:
            digest = self._journal.digest(item, options)
            if self._until_s.get(digest, 0.0) > self._clock():
                raise QuarantinedError(
                    "This input ended the model's process each time that it ran; it is not run again for now.",
                    input_index=item.index,
                )
            is_suspect.append(digest in self._deaths)
        return is_suspect

    def clear(self, item: Item, options: ItemOptions) -> None:
        """Note that an item ran alone, and well: it is no suspect any more."""
        if self._deaths.pop(self._journal.digest(item, options), None):
            self._write()

    def keep(self) -> None:
        """Write what is known once more where its file has vanished."""
        if (self._deaths or self._until_s) and not self._path.exists():
            self._write()

    def await_end(self) -> None:
        """Block until the supervisor ends this process, which it does soon.

        What runs stays noted: it goes to the next process, and is a suspect there.
        """
        self._end_comes.wait(END_S)

    def _learn(self, running: Sequence[Sequence[Digest]]) -> None:
        """Suspect what ran when the last process died."""
        is_alone = len(running) == 1 and len(running[0]) == 1
        for digest in (digest for batch in running for digest in batch):
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
            stored = json.loads(self._path.read_bytes())
            deaths = {bytes.fromhex(name): int(count) for name, count in stored["deaths"].items()}
            until_s = {
                bytes.fromhex(name): float(end_s) for name, end_s in stored["until_s"].items()
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # An engine that did not start for it would be worse than one that learns again.
            reason = type(error).__name__
            log.error("the list of suspects cannot be read: %s; it begins anew", reason)  # noqa: TRY400
            return
        now_s = self._clock()
        self._deaths = deaths
        self._until_s = {digest: end_s for digest, end_s in until_s.items() if end_s > now_s}

    def _write(self) -> None:
        # Copies: workers clear suspects meanwhile.
        deaths, until_s = self._deaths.copy(), self._until_s.copy()
        stored = {
            "deaths": {digest.hex(): count for digest, count in deaths.items()},
            "until_s": {digest.hex(): end_s for digest, end_s in until_s.items()},
        }
        try:
            make_private_folder(self._path.parent)
            with atomic_write(self._path, mode=0o600) as file:
                file.write(json.dumps(stored).encode())
        except OSError as error:
            log.warning("the list of suspects cannot be written: %s", error.strerror)
