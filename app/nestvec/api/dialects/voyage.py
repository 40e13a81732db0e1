"""The Voyage dialect: embeddings in every dtype, of pictures too, and chunks embedded within their document.

Source: Voyage's API reference. What its Python client sends and decodes is in docs/wire-behaviour.md, "Voyage".
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import VOYAGE
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.chunked_documents import (
    documents_field,
    documents_json,
    embed_documents,
    items_json,
    list_response,
)
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.encoded_picture import EncodedInput
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
from nestvec.api.requests.pictures.parts import read_content
from nestvec.api.requests.pictures.reading import CallInputs, ReadInputs, read_inputs
from nestvec.api.requests.vector_json import rows_json
from nestvec.api.schemas.voyage import MULTIMODAL_DOC
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall
from nestvec.errors import EmptyInputError, InputError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[VOYAGE.name])

# The field of multimodal embeddings, and the one that Voyage's client sends there too.
ENCODINGS: Final = ("output_encoding", "encoding_format")
FIELDS: Final = frozenset(
    {
        *("input", "model", "input_type", "truncation", "output_dimension", "output_dtype"),
        "encoding_format",
    }
)
MULTIMODAL_FIELDS: Final = frozenset(
    {
        *("inputs", "model", "input_type", "truncation", "output_dimension", "output_dtype"),
        *("encoding_format", "output_encoding"),
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


@router.post("/v1/multimodalembeddings", **MULTIMODAL_DOC)
async def multimodal_embeddings(request: Request) -> Response:
    """Embed texts and pictures into one space; the vectors come in input order."""
    api_request = await read_request(request, VOYAGE)
    api_request.check_fields(MULTIMODAL_FIELDS)
    api_request.find_model()
    read = await read_inputs(api_request, _multimodal_inputs(api_request), name="inputs")
    call = _call(api_request, read.inputs)
    result = await embed(api_request, call, source="inputs")
    rows = await _rows(api_request.body, result, ENCODINGS)
    usage = _multimodal_usage(result, read)
    return await list_response(api_request, call, result, items_json(rows), usage)


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


def _multimodal_inputs(api_request: ApiRequest) -> list[str | EncodedInput]:
    """Read the inputs, each a list of parts of which one vector is made.

    Raises:
        InputError: `inputs` holds something else; names the item at fault.
        UnsupportedError: A part is no text and no picture, or is to be fetched from elsewhere.
    """
    value = api_request.body.get("inputs")
    if value is None:
        raise InputError("you must provide 'inputs'", param="inputs")
    if not isinstance(value, list):
        raise InputError("'inputs' must be a list", param="inputs", code="invalid_type")
    if not value:
        raise EmptyInputError("'inputs' must not be an empty list", param="inputs")
    api_request.check_count(len(value))
    wrong = next((n for n, item in enumerate(value) if not isinstance(item, dict)), None)
    if wrong is not None:
        raise invalid_item("inputs", wrong, "must be an object with a list 'content'")
    return [read_content(item.get("content"), "inputs", n) for n, item in enumerate(value)]


def _multimodal_usage(result: EmbedResult, read: ReadInputs) -> dict[str, int]:
    """Count what was run; Voyage's client reads all four."""
    total = sum(result.input_tokens)
    return {
        "text_tokens": total - read.picture_tokens(result),
        "image_pixels": read.pixels,
        "video_pixels": 0,
        "total_tokens": total,
    }


def _call(api_request: ApiRequest, inputs: CallInputs) -> EmbedCall:
    body = api_request.body
    input_type = choice_field(body, "input_type", ("query", "document"))
    return EmbedCall(
        inputs=inputs,
        model=api_request.model_name(),
        dimensions=integer_field(body, "output_dimension"),
        truncate=truncation_field(body, "truncation"),
        prompt_role=None if input_type is None else PROMPT_ROLES[input_type],
        output_dtypes=(
            dtype_field(body, "output_dtype") or api_request.pinned_dtype() or OutputDtype.FLOAT32,
        ),
    )


async def _rows(
    body: Body, result: EmbedResult, encodings: Sequence[str] = ("encoding_format",)
) -> list[bytes]:
    """Return each vector as JSON; base64 holds the dtype that was asked for, else float32."""
    words = [choice_field(body, name, ("base64", "float")) for name in encodings]
    as_base64 = "base64" in words
    (vectors,) = result.converted.values()
    if as_base64 and dtype_field(body, "output_dtype") is None:
        vectors = vectors.astype(np.float32, copy=False)
    return await rows_json(vectors, as_base64=as_base64)


async def _response(
    api_request: ApiRequest, call: EmbedCall, result: EmbedResult, data: list[bytes]
) -> Response:
    usage = {"total_tokens": sum(result.input_tokens)}
    return await list_response(api_request, call, result, data, usage)
