"""Structured logs: JSON lines, or readable ones on a terminal; with the request's id, but never with a text or key."""

import logging
import os
import sys
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from typing_extensions import override

# These log at info what we log ourselves, with URLs that may hold names, or what is of no use to an operator.
QUIET_LIBRARIES: Final = (
    *("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "huggingface_hub"),
    "alembic",
)


def configure_logs(*, level: str, style: Literal["auto", "json", "console"]) -> None:
    """Send our own events and the libraries' through one renderer to stderr.

    Args:
        level: The least severe level that is shown.
        style: "auto" is "console" on a terminal, else "json".
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    is_readable = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer = _console_renderer() if is_readable else structlog.processors.JSONRenderer()
    # Locals of a traceback may hold texts: only the plain one, without them, is ever rendered.
    plain: list[Processor] = [] if is_readable else [structlog.processors.format_exc_info]
    handler = BarHandler(sys.stderr)
    if is_readable:
        structlog.configure(
            processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )
    else:
        # A request has a line: through the standard library's records it takes three times as long.
        structlog.configure(
            processors=[*shared, *plain, renderer],
            logger_factory=lambda name: LineLogger(name, handler),
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=True,
        )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([_short] if is_readable else []),
                *plain,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(max(logging.WARNING, root.level))


class BarHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream, above the progress bars that are shown there."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; bars are taken away meanwhile."""
        # A process without bars has not imported the library.
        bars = sys.modules.get("tqdm")
        if bars is None:
            super().emit(record)
            return
        with bars.tqdm.external_write_mode(file=self.stream):
            super().emit(record)

    def write_line(self, line: str) -> None:
        """Write a line that is rendered already, as a record's; a stream that takes none is no reason to fail."""
        bars = sys.modules.get("tqdm")
        above = nullcontext() if bars is None else bars.tqdm.external_write_mode(file=self.stream)
        with self.lock or nullcontext(), suppress(OSError, ValueError), above:
            self.stream.write(f"{line}\n")
            self.flush()


@dataclass(frozen=True, slots=True)
class LineLogger:
    """What structlog hands rendered lines to, under the names that it calls.

    Attributes:
        name: The logger's name.
        handler: Writes its lines.
    """

    name: str
    handler: BarHandler

    def info(self, line: str) -> None:
        """Write a line."""
        self.handler.write_line(line)

    debug = warning = error = critical = info


def _console_renderer() -> Processor:
    """Make what renders events for people: the time, the level, the event, what belongs to it, in one line.

    Colours only where they are shown, and not against https://no-color.org.
    """
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
        timestamp_key="time",
        event_key="event",
        sort_keys=False,
        pad_event_to=0,
        exception_formatter=structlog.dev.plain_traceback,
    )


def _short(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Leave out of an event what people do not need: the logger's name, and of the time all but the local clock's."""
    event.pop("logger", None)
    if isinstance(stamp := event.get("time"), str):
        event["time"] = datetime.fromisoformat(stamp).astimezone().strftime("%H:%M:%S")
    return event


def configure_library_logs() -> None:
    """Send our own events to the standard library's loggers, as text, where nobody has set up structlog.

    A process that is not ours decides itself what it shows: nothing below a warning, unless it sets logging up.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Whoever sets structlog up later is heard.
        cache_logger_on_first_use=False,
    )


def frames_of(error: BaseException) -> str:
    """Say where an error came from, without its message: that of an unknown error may quote a caller's text."""
    kinds = [type(error).__name__]
    while error.__cause__ is not None:
        error = error.__cause__
        kinds.append(type(error).__name__)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return "\n  ".join([" <- ".join(kinds), *lines])


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of events.

    Args:
        name: The module's name.
    """
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
