"""A contest: sides that stay loaded embed the same texts in turn, round by round."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from subprocess import SubprocessError
from typing import Final, TypeVar

import numpy as np

from benchmarks.long.loads import SEVERAL, Load, TextMaker
from benchmarks.long.report import PAIR_COLUMNS, Agreement, Measured, Report, Section, pair_row
from benchmarks.long.sides import Answer, Side, SideError, SideLostError, Vectors

# How long an answer may take; where the run's time is nearly over, it has the second.
MAX_ANSWER_S: Final = 600.0
LAST_ANSWER_S: Final = 60.0
# A round of all sides that takes longer is not repeated, nor is one of longer texts.
MAX_REPEATED_S: Final = 60.0
MAX_REPEATED_TOKENS: Final = 2048
# Texts that settings are chosen by are at most so long.
MAX_TUNING_TOKENS: Final = 1024
WARM_UP_TOKENS: Final = (40, 300)
T = TypeVar("T")


class Clock:
    """What is left of a run's time.

    Args:
        limit_s: How many seconds the run may take.
    """

    def __init__(self, limit_s: float) -> None:
        self._until = time.monotonic() + limit_s

    def left_s(self) -> float:
        """Return the seconds that are left."""
        return self._until - time.monotonic()

    def answer_timeout_s(self) -> float:
        """Return how long the next answer may take."""
        return min(MAX_ANSWER_S, max(LAST_ANSWER_S, self.left_s()))


@dataclass
class Contest:
    """Sides to compare on one model.

    Attributes:
        title: Title of its section.
        head: What the section says of it.
        sides: The sides; they start when the contest does, and end with it.
        pairs: Names of those to compare; the ratio is above 1 where the first is faster.
        texts: Makes the model's texts.
    """

    title: str
    head: str
    sides: list[Side]
    pairs: list[tuple[str, str]]
    texts: TextMaker

    def run(self, loads: Sequence[Load], rounds: int, clock: Clock, report: Report) -> None:
        """Start the sides, run the loads, and end the sides, whatever happens."""
        section = report.begin(self.title, PAIR_COLUMNS, self.head)
        contest = _Running(self, section, report, clock)
        try:
            contest.start()
            for load in loads:
                if not contest.has_pair():
                    break
                if clock.left_s() <= 0:
                    report.add_note(section, f"{load.name}: left out, the run's time was over")
                    continue
                contest.tune(load)
                results = contest.rounds(load, rounds)
                for ours, other in self.pairs:
                    if ours in results and other in results:
                        report.add_row(section, results[ours].beside(results[other]))
            for side in contest.sides:
                if side.note:
                    report.add_note(section, f"{side.name}: {side.note}")
        finally:
            for side in self.sides:
                side.stop()


class _Running:
    """A contest under way.

    Attributes:
        sides: Those that have not failed.
    """

    def __init__(self, contest: Contest, section: Section, report: Report, clock: Clock) -> None:
        self.sides = list(contest.sides)
        self._pairs = contest.pairs
        self._texts = contest.texts
        self._section = section
        self._report = report
        self._clock = clock
        self._tuned: set[int] = set()

    def has_pair(self) -> bool:
        """Return whether there are still two sides to compare."""
        names = {side.name for side in self.sides}
        return any(names.issuperset(pair) for pair in self._pairs)

    def start(self) -> None:
        """Start the sides, and warm them up with a short text and a longer one."""
        for side in list(self.sides):
            self._attempt(side, "start", side.start)
            for load in (Load(1, length) for length in WARM_UP_TOKENS):
                if side in self.sides:
                    self._embed(side, load, self._texts.texts(load))

    def tune(self, load: Load) -> None:
        """Have the sides choose settings for several texts of about a load's length, once."""
        length = min(load.length, MAX_TUNING_TOKENS)
        if load.texts == 1 or length in self._tuned:
            return
        self._tuned.add(length)
        tuning = Load(SEVERAL, length)
        texts = self._texts.texts(tuning)
        for side in list(self.sides):
            timeout_s = self._clock.answer_timeout_s()
            self._attempt(side, tuning.name, partial(side.tune, tuning, texts, timeout_s))

    def rounds(self, load: Load, rounds: int) -> "dict[str, Result]":
        """Run a load's rounds; returns what was measured of the sides that came through."""
        for side in list(self.sides):
            self._attempt(side, load.name, side.reset_peak_rss)
        results = {side.name: Result(load, side.name) for side in self.sides}
        for number in range(rounds):
            started = time.monotonic()
            texts = self._texts.texts(load)
            # Every other round backwards, so that nobody always runs after the same neighbour.
            for side in self.sides[:: -1 if number % 2 else 1]:
                answer = self._embed(side, load, texts) if side.name in results else None
                if answer:
                    results[side.name].add(answer)
                else:
                    results.pop(side.name, None)
            took_s = time.monotonic() - started
            is_long = took_s > MAX_REPEATED_S or load.length > MAX_REPEATED_TOKENS
            if is_long or self._clock.left_s() < took_s:
                break
        for side in list(self.sides):
            peak_rss_mb = self._attempt(side, load.name, side.peak_rss_mb)
            if peak_rss_mb is not None and side.name in results:
                results[side.name].peak_rss_mb = peak_rss_mb
        return results

    def _embed(self, side: Side, load: Load, texts: list[str]) -> Answer | None:
        """Return a side's answer; None if it gives none."""
        timeout_s = self._clock.answer_timeout_s()
        return self._attempt(side, load.name, partial(side.embed, texts, timeout_s))

    def _attempt(self, side: Side, what: str, action: Callable[[], T]) -> T | None:
        """Return what an action of a side returns; None, with a note in the report, if it fails.

        A side that gives no vectors any more is ended, and the others go on without it.
        """
        try:
            return action()
        except (SideError, SystemExit, OSError, SubprocessError) as error:
            note = f"{side.name}, {what}: {error}"
            # A refusal is no end.
            if isinstance(error, SideLostError) or not isinstance(error, SideError):
                self.sides.remove(side)
                side.stop()
                note += "; left out from here"
            self._report.add_note(self._section, note)
            return None


@dataclass
class Result:
    """What was measured of a side on a load.

    Attributes:
        load: The load.
        name: The side's name.
        seconds: Seconds of each round.
        vectors: Vectors of each round.
        peak_rss_mb: Peak memory in MB.
    """

    load: Load
    name: str
    seconds: list[float] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    peak_rss_mb: float = 0.0

    def add(self, answer: Answer) -> None:
        """Add a round."""
        self.seconds.append(answer.seconds)
        self.vectors.append(answer.vectors)

    def beside(self, other: "Result") -> str:
        """Return the row of the table that compares this side with another."""
        agreement = agreement_of(np.concatenate(self.vectors), np.concatenate(other.vectors))
        return pair_row(self.load, self._best(), other._best(), agreement, len(self.seconds))

    def _best(self) -> Measured:
        return Measured(self.name, min(self.seconds), self.peak_rss_mb)


def agreement_of(first: Vectors, second: Vectors) -> Agreement:
    """Return how far two matrices of equal shape agree, (B, D)."""
    products = np.einsum("bd,bd->b", first, second, dtype=np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return Agreement(float((products / norms).min()), float(np.abs(first - second).max()))
