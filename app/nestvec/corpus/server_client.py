"""Requests to a running server that wait while it is busy, and fail at once where there is none."""

import asyncio
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from nestvec.errors import DeadlineError, InputError, RateLimitError, SourceError
from nestvec.observability.tracing.trace_context import inherited_headers

# A server answers 504 long before that; what takes longer is taken for lost.
TIMEOUT_S: Final = 120.0
MAX_TRIES: Final = 8
# Refusals in a row of one request, each after the wait that the server had named.
MAX_REFUSALS: Final = 60
MAX_BACKOFF_S: Final = 30.0
# A longer wait is no pause: the user is told instead.
MAX_TOLD_WAIT_S: Final = 900.0
TOO_MANY_REQUESTS: Final = 429
BUSY_STATUSES: Final = (502, 503)
TIMEOUT_STATUSES: Final = (408, 504)
TOO_LARGE: Final = 413
TOO_LARGE_CODES: Final = ("max_tokens_per_request", "request_too_large", "body_too_large")
INPUT_INDEX: Final = re.compile(r"(?:input|groups)\[(\d+)\]")


class ServerClient:
    """Sends requests to one server, as bulk work that makes way for others.

    They belong to the trace of `TRACEPARENT`, where what has started this process has set it.

    Args:
        url: The server's base, with or without /v1.
        key: An API key, "" for none.
        clock: Monotonic seconds.
    """

    def __init__(self, url: str, key: str, clock: Callable[[], float]) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= inherited_headers(os.environ)
        self.base = url.rstrip("/").removesuffix("/v1")
        try:
            self.http = httpx.AsyncClient(base_url=self.base, headers=headers, timeout=TIMEOUT_S)
        except (httpx.InvalidURL, ValueError) as error:
            raise SourceError(f"{url}: is no URL of a server ({error})") from error
        self._clock = clock
        self._was_reached = False
        # All requests wait where one was told to: the key is the same.
        self._free_at_s = -math.inf

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeouts: int = 3,
        refusals: int = MAX_REFUSALS,
    ) -> tuple[httpx.Response, float]:
        """Send a request, and again as long as the server says that it is busy.

        Args:
            method: Of HTTP.
            path: Below the base URL.
            body: Sent as JSON.
            timeouts: How many times it may take too long.
            refusals: How many times the key's limits may refuse it.

        Returns:
            The answer, and how many seconds it took, waits before it left out.

        Raises:
            InputError: The server refuses the request.
            DeadlineError: It took too long.
            RateLimitError: The key's limits refused it too often.
            SourceError: The server cannot be reached, or fails.
        """
        patience = _Patience(timeouts, refusals)
        while True:
            if (wait_s := self._free_at_s - self._clock()) > 0:
                await asyncio.sleep(wait_s)
            started_s = self._clock()
            try:
                answer = await self.http.request(
                    method, path, json=body, headers={"x-embed-priority": "bulk"}
                )
            except httpx.HTTPError as error:
                await self._after_no_answer(error, patience)
            else:
                self._was_reached = True
                if answer.is_success:
                    return answer, self._clock() - started_s
                await self._after_refusal(answer, patience)

    async def _after_no_answer(self, error: httpx.HTTPError, patience: "_Patience") -> None:
        """Wait before another try, where there is to be one.

        Raises:
            DeadlineError: The server took too long.
            SourceError: It cannot be reached.
        """
        if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
            self._count_timeout(patience, error)
            return
        if isinstance(error, httpx.UnsupportedProtocol):
            raise SourceError(f"{self.base}: is no URL of a server; it begins http://") from error
        patience.tries -= 1
        if not self._was_reached or patience.tries == 0:
            raise SourceError(
                f"{self.base}: the server cannot be reached ({_reason(error)})"
            ) from error
        await asyncio.sleep(patience.backoff_s)

    async def _after_refusal(self, answer: httpx.Response, patience: "_Patience") -> None:
        """Wait before another try, where the answer leaves hope.

        Raises:
            InputError: The server refuses the request.
            DeadlineError: It took too long.
            RateLimitError: The key's limits refused it too often.
            SourceError: The server fails, or waiting is of no use.
        """
        failure = _refusal(answer, self.base)
        hint_s = retry_after_s(answer)
        if answer.headers.get("x-should-retry") == "false" or (hint_s or 0) > MAX_TOLD_WAIT_S:
            raise failure
        if answer.status_code in TIMEOUT_STATUSES:
            self._count_timeout(patience, failure)
        elif answer.status_code == TOO_MANY_REQUESTS:
            wait_s = 1.0 if hint_s is None else hint_s
            self._free_at_s = max(self._free_at_s, self._clock() + wait_s)
            patience.refusals -= 1
            if patience.refusals <= 0:
                raise RateLimitError(failure.message, retry_after_s=wait_s, of="tokens")
        elif answer.status_code in BUSY_STATUSES:
            patience.tries -= 1
            if patience.tries == 0:
                raise failure
            wait_s = patience.backoff_s if hint_s is None else hint_s
            await asyncio.sleep(min(wait_s, MAX_BACKOFF_S))
        else:
            raise failure

    def _count_timeout(self, patience: "_Patience", error: Exception) -> None:
        """Count a request that took too long.

        Raises:
            DeadlineError: It was one too many.
        """
        patience.timeouts -= 1
        if patience.timeouts <= 0:
            raise DeadlineError(f"{self.base}: the server takes too long for a request") from error


@dataclass(slots=True)
class _Patience:
    """What one request may still suffer.

    Attributes:
        timeouts: How many times it may take too long.
        refusals: How many times the key's limits may refuse it.
        tries: How many times the server may be busy or out of reach.
    """

    timeouts: int
    refusals: int
    tries: int = MAX_TRIES

    @property
    def backoff_s(self) -> float:
        """How long to wait where the server did not say: longer after each try."""
        return min(2.0 ** (MAX_TRIES - self.tries) / 8, MAX_BACKOFF_S)


def retry_after_s(answer: httpx.Response) -> float | None:
    """Return how many seconds an answer asks to wait (RFC 9110, section 10.2.3), or None where it does not say."""
    value = answer.headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _reason(error: httpx.HTTPError) -> str:
    """Say why a server could not be reached."""
    if any(isinstance(cause, ConnectionRefusedError) for cause in _causes(error)):
        return "connection refused: nothing listens there"
    return str(error) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that led to it."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from _causes(part)
        error = error.__cause__ or error.__context__


def _refusal(answer: httpx.Response, base: str) -> InputError | SourceError:
    """Turn a server's error into one of ours, without quoting what a proxy or another program wrote."""
    status = answer.status_code
    try:
        fault = answer.json()["error"]
        if isinstance(fault, str):  # TEI's form, of the routes that are TEI's
            fault = {"message": fault}
        message, param, code = fault["message"], fault.get("param") or "", fault.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        if status == TOO_LARGE:
            return InputError("the server takes no request as large", code="request_too_large")
        return SourceError(f"{base}: the server answered {status}")
    if status not in (400, TOO_LARGE, 422):
        return SourceError(f"{base}: the server answered {status}: {message}")
    index = INPUT_INDEX.fullmatch(param)
    return InputError(message, param=param, input_index=int(index[1]) if index else None, code=code)
