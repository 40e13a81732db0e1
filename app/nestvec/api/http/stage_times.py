"""Where the time of one request went, stage by stage, for metrics, the log line and the `server-timing` header."""

import time
from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

from nestvec.engine.results import Timings
from nestvec.observability.tracing.request_trace import RequestTrace

# Key in a request's ASGI scope.
STAGE_TIMES: Final = "nestvec.stage_times"
STAGES: Final = ("parse", "tokenize", "queue", "run", "postprocess", "encode", "write")


class StageTimes:
    """What the stages of a request took, in seconds, as far as it has come.

    Calls that a request makes one after the other add up. What lies between stages (the key, waits for memory or for a
    model that is being loaded) is in none of them, so that they come to no more than the whole.

    Attributes:
        model: The served model that the request means; "" where it means none, or none that is known.
        trace: Records the spans of the request; None where none are recorded.
        kept_trace_id: Id of its trace, where somebody records that; else "".
    """

    __slots__ = ("_seconds", "_since_s", "kept_trace_id", "model", "trace")

    def __init__(self, started_s: float, trace: RequestTrace | None = None) -> None:
        self.model = ""
        self.trace = trace
        self.kept_trace_id = ""
        self._seconds: dict[str, float] = {}
        self._since_s = started_s

    def parsed(self) -> None:
        """Note that the body has been read and parsed."""
        self._end("parse")

    def answered(self, model: str, timings: Timings) -> None:
        """Note that the engine has answered a call.

        Args:
            model: The model that did.
            timings: Where the call's time went.
        """
        self.model = model
        for stage, took_s in (
            ("tokenize", timings.tokenize_s),
            ("queue", timings.queue_wait_s),
            ("run", timings.engine_s),
            ("postprocess", timings.postprocess_s),
        ):
            self._seconds[stage] = self._seconds.get(stage, 0.0) + took_s
        self._since_s = time.monotonic()

    def encoded(self) -> None:
        """Note that the answer begins; it had to be encoded where vectors are in it."""
        if "run" in self._seconds:
            self._end("encode")

    def written(self) -> None:
        """Note that the answer's last byte has left for the caller."""
        if "encode" in self._seconds:
            self._end("write")

    def seconds(self) -> Mapping[str, float]:
        """Return what each stage took that the request has come to; none of requests that ask for no vectors."""
        return self._seconds if "run" in self._seconds else {}

    def header(self) -> bytes:
        """Return the value of `server-timing` (W3C Server Timing), in milliseconds; b"" where there are no stages."""
        return ", ".join(
            f"{stage};dur={took_s * 1000:.2f}" for stage, took_s in self.seconds().items()
        ).encode()

    def _end(self, stage: str) -> None:
        now_s = time.monotonic()
        self._seconds[stage] = now_s - self._since_s
        if self.trace is not None:
            self.trace.stage(stage, self._since_s, now_s)
        self._since_s = now_s


def stage_times(scope: Scope) -> StageTimes:
    """Return the stage times of a request; of one outside of a server, ones that nobody reads."""
    times: StageTimes = scope.get(STAGE_TIMES) or StageTimes(time.monotonic())
    return times
