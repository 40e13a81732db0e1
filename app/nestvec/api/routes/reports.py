"""`/v1/reports`: reports on a caller's own texts, made in the background; each key sees its own."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.auth import authenticate
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.reports.report_files import ReportRecord
from nestvec.api.reports.report_jobs import ReportOrder, timeout_of
from nestvec.api.requests.api_request import bind_dialect, read_request
from nestvec.api.requests.bulk_calls import run_bulk_call
from nestvec.api.requests.fields import integer_field, text_field
from nestvec.api.requests.report_request import FIELDS, parse_report
from nestvec.api.schemas.reports import (
    CANCEL_REPORT_DOC,
    CREATE_REPORT_DOC,
    REPORT_DOC,
    REPORTS_DOC,
)
from nestvec.corpus.reports import render
from nestvec.engine.types import OutputKind
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=["reports"])

DEFAULT_LISTED: Final = 20
MAX_LISTED: Final = 100
FORMATS: Final = {"json": "application/json", "markdown": "text/markdown", "html": "text/html"}


@router.post("/v1/reports", **CREATE_REPORT_DOC)
async def create_report(request: Request) -> Response:
    """Take a report in; it is made as soon as it is its turn."""
    api_request = await read_request(request, OPENAI)
    api_request.check_fields(FIELDS)
    state, owner, body = api_request.state, api_request.key_id, api_request.body
    state.reports.check_room(owner)
    slot = api_request.find_model()
    other = text_field(body, "other_model") or ""
    if other:
        state.service.models.find(other, OutputKind.DENSE)
    timeout_s = timeout_of(integer_field(body, "timeout_s"))
    report, data, seed = await parse_report(body, state, owner)
    if bool(other) != (report.models > 1):
        wants = "needs" if report.models > 1 else "takes no"
        raise InputError(f"the report '{report.name}' {wants} 'other_model'", param="other_model")
    state.reports.check_room(owner)  # others may have come while a file was read
    record = await asyncio.to_thread(state.reports.files.new, owner, report.name, slot.name)
    order = ReportOrder(record, report, data, other, seed, timeout_s)
    state.reports.begin(order, state.service, lambda call, key: run_bulk_call(state, call, key))
    return json_response(report_object(record))


@router.get("/v1/reports", **REPORTS_DOC)
async def list_reports(request: Request) -> Response:
    """List the key's reports, newest first, without what they found."""
    state = bind_dialect(request, OPENAI.name)
    owner = authenticate(request, state.keys)
    text = request.query_params.get("limit", str(DEFAULT_LISTED))
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LISTED))
    limit = int(text) if is_number else 0
    if not 1 <= limit <= MAX_LISTED:
        raise InputError(f"'limit' must be 1 to {MAX_LISTED}", param="limit")
    records = await asyncio.to_thread(state.reports.files.of_owner, owner)
    data = [report_object(record, with_result=False) for record in records[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(records) > limit})


@router.get("/v1/reports/{report_id}", **REPORT_DOC)
async def retrieve_report(request: Request, report_id: str) -> Response:
    """Tell how far a report is, and what it found; as a page or Markdown where `format` asks for that."""
    state = bind_dialect(request, OPENAI.name)
    owner = authenticate(request, state.keys)
    form = request.query_params.get("format", "json")
    if form not in FORMATS:
        raise InputError(f"'format' must be one of: {', '.join(FORMATS)}", param="format")
    record = await asyncio.to_thread(state.reports.files.find, report_id, owner)
    if form == "json":
        return json_response(report_object(record))
    if record.result is None:
        raise InputError(
            f"the report is {record.status}: there is nothing to show yet", param="format"
        )
    written = render.page if form == "html" else render.markdown
    return Response(written(record.result), media_type=FORMATS[form])


@router.post("/v1/reports/{report_id}/cancel", **CANCEL_REPORT_DOC)
async def cancel_report(request: Request, report_id: str) -> Response:
    """Stop a report; one that has ended stays as it is."""
    state = bind_dialect(request, OPENAI.name)
    owner = authenticate(request, state.keys)
    return json_response(report_object(await state.reports.cancel(report_id, owner)))


def report_object(record: ReportRecord, *, with_result: bool = True) -> dict[str, Any]:
    """Return a report as callers see it."""
    content = {
        "id": record.id,
        "object": "report",
        "report": record.report,
        "model": record.model,
        "status": record.status,
        "created_at": int(record.created_s),
        "started_at": None if record.started_s is None else int(record.started_s),
        "ended_at": None if record.ended_s is None else int(record.ended_s),
        "embedded_texts": record.embedded_texts,
        "usage": {"prompt_tokens": record.tokens, "total_tokens": record.tokens},
        "error": record.error,
    }
    if with_result:
        content["result"] = record.result
    return content
