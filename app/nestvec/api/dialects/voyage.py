"""The Voyage dialect: embeddings in every dtype, and chunks embedded within their document.

Source: Voyage's API reference. What its Python client sends and decodes is in docs/wire-behaviour.md, "Voyage".
"""

from typing import Final

import numpy as np
from fastapi import Response

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.chunked_documents import (
    documents_field,
    documents_json,
    embed_documents,
    items_json,
    list_response,
)
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import (
    PROMPT_ROLES,
    Body,
    boolean_field,
    choice_field,
    dtype_field,
    integer_field,
    texts_field,
    truncation_field,
)
from nestvec.api.requests.vector_json import rows_json
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall
from nestvec.errors import UnsupportedError

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
    return await _response(api_request, call, result, items_json(rows))


async def contextualized_embeddings(api_request: ApiRequest) -> Response:
    """Embed the chunks of documents, each in the context of its document (late chunking)."""
    api_request.check_fields(CONTEXTUALIZED_FIELDS)
    api_request.find_model()
    if boolean_field(api_request.body, "enable_auto_chunking"):
        raise UnsupportedError(
            "'enable_auto_chunking' is not available: send the chunks", param="enable_auto_chunking"
        )
    documents = documents_field(api_request, "inputs")
    options = _call(api_request, [])
    call, result = await embed_documents(api_request, documents, options, name="inputs")
    rows = await _rows(api_request.body, result)
    return await _response(api_request, call, result, documents_json(rows, call.chunks))


def _call(api_request: ApiRequest, texts: list[str]) -> EmbedCall:
    body = api_request.body
    input_type = choice_field(body, "input_type", ("query", "document"))
    return EmbedCall(
        inputs=texts,
        model=api_request.model_name(),
        dimensions=integer_field(body, "output_dimension"),
        truncate=truncation_field(body, "truncation"),
        prompt_role=None if input_type is None else PROMPT_ROLES[input_type],
        output_dtypes=(
            dtype_field(body, "output_dtype") or api_request.pinned_dtype() or OutputDtype.FLOAT32,
        ),
    )


async def _rows(body: Body, result: EmbedResult) -> list[bytes]:
    """Return each vector as JSON; base64 holds the dtype that was asked for, else float32."""
    as_base64 = choice_field(body, "encoding_format", ("base64", "float")) == "base64"
    (vectors,) = result.converted.values()
    if as_base64 and dtype_field(body, "output_dtype") is None:
        vectors = vectors.astype(np.float32, copy=False)
    return await rows_json(vectors, as_base64=as_base64)


async def _response(
    api_request: ApiRequest, call: EmbedCall, result: EmbedResult, data: list[bytes]
) -> Response:
    usage = {"total_tokens": sum(result.input_tokens)}
    return await list_response(api_request, call, result, data, usage)
