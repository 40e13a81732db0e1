"""Large answers, sent in slices as fast as the caller reads them.

An answer handed over as a whole is copied into the connection's buffer at once, which holds the event loop up for
longer than other requests should wait, and stays there for as long as the caller takes to read it.
"""

from typing import Final

from fastapi import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

# Larger answers are sent in slices of this size.
SLICE_BYTES: Final = 1024 * 1024


class SlicedResponse(Response):
    """An answer that is sent slice by slice; each waits until the caller has read most of those before.

    Args:
        whole: The answer: its status, headers and body.
    """

    def __init__(self, whole: Response) -> None:
        self.status_code = whole.status_code
        self.background = whole.background
        self.body = whole.body
        self.raw_headers = whole.raw_headers

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        for start in range(0, len(self.body), SLICE_BYTES):
            stop = start + SLICE_BYTES
            await send(
                {
                    "type": "http.response.body",
                    "body": bytes(self.body[start:stop]),
                    "more_body": stop < len(self.body),
                }
            )
        if self.background is not None:
            await self.background()


def sliced(response: Response) -> Response:
    """Return an answer that is sent in slices where it is large; a small one as it is."""
    body = getattr(response, "body", b"")  # answers that are streamed anyway have none
    return SlicedResponse(response) if len(body) > SLICE_BYTES else response
