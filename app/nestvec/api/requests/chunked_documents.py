"""Chunks of documents, each embedded in the context of its document: what Voyage's form and Perplexity's share."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import invalid_item
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import join_parts, object_parts
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.errors import EmptyInputError, InputError


def documents_field(api_request: ApiRequest, name: str) -> list[list[str]]:
    """Read the documents, each a list of its chunks.

    Args:
        api_request: Whose body holds them.
        name: The field.

    Raises:
        InputError: The field holds something else; names the document at fault.
    """
    documents = api_request.body.get(name)
    if documents is None:
        raise InputError(f"you must provide '{name}'", param=name)
    if not isinstance(documents, list):
        raise InputError(f"'{name}' must be a list of lists of strings", param=name)
    if not documents:
        raise EmptyInputError(f"'{name}' must not be an empty list", param=name)
    api_request.check_count(len(documents))
    chunks = sum(len(document) for document in documents if isinstance(document, list))
    api_request.state.service.check_count(chunks)
    for index, document in enumerate(documents):
        _check_document(document, name, index)
    return documents


async def embed_documents(
    api_request: ApiRequest, documents: list[list[str]], options: EmbedCall, *, name: str
) -> tuple[EmbedCall, EmbedResult]:
    """Embed the chunks of documents; none is cut, as it would lose chunks that the caller counts on.

    Args:
        api_request: Whom the vectors are for.
        documents: Each a list of its chunks.
        options: The call, but for what it embeds.
        name: The field that the documents came from, for errors.

    Returns:
        The call, whose `chunks` say how many each document has, and a vector for each chunk.

    Raises:
        ClientDisconnect: The client went away.
        NestvecError: The engine's reason why there are no vectors; names the chunk as `name[document][chunk]`.
    """
    call = dataclasses.replace(
        options,
        inputs=[chunk for document in documents for chunk in document],
        chunks=tuple(len(document) for document in documents),
        truncate=Truncation.ERROR,
    )
    try:
        return call, await embed(api_request, call, source=name)
    except InputError as error:
        _locate_chunk(error, name, call.chunks)
        raise


def items_json(rows: Sequence[bytes]) -> list[bytes]:
    """Return the parts of the items of a list of vectors, without its brackets."""
    parts: list[bytes] = []
    for index, row in enumerate(rows):
        start = (
            b',{"object":"embedding","embedding":'
            if index
            else b'{"object":"embedding","embedding":'
        )
        parts += (start, row, b',"index":%d}' % index)
    return parts


def documents_json(rows: Sequence[bytes], chunks: Sequence[int]) -> list[bytes]:
    """Return the parts of a list of documents, without its brackets: vectors nested as the chunks were.

    Args:
        rows: The vectors of all chunks, as JSON.
        chunks: How many each document has.
    """
    parts: list[bytes] = []
    starts = itertools.accumulate(chunks, initial=0)
    for index, (start, count) in enumerate(zip(starts, chunks, strict=False)):
        separator = b"," if index else b""
        parts.append(b'%s{"object":"list","index":%d,"data":[' % (separator, index))
        parts += items_json(rows[start : start + count])
        parts.append(b"]}")
    return parts


async def list_response(
    api_request: ApiRequest,
    call: EmbedCall,
    result: EmbedResult,
    data: list[bytes],
    usage: Mapping[str, int],
) -> Response:
    """Return the answer around the parts of a list, which come without its brackets."""
    fields = {
        "object": "list",
        "data": None,
        "model": api_request.model_name() or result.model,
        "usage": dict(usage),
    }
    content = await join_parts(object_parts(fields, {"data": [b"[", *data, b"]"]}))
    return Response(content, headers=result_headers(result, call), media_type="application/json")


def _locate_chunk(error: InputError, name: str, chunks: tuple[int, ...]) -> None:
    """Make an error name its chunk by document, as `name[document][chunk]`."""
    if error.input_index is None:
        return
    for document, count in enumerate(chunks):
        if error.input_index < count:
            error.param = f"{name}[{document}]"
            return
        error.input_index -= count


def _check_document(document: Any, name: str, index: int) -> None:  # noqa: ANN401 - JSON is of any type
    is_chunks = isinstance(document, list) and all(isinstance(chunk, str) for chunk in document)
    if not is_chunks or not document:
        raise invalid_item(name, index, "must be a list of at least one string")
