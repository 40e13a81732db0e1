"""The Voyage dialect: embeddings in every dtype, and chunks embedded within their document.

Source: Voyage's API reference. What its Python client sends and decodes is in docs/wire-behaviour.md, "Voyage".
"""

import dataclasses
import itertools
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import VOYAGE
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import (
    PROMPT_ROLES,
    Body,
    boolean_field,
    choice_field,
    dtype_field,
    integer_field,
    invalid_item,
    texts_field,
    truncation_field,
)
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import join_parts, object_parts
from nestvec.api.requests.vector_json import rows_json
from nestvec.api.schemas.voyage import CONTEXTUALIZED_DOC
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import EmbedCall, EmbedResult, Truncation
from nestvec.errors import EmptyInputError, InputError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[VOYAGE.name])

FIELDS: Final = frozenset(
    {
        *("input", "model", "input_type", "truncation", "output_dimension", "output_dtype"),
        "encoding_format",
    }
)
CONTEXTUALIZED_FIELDS: Final = frozenset(
    {
        *("inputs", "model", "input_type", "output_dimension", "output_dtype", "encoding_format"),
        *("enable_auto_chunking", "chunk_size", "chunk_overlap"),
    }
)


async def embeddings(api_request: ApiRequest) -> Response:
    """Embed texts; the vectors come in input order."""
    api_request.check_fields(FIELDS)
    api_request.find_model()
    texts, is_list = texts_field(api_request.body, "input", check_count=api_request.check_count)
    call = _call(api_request, texts)
    result = await embed(api_request, call, is_list=is_list)
    rows = await _rows(api_request.body, result)
    return await _response(api_request, call, result, _items_json(rows))


@router.post("/v1/contextualizedembeddings", **CONTEXTUALIZED_DOC)
async def contextualized_embeddings(request: Request) -> Response:
    """Embed the chunks of documents, each in the context of its document (late chunking)."""
    api_request = await read_request(request, VOYAGE)
    api_request.check_fields(CONTEXTUALIZED_FIELDS)
    api_request.find_model()
    if boolean_field(api_request.body, "enable_auto_chunking"):
        raise UnsupportedError(
            "'enable_auto_chunking' is not available: send the chunks", param="enable_auto_chunking"
        )
    documents = _documents(api_request)
    chunks = [chunk for document in documents for chunk in document]
    # Voyage has no field for truncation here, and a document that was cut would lose chunks that the caller counts on.
    call = dataclasses.replace(
        _call(api_request, chunks),
        chunks=tuple(len(document) for document in documents),
        truncate=Truncation.ERROR,
    )
    try:
        result = await embed(api_request, call, source="inputs")
    except InputError as error:
        _locate_chunk(error, call.chunks)
        raise
    rows = await _rows(api_request.body, result)
    parts: list[bytes] = []
    starts = itertools.accumulate(call.chunks, initial=0)
    for index, (start, count) in enumerate(zip(starts, call.chunks, strict=False)):
        separator = b"," if index else b""
        parts.append(b'%s{"object":"list","index":%d,"data":[' % (separator, index))
        parts += _items_json(rows[start : start + count])
        parts.append(b"]}")
    return await _response(api_request, call, result, parts)


def _call(api_request: ApiRequest, texts: list[str]) -> EmbedCall:
    body = api_request.body
    input_type = choice_field(body, "input_type", ("query", "document"))
    return EmbedCall(
        inputs=texts,
        model=api_request.model_name(),
        dimensions=integer_field(body, "output_dimension"),
        truncate=truncation_field(body, "truncation"),
        prompt_role=None if input_type is None else PROMPT_ROLES[input_type],
        output_dtypes=(dtype_field(body, "output_dtype") or OutputDtype.FLOAT32,),
    )


async def _rows(body: Body, result: EmbedResult) -> list[bytes]:
    """Return each vector as JSON; base64 holds the dtype that was asked for."""
    as_base64 = choice_field(body, "encoding_format", ("base64", "float")) == "base64"
    (vectors,) = result.converted.values()
    return await rows_json(vectors, as_base64=as_base64)


def _items_json(rows: list[bytes]) -> list[bytes]:
    """Return the parts of the items of a list, without its brackets."""
    parts: list[bytes] = []
    for index, row in enumerate(rows):
        start = (
            b',{"object":"embedding","embedding":'
            if index
            else b'{"object":"embedding","embedding":'
        )
        parts += (start, row, b',"index":%d}' % index)
    return parts


async def _response(
    api_request: ApiRequest, call: EmbedCall, result: EmbedResult, data: list[bytes]
) -> Response:
    fields = {
        "object": "list",
        "data": None,
        "model": api_request.model_name() or result.model,
        "usage": {"total_tokens": sum(result.input_tokens)},
    }
    content = await join_parts(object_parts(fields, {"data": [b"[", *data, b"]"]}))
    return Response(content, headers=result_headers(result, call), media_type="application/json")


def _documents(api_request: ApiRequest) -> list[list[str]]:
    """Read the documents, each a list of its chunks.

    Raises:
        InputError: `inputs` holds something else; names the document at fault.
    """
    documents = api_request.body.get("inputs")
    if documents is None:
        raise InputError("you must provide 'inputs'", param="inputs")
    if not isinstance(documents, list):
        raise InputError("'inputs' must be a list of lists of strings", param="inputs")
    if not documents:
        raise EmptyInputError("'inputs' must not be an empty list", param="inputs")
    api_request.check_count(len(documents))
    chunks = sum(len(document) for document in documents if isinstance(document, list))
    api_request.state.service.check_count(chunks)
    for index, document in enumerate(documents):
        _check_document(document, index)
    return documents


def _locate_chunk(error: InputError, chunks: tuple[int, ...]) -> None:
    """Make an error name its chunk by document, as `inputs[document][chunk]`."""
    if error.input_index is None:
        return
    for document, count in enumerate(chunks):
        if error.input_index < count:
            error.param = f"inputs[{document}]"
            return
        error.input_index -= count


def _check_document(document: Any, index: int) -> None:  # noqa: ANN401 - JSON is of any type
    is_chunks = isinstance(document, list) and all(isinstance(chunk, str) for chunk in document)
    if not is_chunks or not document:
        raise invalid_item("inputs", index, "must be a list of at least one string")
