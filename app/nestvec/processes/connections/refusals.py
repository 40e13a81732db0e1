"""Why a connection is closed on its caller, and what the caller is told."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class RefusalAnswer:
    """What a caller is told who is hung up on.

    Attributes:
        status: HTTP status.
        phrase: Its reason phrase.
        reason: The label under which it is counted.
        message: What was wrong and the way out; nothing of what the caller sent.
        retry_after_s: When to come again; 0: the same request will not do then either.
    """

    status: int
    phrase: str
    reason: str
    message: str
    retry_after_s: int = 0

    def to_bytes(self) -> bytes:
        """Return the whole HTTP/1.1 answer."""
        body = self.message.encode("ascii")
        retry = f"retry-after: {self.retry_after_s}\r\n" if self.retry_after_s else ""
        head = (
            f"HTTP/1.1 {self.status} {self.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
        )
        return head.encode("ascii") + body


class Refusal(Enum):
    """Each way in which a connection is refused."""

    MALFORMED = RefusalAnswer(
        400, "Bad Request", "malformed", "the request is malformed (RFC 9112, HTTP/1.1)"
    )
    HOST = RefusalAnswer(400, "Bad Request", "malformed", "a request has one valid Host header")
    TUNNEL = RefusalAnswer(
        405, "Method Not Allowed", "malformed", "CONNECT is for proxies, and this is none"
    )
    SLOW_HEADERS = RefusalAnswer(
        408, "Request Timeout", "slow_headers", "the headers came too slowly"
    )
    SLOW_BODY = RefusalAnswer(408, "Request Timeout", "slow_body", "the body came too slowly")
    LARGE_HEADERS = RefusalAnswer(
        431, "Request Header Fields Too Large", "headers", "the headers are too large"
    )
    LARGE_TRAILERS = RefusalAnswer(
        431,
        "Request Header Fields Too Large",
        "trailers",
        "the trailers, or the extensions of the chunks, are too large",
    )
    TRANSFER_CODING = RefusalAnswer(
        501,
        "Not Implemented",
        "malformed",
        "the only transfer coding read here is chunked; compress with Content-Encoding instead",
    )
    FULL = RefusalAnswer(
        503, "Service Unavailable", "too_many", "too many connections", retry_after_s=5
    )
    VERSION = RefusalAnswer(
        505,
        "HTTP Version Not Supported",
        "malformed",
        "this server speaks HTTP/1.1; for HTTP/2 put a proxy in front of it",
    )
