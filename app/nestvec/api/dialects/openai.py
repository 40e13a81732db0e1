"""The OpenAI dialect of `/v1/embeddings`, with Azure's paths and vLLM's raw bytes.

Source: OpenAI's API reference for `POST /v1/embeddings`. What its clients send and need is in
docs/wire-behaviour.md, "OpenAI".
"""

from typing import Annotated, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.dialects.openai_body import (
    FIELDS,
    parse_call,
    parse_encoding,
    parse_input,
)
from nestvec.api.dialects.openai_response import (
    ResponseExtras,
    bytes_response,
    embeddings_parts,
    outputs_json,
    refuse_bytes,
)
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import decode_tokens, embed
from nestvec.api.requests.headers import VOCABULARY_HEADER, deadline_s, result_headers
from nestvec.api.requests.json_parts import join_parts
from nestvec.api.requests.pictures.reading import read_inputs
from nestvec.api.requests.token_offsets import wants_offsets, with_offsets
from nestvec.api.schemas.documented import MODEL_PATH
from nestvec.api.schemas.openai import DEPLOYMENT_DOC
from nestvec.engine.types import OutputKind
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

# The `metadata` header of `bytes` takes about 100 bytes an input, and proxies commonly allow 8 KiB of headers.
MAX_INPUTS_IN_HEADER: Final = 64


async def embeddings(api_request: ApiRequest) -> Response:
    """Embed texts or token ids; the vectors come in input order."""
    return await _embeddings(api_request, api_request.model_name())


@router.post("/openai/deployments/{deployment:path}/embeddings", **DEPLOYMENT_DOC)
@router.post("/engines/{deployment:path}/embeddings", include_in_schema=False)
async def deployment_embeddings(
    request: Request, deployment: Annotated[str, MODEL_PATH]
) -> Response:
    """Embed as `/v1/embeddings` does, by the model that Azure's path names; the body's `model` does not count."""
    api_request = await read_request(request, OPENAI)
    api_request.body["model"] = deployment
    return await _embeddings(api_request, deployment)


async def _embeddings(api_request: ApiRequest, model: str) -> Response:
    api_request.check_fields(FIELDS)
    slot = api_request.state.service.models.find(model, OutputKind.DENSE)
    encoding = parse_encoding(api_request.body, slot.preset(model).output_dtype)
    inputs, is_list = await parse_input(
        api_request.body, slot, model, check_count=api_request.check_count
    )
    if encoding.form == "bytes" and len(inputs) > MAX_INPUTS_IN_HEADER:
        raise InputError(
            f"'bytes' describes at most {MAX_INPUTS_IN_HEADER} inputs in its header; use 'bytes_only'",
            param="encoding_format",
        )
    try:
        vocabulary = api_request.request.headers.get(VOCABULARY_HEADER)
        decoded = await decode_tokens(api_request.state, inputs, vocabulary=vocabulary)
    except InputError as error:
        if not is_list:
            error.input_index = None
        raise
    read = await read_inputs(api_request, decoded, is_list=is_list)
    call = parse_call(api_request.body, read.inputs, encoding)
    refuse_bytes(call, encoding)
    has_offsets = wants_offsets(api_request.body, call)
    result = await embed(api_request, call, is_list=is_list)
    if encoding.form.startswith("bytes"):
        return bytes_response(result, call, encoding, model or result.model)
    rows = await outputs_json(result, call, encoding)
    if has_offsets:
        state = api_request.state
        latest_s = deadline_s(api_request.request, state)
        rows = await with_offsets(state.service, call, result, rows, latest_s=latest_s)
    extras = ResponseExtras(
        *(result.chunks, result.long_inputs, result.labels, sum(result.unknown_tokens)),
        instruction_tokens=sum(result.instruction_tokens),
        views=tuple(result.views),
    )
    tokens = sum(result.input_tokens)
    parts = embeddings_parts(rows, model or result.model, tokens, extras, kind=call.kind)
    body = await join_parts(parts)
    return Response(body, headers=result_headers(result, call), media_type="application/json")
