"""The Voyage dialect: embeddings in every dtype, and chunks that know their document.

Source: Voyage's API, and what its Python client sends and decodes (api-contract 4.5 and 4.6).
"""

import dataclasses
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import VOYAGE
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import Asked, embed, open_as, result_headers
from nestvec.api.requests.encoding import rows_json
from nestvec.api.requests.fields import (
    ROLE_WORDS,
    Body,
    boolean_field,
    choice_field,
    dtype_field,
    integer_field,
    texts_field,
    truncation_field,
    wrong_item,
)
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


async def embeddings(asked: Asked) -> Response:
    """Embed texts; vectors come in input order."""
    asked.check_fields(FIELDS)
    asked.find_model()
    texts, is_list = texts_field(asked.body, "input", check_count=asked.check_count)
    call = _call(asked, texts)
    result = await embed(asked, call, is_list=is_list)
    rows = await _rows(asked.body, result)
    return _answer(asked, call, result, _list(rows))


@router.post("/v1/contextualizedembeddings", **CONTEXTUALIZED_DOC)
async def contextualized_embeddings(request: Request) -> Response:
    """Embed the chunks of documents, each with what stands around it (late chunking)."""
    asked = await open_as(request, VOYAGE)
    asked.check_fields(CONTEXTUALIZED_FIELDS)
    asked.find_model()
    if boolean_field(asked.body, "enable_auto_chunking"):
        raise UnsupportedError(
            "'enable_auto_chunking' is not available: send the chunks", param="enable_auto_chunking"
        )
    documents = _documents(asked)
    chunks = [chunk for document in documents for chunk in document]
    # There is no field for it, and a document without its end would not be the caller's.
    call = dataclasses.replace(
        _call(asked, chunks),
        chunks=tuple(len(document) for document in documents),
        truncate=Truncation.ERROR,
    )
    try:
        result = await embed(asked, call, source="inputs")
    except InputError as error:
        _place(error, call.chunks)
        raise
    rows = await _rows(asked.body, result)
    lists = []
    for index, count in enumerate(call.chunks):
        own, rows = rows[:count], rows[count:]
        lists.append(b'{"object":"list","index":%d,"data":[%s]}' % (index, _list(own)))
    return _answer(asked, call, result, b",".join(lists))


def _call(asked: Asked, texts: list[str]) -> EmbedCall:
    body = asked.body
    word = choice_field(body, "input_type", ("query", "document"))
    return EmbedCall(
        inputs=texts,
        model=asked.model_name(),
        dimensions=integer_field(body, "output_dimension"),
        truncate=truncation_field(body, "truncation"),
        prompt_role=None if word is None else ROLE_WORDS[word],
        output_dtypes=(dtype_field(body, "output_dtype") or OutputDtype.FLOAT32,),
    )


async def _rows(body: Body, result: EmbedResult) -> list[bytes]:
    """Vectors as JSON; base64 holds the dtype that was asked for."""
    as_base64 = choice_field(body, "encoding_format", ("base64", "float")) == "base64"
    (vectors,) = result.converted.values()
    return await rows_json(vectors, as_base64=as_base64)


def _list(rows: list[bytes]) -> bytes:
    return b",".join(
        b'{"object":"embedding","embedding":%s,"index":%d}' % (row, index)
        for index, row in enumerate(rows)
    )


def _answer(asked: Asked, call: EmbedCall, result: EmbedResult, data: bytes) -> Response:
    content = b'{"object":"list","data":[%s],"model":%s,"usage":{"total_tokens":%d}}' % (
        data,
        orjson.dumps(asked.model_name() or result.model),
        sum(result.input_tokens),
    )
    return Response(content, headers=result_headers(result, call), media_type="application/json")


def _documents(asked: Asked) -> list[list[str]]:
    """Lists of chunks.

    Raises:
        InputError: Something else; names the document.
    """
    given = asked.body.get("inputs")
    if given is None:
        raise InputError("you must provide 'inputs'", param="inputs")
    if not isinstance(given, list):
        raise InputError("'inputs' must be a list of lists of strings", param="inputs")
    if not given:
        raise EmptyInputError("'inputs' must not be an empty list", param="inputs")
    asked.check_count(len(given))
    for index, document in enumerate(given):
        _check_document(document, index)
    asked.state.service.check_count(sum(len(document) for document in given))
    return given


def _place(error: InputError, chunks: tuple[int, ...]) -> None:
    """Name a chunk by its document, as `inputs[document][chunk]`."""
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
        raise wrong_item("inputs", index, "must be a list of at least one string")
