"""`POST /v1/chunk`: where documents are cut, without their vectors."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.chunking import parse_splitter
from nestvec.api.requests.embedding import (
    call_of_request,
    count_tokens,
    set_log_fields,
    until_disconnect,
)
from nestvec.api.requests.fields import texts_field
from nestvec.api.requests.json_parts import join_parts, lists_json, object_parts
from nestvec.api.schemas.chunk import CHUNK_DOC
from nestvec.engine.front.chunking import ChunkedDocuments, chunk_documents
from nestvec.engine.results import Chunk
from nestvec.engine.types import EmbedCall
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

FIELDS: Final = frozenset(
    {"input", "model", "user", "splitter", "chunk_tokens", "overlap_tokens", "language"}
)


@router.post("/v1/chunk", **CHUNK_DOC)
async def chunk(request: Request) -> Response:
    """Cut documents into chunks; each is told by its place in its document, in characters."""
    api_request = await read_request(request, OPENAI)
    api_request.check_fields(FIELDS)
    api_request.find_model()
    splitter = parse_splitter(api_request.body)
    texts, is_list = texts_field(api_request.body, "input", check_count=api_request.check_count)
    call = EmbedCall(texts, model=api_request.model_name(), splits=(splitter,) * len(texts))
    try:
        found, tokens = await _run(api_request, call)
    except InputError as error:
        if not is_list:
            error.input_index = None
        raise
    fields: dict[str, Any] = {
        "object": "list",
        "model": api_request.model_name() or found.model,
        "data": None,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    numbered = list(enumerate(found.chunks))
    (data,) = await lists_json([numbered], _chunk)
    content = await join_parts(object_parts(fields, {"data": [data]}))
    return Response(content, media_type="application/json")


async def _run(api_request: ApiRequest, call: EmbedCall) -> tuple[ChunkedDocuments, int]:
    """Find the chunks for a request; returns them, and the tokens that its key pays for.

    Raises:
        ClientDisconnect: The client went away.
        RateLimitError: The key has no tokens left.
        NestvecError: The engine's reason why there are no chunks.
    """
    call, tokens_of_key = call_of_request(api_request, call)
    service = api_request.state.service
    try:
        found = await until_disconnect(api_request.request, chunk_documents(service, call))
        own = sum(found.tokens)
        if tokens_of_key.are_limited:
            await tokens_of_key.admit(own)
    except ClientDisconnect:
        tokens_of_key.charge_for_leaving(call)
        raise
    except BaseException:
        tokens_of_key.give_back()
        raise
    tokens = own + sum(found.sentence_tokens)
    tokens_of_key.settle(tokens)
    count_tokens(api_request, tokens)
    set_log_fields(api_request.request, inputs=len(call.inputs), tokens=tokens)
    return found, tokens


def _chunk(numbered: tuple[int, Chunk]) -> dict[str, Any]:
    index, found = numbered
    return {
        "object": "chunk",
        "index": index,
        "document": found.document,
        "start": found.start,
        "end": found.stop,
        "tokens": found.tokens,
    }
