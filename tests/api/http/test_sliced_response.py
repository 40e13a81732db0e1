"""Large answers are sent in slices, so that none is copied at once."""

from typing import Any

import pytest
from fastapi import Response
from nestvec.api.http.sliced_response import SLICE_BYTES, sliced
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse


async def sent(response: Response) -> list[dict[str, Any]]:
    """Return the messages that a response sends."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        raise AssertionError

    await response({"type": "http"}, receive, send)
    return messages


@pytest.mark.parametrize("size", [SLICE_BYTES + 1, 3 * SLICE_BYTES, 3 * SLICE_BYTES + 7])
async def test_a_large_answer(size: int) -> None:
    """Status and headers come first, then slices that make the body; the last one says so."""
    done: list[int] = []
    body = bytes(range(256)) * (size // 256 + 1)
    whole = Response(body[:size], 201, {"x-a": "b"}, background=BackgroundTask(done.append, size))
    start, *slices = await sent(sliced(whole))
    assert (start["status"], start["headers"]) == (201, whole.raw_headers)
    assert b"".join(message["body"] for message in slices) == body[:size]
    assert max(len(message["body"]) for message in slices) <= SLICE_BYTES
    assert [message["more_body"] for message in slices] == [True] * (len(slices) - 1) + [False]
    assert done == [size]


def test_others_are_sent_as_they_are() -> None:
    """Small answers, and those that are streamed."""
    for response in (Response(b"x" * SLICE_BYTES), StreamingResponse(iter(()))):
        assert sliced(response) is response
