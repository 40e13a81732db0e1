"""What whoever waits for a model is shown: a bar on a terminal, events with seconds in the log."""

import io
import logging
import sys

import pytest
from nestvec.assembly.preparation import EVENTS, ShownPreparation
from nestvec.model_store.preparation import SilentListener, Step
from typing_extensions import override


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    @override
    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """Collect events with their fields."""
    collected: list[tuple[str, dict[str, object]]] = []

    class Log:
        """A log that keeps what it is told."""

        def info(self, event: str, **fields: object) -> None:
            """Keep an event."""
            collected.append((event, fields))

    monkeypatch.setattr("nestvec.assembly.preparation.log", Log())
    return collected


def test_each_step_has_an_event(events: list[tuple[str, dict[str, object]]]) -> None:
    """With the model and the seconds, and nothing else."""
    assert set(EVENTS) == set(Step)
    assert len(set(EVENTS.values())) == len(EVENTS)
    for step in Step:
        with ShownPreparation("tiny").step(step, 3, "text") as advance:
            advance(3)
    assert [event for event, _ in events] == list(EVENTS.values())
    for _, fields in events:
        assert set(fields) == {"model", "took_s"}
        assert fields["model"] == "tiny"
        assert isinstance(fields["took_s"], float)


def test_a_step_that_fails_has_no_event(events: list[tuple[str, dict[str, object]]]) -> None:
    """The error says what there is to say."""
    shown = ShownPreparation("tiny")
    with pytest.raises(RuntimeError), shown.step(Step.EXPORT):
        raise RuntimeError
    assert events == []


@pytest.mark.usefixtures("events")
def test_a_terminal_shows_how_far_a_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done, of how many; the line is cleared once the step has ended."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)  # no thread beside the test
    shown = ShownPreparation("tiny")
    with shown.step(Step.CALIBRATE_VECTORS, 435, "text") as advance:
        advance(435)
    with shown.step(Step.OPEN):
        pass
    assert "calibrating vectors: 0/435 texts" in terminal.getvalue()
    assert "opening" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")


@pytest.mark.usefixtures("events")
def test_without_a_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs of a service have no half lines."""
    with ShownPreparation("tiny").step(Step.EXPORT, 2, "tensor") as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_nobody_need_be_told(caplog: pytest.LogCaptureFixture) -> None:
    """The default tells nobody."""
    with caplog.at_level(logging.INFO), SilentListener().step(Step.EXPORT, 2, "tensor") as advance:
        advance(2)
    assert caplog.text == ""
