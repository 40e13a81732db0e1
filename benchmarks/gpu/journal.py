"""What was measured, a JSON line each, on disk before the next measurement begins: a run cut short keeps it all."""

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.errors import BackendLostError

# Characters of an error that go into the journal.
MAX_ERROR: Final = 600
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Measurement:
    """What is measured.

    Attributes:
        step: Step of the check.
        model: Name of the model; "" where there is none.
        graph: Its graph, such as "float16, paged"; "" where there is none.
        what: The measurement's name.
    """

    step: str
    model: str
    graph: str
    what: str


class DeadlineError(Exception):
    """There is no time left for another measurement."""


@dataclass(slots=True)
class Journal:
    """Measurements of one or several runs, in a file.

    Attributes:
        path: The file; lines are appended.
        deadline: The time, as `time.time` has it, after which nothing is begun.
    """

    path: Path
    deadline: float = float("inf")
    _began: dict[Measurement, int] = field(default_factory=dict)
    _done: dict[Measurement, Figures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what other processes have written."""
        for line in self._lines():
            about = Measurement(*(line.pop(name) for name in Measurement.__slots__))
            if line.pop("begins", False):
                self._began[about] = self._began.get(about, 0) + 1
            else:
                self._done[about] = line

    def measure(self, about: Measurement, work: Callable[[], Figures]) -> Figures | None:
        """Measure something, once, and write down what came of it; None where it failed.

        Raises:
            BackendLostError: The device is gone: nothing more can be measured in this process.
            DeadlineError: There is no time left.
            KeyboardInterrupt: Somebody wants to end the run.
        """
        if about in self._done:
            figures = self._done[about]
            return None if "error" in figures else figures
        if time.time() > self.deadline:
            raise DeadlineError
        self._write(about, {"begins": True})
        started = time.monotonic()
        try:
            figures = work()
        except (
            BaseException
        ) as error:  # whatever it is, the next measurement may still tell something
            self.end(about, {"error": _in_words(error), "took_s": time.monotonic() - started})
            if isinstance(error, (BackendLostError, KeyboardInterrupt)):
                raise
            return None
        self.end(about, {**figures, "took_s": time.monotonic() - started})
        return figures

    def end(self, about: Measurement, figures: Figures) -> None:
        """Write down what came of a measurement."""
        figures = {key: round(v, 9) if isinstance(v, float) else v for key, v in figures.items()}
        self._done[about] = figures
        self._write(about, figures)
        # Its table is for the report.
        shown = {key: value for key, value in figures.items() if key != "kernels"}
        label = " ".join(filter(None, (about.step, about.model, about.graph, about.what)))
        print(label, shown, flush=True)

    def give_up_unfinished(self, reason: str) -> None:
        """Write down as failed what was begun and did not end."""
        for about in [about for about in self._began if about not in self._done]:
            self.end(about, {"error": reason})

    def forget_failures(self) -> None:
        """Have what failed in earlier runs measured again."""
        self._began.clear()
        self._done = {about: f for about, f in self._done.items() if "error" not in f}
        self.path.write_text("")
        for about, figures in self._done.items():
            self._write(about, figures)

    def figures(self) -> Iterator[tuple[Measurement, Figures]]:
        """Yield everything that ended, in the order in which it did; failures have an "error"."""
        yield from self._done.items()

    def find(self, model: str, graph: str, what: str) -> Figures | None:
        """Return the figures of a measurement of whichever step; None where it failed or was not made."""
        for about, figures in self._done.items():
            if (about.model, about.graph, about.what) == (
                model,
                graph,
                what,
            ) and "error" not in figures:
                return figures
        return None

    def _write(self, about: Measurement, figures: Figures) -> None:
        fields = {name: getattr(about, name) for name in Measurement.__slots__}
        with self.path.open("a") as file:
            file.write(json.dumps({**fields, **figures}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> Iterator[Figures]:
        if self.path.is_file():
            for line in self.path.read_text().splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    # The process ended in the middle of the last line.
                    continue


def _in_words(error: BaseException) -> str:
    """Return an error's kind, message, reason and place; there are no texts of users here to keep secret."""
    message = getattr(error, "message", None) or str(error)
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {message}{cause}"[:MAX_ERROR] + place
