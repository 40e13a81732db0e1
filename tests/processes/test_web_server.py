"""The HTTP server's end, seen from within."""

import asyncio
import signal
from pathlib import Path

import pytest
import structlog
from nestvec.api.state import ApiState, Phase

from tests.processes.connections.test_bounds import serving


async def test_the_drain_is_no_request_s(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal comes in the middle of any request; what is logged of the drain has not that request's id."""
    bound: list[dict[str, object]] = []

    def note(self: ApiState, phase: Phase) -> None:
        bound.append(dict(structlog.contextvars.get_contextvars()))
        self.phase = phase

    async with serving(tmp_path, tiny_folder / "tokenizer.json") as server:
        monkeypatch.setattr(ApiState, "set_phase", note)
        server._loop = (
            asyncio.get_running_loop()
        )  # as `serve` does, which installs signal handlers too
        with structlog.contextvars.bound_contextvars(request_id="of-a-request"):
            server.handle_exit(signal.SIGTERM, None)
        async with asyncio.timeout(60):
            while server.state.phase is not Phase.DRAINING:
                await asyncio.sleep(0.01)
    assert bound == [{}]
