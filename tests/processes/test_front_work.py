"""Work ends with its request: within a second of a 504, or of a caller's departure, no thread works for it."""

from pathlib import Path

import pytest

from tests.support.front_work import HEAVY, SETTINGS, ask, assert_idle, leave
from tests.support.server import running_server

pytestmark = pytest.mark.process


def test_work_ends_with_its_request(tiny_folder: Path, tiny_cache: Path, tmp_path: Path) -> None:
    """Tokenizing, cutting into sentences and parsing Markdown end with the deadline, and with the connection."""
    with running_server(tmp_path, model=tiny_folder, cache_dir=tiny_cache, **SETTINGS) as server:
        for name in ("many texts", "sentences", "one paragraph"):
            assert ask(server, HEAVY[name], timeout_ms=150) == 504, name
            assert_idle(server)
        leave(server, HEAVY["windows"])
        assert_idle(server)
