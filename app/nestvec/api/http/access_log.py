"""One line a request in the log: what it was, how it was answered, where its time went; never a caller's text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from nestvec.api.http.stage_times import StageTimes
from nestvec.errors import NestvecError
from nestvec.observability.http_metrics import Answer
from nestvec.observability.logs import get_logger

log = get_logger(__name__)

# Key in a request's ASGI scope: the error that it was answered with.
ANSWERED_ERROR: Final = "nestvec.answered_error"
QUIET_ROUTES: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
BAD_STATUS: Final = 400
# Fields that an error may be about. Others are callers' own words, and words of theirs stay out of the log.
LOGGED_FIELDS: Final = frozenset(
    {
        *("input", "inputs", "texts", "documents", "query", "queries", "content", "messages"),
        *("prompt", "prompt_name", "prompt_role", "instruction", "examples", "input_type", "task"),
        *(
            "model",
            "dimensions",
            "output_dimension",
            "encoding_format",
            "output_dtype",
            "normalize",
        ),
        *("truncate", "truncation", "late_chunking", "layers", "map", "pool_factor", "max_tokens"),
        *(
            "pairs",
            "left",
            "right",
            "vectors",
            "top_n",
            "rank_fields",
            "file",
            "purpose",
            "endpoint",
        ),
        *("input_file_id", "completion_window", "instances", "sentences", "source_sentence"),
    }
)
INDEX: Final = re.compile(r"\[(\d+)\]")


@dataclass(slots=True)
class AccessLog:
    """Writes requests' lines; on the event loop, where requests end.

    Attributes:
        sample_ratio: Share of the quick answers without an error that get a line, 0 … 1; all others get one.
        slow_s: Answers that took so many seconds are not quick.
    """

    sample_ratio: float = 1.0
    slow_s: float = 1.0
    _due: float = 0.0

    def write(self, answer: Answer, took_s: float, stages: StageTimes, scope: Scope) -> None:
        """Write a request's line, if it gets one.

        Args:
            answer: What it was, and how it was answered.
            took_s: Seconds from its first byte to the end of the answer.
            stages: Where they went.
            scope: Its ASGI scope.
        """
        error: NestvecError | None = scope.get(ANSWERED_ERROR)
        is_good = error is None and answer.status < BAD_STATUS
        if is_good and took_s < self.slow_s and not self._is_drawn():
            return
        write = log.debug if answer.route in QUIET_ROUTES else log.info
        state = scope.get("state", {})
        grant = state.get("key_grant")
        write(
            "request",
            route=answer.route,
            status=answer.status,
            duration_ms=round(took_s * 1000, 1),
            dialect=answer.dialect,
            model=answer.model,
            key_id=getattr(grant, "key_id", ""),
            **state.get("log_fields", {}),
            **_error_fields(error),
            **_stage_fields(stages),
        )

    def _is_drawn(self) -> bool:
        """Draw evenly: of ratio 0.1 each tenth."""
        if self.sample_ratio >= 1:
            return True
        self._due += self.sample_ratio
        if self._due < 1:
            return False
        self._due -= 1
        return True


def _error_fields(error: NestvecError | None) -> Mapping[str, str | int]:
    """Say which error it was and what it was about, where that is a field that we know and not a caller's word."""
    if error is None:
        return {}
    fields: dict[str, str | int] = {"code": error.code}
    param = getattr(error, "param", None)
    name = INDEX.sub("", param) if isinstance(param, str) else ""
    if name in LOGGED_FIELDS:
        fields["param"] = name
    index = getattr(error, "input_index", None)
    if isinstance(index, int):
        fields["input_index"] = index
    return fields


def _stage_fields(stages: StageTimes) -> Mapping[str, Mapping[str, float]]:
    took_ms = {stage: round(took_s * 1000, 2) for stage, took_s in stages.seconds().items()}
    return {"stages_ms": took_ms} if took_ms else {}
