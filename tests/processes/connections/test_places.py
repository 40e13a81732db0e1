"""Places: silence gives way, a full server still says that it lives, and nobody holds the places kept for that."""

import pytest
from nestvec.processes.connections import places as places_module
from nestvec.processes.connections.limits import HEALTH_CHECK_PLACES
from nestvec.processes.connections.places import ConnectionPlaces, is_liveness_check


class Connection:
    """A connection that notes whether it had to give way."""

    has_given_way = False

    def give_way(self) -> None:
        """Note it."""
        self.has_given_way = True


class Clock:
    """Time that a test sets."""

    now_s = 100.0

    def monotonic(self) -> float:
        """The time."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that stands still until the test moves it."""
    clock = Clock()
    monkeypatch.setattr(places_module, "time", clock)
    return clock


def test_the_longest_silence_gives_way(clock: Clock) -> None:
    """When all places are taken, the connection that is silent for longest makes room, but not in its first second."""
    places, held = ConnectionPlaces(3), [Connection() for _ in range(3)]
    for count, connection in enumerate(held, 1):
        assert places.enter(connection, count) is True
        clock.now_s += 0.1
    places.speak(held[0])
    assert places.enter(Connection(), 4) is False
    clock.now_s += 1
    assert places.enter(Connection(), 5) is True
    assert [connection.has_given_way for connection in held] == [False, True, False]


def test_those_that_speak_keep_their_places(clock: Clock) -> None:
    """Connections that have sent anything never give way; newcomers may ask for one thing only."""
    places, held = ConnectionPlaces(3), [Connection() for _ in range(3)]
    for count, connection in enumerate(held, 1):
        places.enter(connection, count)
        places.speak(connection)
    clock.now_s += 100
    assert places.enter(Connection(), 4) is False
    assert not any(connection.has_given_way for connection in held)


def test_places_for_health_checks_are_not_held(clock: Clock) -> None:
    """However many come and say nothing, the next one finds a place; those that are being answered keep theirs."""
    del clock
    places = ConnectionPlaces(0)
    silent = [Connection() for _ in range(HEALTH_CHECK_PLACES)]
    assert [places.enter(one, count) for count, one in enumerate(silent, 1)] == [False] * len(
        silent
    )
    places.answer(silent[0])
    assert places.enter(Connection(), len(silent) + 1) is False
    assert [one.has_given_way for one in silent[:3]] == [False, True, False]
    for one in silent[2:]:
        places.answer(one)
    newest = Connection()
    assert places.enter(newest, len(silent) + 1) is False
    places.answer(newest)
    assert places.enter(Connection(), len(silent) + 2) is None
    places.leave(silent[0])
    assert places.enter(Connection(), len(silent) + 1) is False


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/health/live", True),
        (b"/health/live/?x=1", True),
        (b"/v2/health/live", True),
        (b"/health/ready", False),
        (b"/v1/embeddings?/health/live", False),
        (b"/health/live/../../v1/embeddings", False),
        (b"", False),
    ],
)
def test_what_asks_whether_the_server_is_alive(target: bytes, *, expected: bool) -> None:
    """Only these targets do."""
    assert is_liveness_check(target) is expected
