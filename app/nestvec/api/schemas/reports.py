"""The routes of reports in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import ErrorBody, errors_of, format_parameter, operation
from nestvec.corpus.reports.table import REPORTS


class CreateReport(BaseModel):
    """A report on texts of the caller's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"report": "numbers", "model": "all-MiniLM-L6-v2"}],
        }
    )

    report: str = Field(description="One of: " + ", ".join(REPORTS) + ".")
    model: str | None = Field(default=None, description="The model; the server's own if left out.")
    other_model: str | None = Field(default=None, description="The second model of `compare`.")
    texts: list[str] | None = Field(default=None, description="At most 20,000.")
    reference: list[str] | None = Field(default=None, description="Texts to compare these with.")
    pairs: list[list[str]] | None = Field(
        default=None, description="Two texts each: a query and its answer, or a translation."
    )
    labels: list[str] | None = Field(default=None, description="A label for each text.")
    file_id: str | None = Field(
        default=None,
        description='Instead of these an uploaded file of lines {"text", "label"}, {"reference"} or {"pair"}.',
    )
    seed: int | None = Field(default=None, description="Of every draw; 7 by default.")
    timeout_s: int | None = Field(default=None, description="1 to 3600 seconds, 900 by default.")


class ReportSummary(BaseModel):
    """A report and how far it is."""

    id: str
    object: Literal["report"]
    report: str
    model: str
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    created_at: int
    started_at: int | None
    ended_at: int | None
    embedded_texts: int
    usage: dict[str, int]
    error: dict[str, str] | None = Field(description="Code and message where it has failed.")


class ReportObject(ReportSummary):
    """A report with what it found."""

    result: dict[str, Any] | None = Field(
        description="Figures with their n and 95% intervals, tables, notes and advice; null until it is completed."
    )


class ReportList(BaseModel):
    """A key's reports."""

    object: Literal["list"]
    data: list[ReportSummary]
    has_more: bool


CREATE_REPORT_DOC: Final = operation(
    "Make a report on texts of your own",
    ReportObject,
    bodies={"openai": CreateReport},
    errors=errors_of(ErrorBody, (400, 401, 404, 413, 429, 500, 503)),
)
REPORTS_DOC: Final = operation(
    "List reports", ReportList, errors=errors_of(ErrorBody, (400, 401, 503))
) | {
    "openapi_extra": {
        "parameters": [
            {
                "name": "limit",
                "in": "query",
                "required": False,
                "description": "How many at most, newest first; 20 by default.",
                "schema": {"type": "integer", "minimum": 1, "maximum": 100},
            }
        ]
    }
}
REPORT_DOC: Final = operation(
    "How far a report is, and what it found",
    ReportObject,
    errors=errors_of(ErrorBody, (400, 401, 404, 503)),
) | {"openapi_extra": {"parameters": [format_parameter(("json", "markdown", "html"))]}}
# A page or Markdown where `format` asks for that, beside the JSON of the model above.
REPORT_DOC["responses"][200] = {
    "content": {media: {"schema": {"type": "string"}} for media in ("text/html", "text/markdown")}
}
CANCEL_REPORT_DOC: Final = operation(
    "Stop a report", ReportObject, errors=errors_of(ErrorBody, (401, 404, 500, 503))
)
