"""Structured logs: JSON lines or, on a terminal, readable ones; each with the request's id. Never a text or key."""

import logging
import sys
import traceback
from typing import Literal

import structlog
from structlog.typing import Processor


def configure_logs(*, level: str, style: Literal["auto", "json", "console"]) -> None:
    """Send our events and the libraries' through one renderer to stderr.

    Args:
        level: Least severe level shown.
        style: "auto" is "console" on a terminal, else "json".
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    readable = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if readable
        else structlog.processors.JSONRenderer()
    )
    # Locals of a traceback may hold texts: only the plain one, without them, is ever rendered.
    plain: list[Processor] = [] if readable else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *plain,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These say at info what we log ourselves, with URLs that may hold names.
    for noisy in ("httpx", "httpcore", "uvicorn.access", "uvicorn.error", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def frames_of(error: BaseException) -> str:
    """Where an error came from, without its message: an unknown one's may quote a caller's text."""
    kinds = [type(error).__name__]
    while error.__cause__ is not None:
        error = error.__cause__
        kinds.append(type(error).__name__)
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return "\n  ".join([" <- ".join(kinds), *places])


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger; `name` is the module's."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
