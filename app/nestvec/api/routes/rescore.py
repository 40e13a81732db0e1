"""`POST /v1/rescore`: the second stage of a search, which rescores the candidates of a cheap first stage.

Source: adaptive retrieval with Matryoshka prefixes (arXiv:2205.13147, section 4.3) and rescoring of binary vectors.
"""

import base64
import binascii
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import read_request
from nestvec.api.requests.fields import (
    boolean_field,
    integer_field,
    invalid_item,
    text_field,
    texts_field,
)
from nestvec.api.schemas.similarity import RESCORE_DOC
from nestvec.api.scoring.vector_comparison import (
    OPTIONS,
    as_unit_vectors,
    comparison_response,
    embed_side,
    parse_comparison_options,
)
from nestvec.engine.dtypes import OutputDtype
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

FIELDS: Final = OPTIONS | {"query", "documents", "vectors", "top_n", "return_documents", "user"}


@router.post("/v1/rescore", **RESCORE_DOC)
async def rescore(request: Request) -> Response:
    """Order the candidates of a first search by a float query against better vectors of them, the best first."""
    api_request = await read_request(request, OPENAI)
    body = api_request.body
    api_request.check_fields(FIELDS)
    api_request.find_model()
    options = parse_comparison_options(api_request)
    query = text_field(body, "query")
    if query is None:
        raise InputError("you must provide 'query'", param="query")
    top = integer_field(body, "top_n")
    if top is not None and top < 1:
        raise InputError("'top_n' must be at least 1", param="top_n")
    if (body.get("documents") is None) == (body.get("vectors") is None):
        raise InputError("give the candidates as 'documents' or as 'vectors'", param="documents")
    documents: list[str] = []
    results = []
    if body.get("vectors") is None:
        documents, _ = texts_field(
            body, "documents", check_count=api_request.check_count, accepts_single=False
        )
        results.append(
            await embed_side(api_request, options, documents, "documents", role="passage")
        )
    else:
        api_request.check_count(len(body["vectors"]) if isinstance(body["vectors"], list) else 0)
    query_result = await embed_side(
        api_request, options, [query], "query", is_list=False, role="query"
    )
    stored = (
        results[0].converted[options.dtype]
        if results
        else parse_stored(body["vectors"], options.dtype, query_result.vectors.shape[1])
    )
    results.append(query_result)
    scores = as_unit_vectors(stored, options.dtype) @ query_result.vectors[0].astype(np.float64)
    order = np.argsort(-scores, kind="stable")[:top].tolist()
    returns_documents = boolean_field(body, "return_documents") is True and bool(documents)
    rows = [
        {"index": index, "score": float(scores[index])}
        | ({"document": documents[index]} if returns_documents else {})
        for index in order
    ]
    answer = {
        "object": "list",
        "model": api_request.model_name() or query_result.model,
        "results": rows,
    }
    return comparison_response(answer, results, query_result)


def parse_stored(value: object, dtype: OutputDtype, dimensions: int) -> NDArray[Any]:
    """Read vectors as the caller's store has them: lists of numbers, or base64.

    Args:
        value: As parsed from JSON.
        dtype: What values are stored as.
        dimensions: How many each vector has.

    Returns:
        Vectors `[N, D]` of the dtype's storage type; `[N, D / 8]` for bits.

    Raises:
        InputError: A vector does not have the dtype and dimensions; names it.
    """
    if not isinstance(value, list) or not value:
        raise InputError(
            "'vectors' must be a list of vectors", param="vectors", code="invalid_type"
        )
    width = dimensions // dtype.values_per_item
    return np.stack([_stored_vector(item, index, dtype, width) for index, item in enumerate(value)])


def _stored_vector(item: object, index: int, dtype: OutputDtype, width: int) -> NDArray[Any]:
    wrong = invalid_item(
        "vectors", index, f"must hold {width} values of {dtype} (a list, or base64)"
    )
    try:
        if isinstance(item, str):
            vector = np.frombuffer(base64.b64decode(item, validate=True), dtype.storage_dtype)
        elif isinstance(item, list) and not any(isinstance(v, bool | str | list) for v in item):
            numbers = np.asarray(item, np.float64)
            vector = numbers.astype(dtype.storage_dtype)
            # Codes that are not integers or out of range would become other codes: numpy casts them silently.
            if dtype.is_quantized and not np.array_equal(vector, numbers):
                raise wrong
        else:
            raise wrong
    except (ValueError, TypeError, OverflowError, binascii.Error):
        raise wrong from None
    if vector.shape != (width,) or not np.isfinite(vector.astype(np.float64)).all():
        raise wrong
    return vector
