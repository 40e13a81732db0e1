"""The spans of a request, or of a chunk of a batch, that is recorded: itself, its calls to the engine, their stages."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from nestvec.engine.observer import current_trace
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.errors import NestvecError
from nestvec.observability.http_metrics import Answer
from nestvec.observability.tracing.batch_spans import call_word
from nestvec.observability.tracing.finished_span import (
    Attributes,
    FinishedSpan,
    is_worth_a_span,
)
from nestvec.observability.tracing.trace_context import TraceContext

# It needs the extra, which there is where spans are recorded.
if TYPE_CHECKING:
    from nestvec.observability.tracing.span_recorder import SpanRecorder

# https://opentelemetry.io/docs/specs/semconv/gen-ai
PROVIDER: Final = "nestvec"
EMBEDDINGS: Final = "embeddings"
# Not among the operations that OpenTelemetry names: labels of a text, or how relevant one is to another.
SCORES: Final = "score"
CLIENT_CLOSED: Final = 499
SERVER_ERRORS: Final = 500


class RequestTrace:
    """Collects the spans of a request, and hands them over once it has been answered.

    Args:
        recorder: Takes them.
        place: The request's own span.
        parent: Where its caller is; None where the trace begins here.
        started_s: Monotonic time when it came.

    Attributes:
        place: The request's own span.
    """

    __slots__ = ("_parent", "_recorder", "_spans", "_started_s", "place")

    def __init__(
        self,
        recorder: "SpanRecorder",
        place: TraceContext,
        parent: TraceContext | None,
        started_s: float,
    ) -> None:
        self.place = place
        self._recorder, self._parent, self._started_s = recorder, parent, started_s
        self._spans: list[FinishedSpan] = []

    def stage(
        self, name: str, started_s: float, ended_s: float, parent: TraceContext | None = None
    ) -> None:
        """Record a stage, where it took long enough for a span.

        Args:
            name: Its name, one of `STAGES`.
            started_s: Monotonic time when it began.
            ended_s: Monotonic time when it ended.
            parent: The call that it belongs to; None: the request.
        """
        if is_worth_a_span(ended_s - started_s):
            span_id = self._recorder.new_span_id()
            self._spans.append(
                FinishedSpan(name, span_id, parent or self.place, started_s, ended_s),
            )

    @contextmanager
    def call(
        self, call: EmbedCall, model: str, encoding_formats: Sequence[str] = ()
    ) -> Iterator["CallTrace"]:
        """Record a call to the engine, which the block makes.

        Args:
            call: The call, of which no text is kept.
            model: Name of the served model that it means.
            encoding_formats: The forms of vectors that were asked for, from a closed set.
        """
        place = self.place._replace(span_id=self._recorder.new_span_id())
        of_call = CallTrace(self, place, call, model, encoding_formats)
        token = current_trace.set(call_word(place))
        started_s, has_failed = time.monotonic(), False
        try:
            yield of_call
        except BaseException as error:
            of_call.attributes["error.type"] = _error_type(error)
            has_failed = True
            raise
        finally:
            current_trace.reset(token)
            self._spans.append(
                FinishedSpan(
                    *(of_call.name, place.span_id, self.place),
                    *(started_s, time.monotonic(), of_call.attributes),
                    has_failed=has_failed,
                )
            )

    def answered(self, answer: Answer, method: str, scheme: str, code: str) -> None:
        """Record the request itself, an HTTP request that has been answered, and hand all over.

        Args:
            answer: What it was, and how it was answered.
            method: HTTP's, as the caller sent it.
            scheme: http or https.
            code: Of the error that it was answered with; "" for none.
        """
        route, status = answer.route, answer.status
        is_matched = route.startswith("/")
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.scheme": scheme,
            "nestvec.dialect": answer.dialect,
        }
        if is_matched:
            attributes["http.route"] = route
            # Others hold what callers chose: ids, or words of any kind.
            if "{" not in route:
                attributes["url.path"] = route
        if status == CLIENT_CLOSED:  # there was no answer
            attributes["error.type"] = "client_closed"
        else:
            attributes["http.response.status_code"] = status
            if code or status >= SERVER_ERRORS:
                attributes["error.type"] = code or str(status)
        name = f"{method} {route}" if is_matched else method
        self.finish(name, attributes, is_server=True, has_failed=status >= SERVER_ERRORS)

    def finish(
        self,
        name: str,
        attributes: Attributes,
        *,
        is_server: bool = False,
        has_failed: bool = False,
    ) -> None:
        """Record the request itself, which ends now, and hand all over.

        Args:
            name: What was asked for.
            attributes: What is told of it.
            is_server: Whether it is an HTTP request.
            has_failed: Whether the server was at fault.
        """
        self._spans.append(
            FinishedSpan(
                *(name, self.place.span_id, self._parent),
                *(self._started_s, time.monotonic(), attributes),
                is_server=is_server,
                has_failed=has_failed,
                has_remote_parent=True,
            )
        )
        self._recorder.record(self.place, self._spans)


class CallTrace:
    """The span of one call to the engine.

    Args:
        request: The request that makes it.
        place: Its own span.
        call: The call.
        model: Name of the served model that it means.
        encoding_formats: The forms of vectors that were asked for.

    Attributes:
        name: The span's name.
        attributes: What is told of the call.
    """

    __slots__ = ("_kind", "_place", "_request", "attributes", "name")

    def __init__(
        self,
        request: RequestTrace,
        place: TraceContext,
        call: EmbedCall,
        model: str,
        encoding_formats: Sequence[str],
    ) -> None:
        self._request, self._place, self._kind = request, place, call.kind
        operation = SCORES if call.kind is OutputKind.LABELS else EMBEDDINGS
        self.name = f"{operation} {model}"
        self.attributes: dict[str, str | int | Sequence[str]] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "nestvec.inputs": len(call.inputs),
        }
        if encoding_formats:
            self.attributes["gen_ai.request.encoding_formats"] = tuple(encoding_formats)

    def answered(self, result: EmbedResult) -> None:
        """Note what the engine has answered, and the stages that ran in this process."""
        attributes, timings = self.attributes, result.timings
        attributes["gen_ai.response.model"] = result.model
        attributes["gen_ai.usage.input_tokens"] = sum(result.input_tokens)
        if self._kind in (OutputKind.DENSE, OutputKind.TOKENS):
            attributes["gen_ai.embeddings.dimension.count"] = result.vectors.shape[-1]
        now_s, started_s = time.monotonic(), timings.started_s
        self._request.stage("tokenize", started_s, started_s + timings.tokenize_s, self._place)
        self._request.stage("postprocess", now_s - timings.postprocess_s, now_s, self._place)


def begin_request(
    recorder: "SpanRecorder", parent: TraceContext | None, name: str, started_s: float
) -> RequestTrace | None:
    """Return the trace of a request that has come in; None where it is not to be recorded.

    Args:
        recorder: Decides, and takes the spans.
        parent: Where the caller is; None for a new trace.
        name: What is known of it already.
        started_s: Monotonic time when it came.
    """
    place = recorder.sampled(parent, name)
    return None if place is None else RequestTrace(recorder, place, parent, started_s)


def _error_type(error: BaseException) -> str:
    """Return our code of an error, or the type of another; messages may quote callers."""
    return error.code if isinstance(error, NestvecError) else type(error).__name__
