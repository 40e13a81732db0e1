"""Settings that follow the memory where they are left at 0."""

from click.testing import CliRunner
from nestvec.cli.config import command
from nestvec.config.memory_bounds import memory_bounds
from nestvec.config.settings import Settings

GIB = 2**30


def test_what_is_set_wins_over_what_memory_allows() -> None:
    """Each bound is the operator's where one is set, and otherwise follows the memory."""
    free = memory_bounds(Settings(), GIB)
    assert (free.in_flight_bytes, free.queue_tokens, free.connections) == (GIB // 20, 375_000, 512)
    chosen = Settings(max_in_flight_bytes=2000, max_connections=7, max_tokens_per_request=1000)
    bounds = memory_bounds(chosen, GIB)
    assert (bounds.in_flight_bytes, bounds.queue_tokens, bounds.connections) == (2000, 131_072, 7)


def test_the_effective_bounds_are_shown() -> None:
    """`nestvec config` shows what a bound of 0 means on this machine, and nothing beside one that is set."""
    shown = CliRunner().invoke(command, ["--max-connections", "9"]).output.splitlines()
    bounds = memory_bounds(Settings())
    assert f"max_in_flight_bytes = 0  # default; here: {bounds.in_flight_bytes}" in shown
    assert f"max_queue_tokens = 0  # default; here: {bounds.queue_tokens}" in shown
    assert "max_connections = 9  # --max-connections" in shown
