"""`POST /v1/rescore`: the second stage of a search, which rescores the candidates of a cheap first stage.

Source: adaptive retrieval with Matryoshka prefixes (arXiv:2205.13147, section 4.3) and rescoring of binary vectors.
"""

import base64
import binascii
from functools import partial
from typing import Any, Final

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import read_request
from nestvec.api.requests.fields import boolean_field, integer_field, invalid_item
from nestvec.api.requests.json_parts import compute, listed, with_field
from nestvec.api.requests.pictures.sides import (
    SideInputs,
    documents_json,
    picture_side,
    query_side,
    read_sides,
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
from nestvec.engine.types import FloatArray
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

NUMBERS: Final = {int, float}
FIELDS: Final = OPTIONS | {"query", "documents", "vectors", "top_n", "return_documents", "user"}


@router.post("/v1/rescore", **RESCORE_DOC)
async def rescore(request: Request) -> Response:
    """Order the candidates of a first search by a float query against better vectors of them, the best first."""
    api_request = await read_request(request, OPENAI)
    body = api_request.body
    api_request.check_fields(FIELDS)
    api_request.find_model()
    options = parse_comparison_options(api_request)
    sides = [query_side(body)]
    top = integer_field(body, "top_n")
    if top is not None and top < 1:
        raise InputError("'top_n' must be at least 1", param="top_n")
    if (body.get("documents") is None) == (body.get("vectors") is None):
        raise InputError("give the candidates as 'documents' or as 'vectors'", param="documents")
    check_count = api_request.check_count
    if body.get("vectors") is None:
        sides.append(picture_side(body, "documents", check_count=check_count, accepts_single=False))
    else:
        if not isinstance(body["vectors"], list):
            raise _no_list()
        check_count(len(body["vectors"]))
    query, *others = await read_sides(api_request, *sides)
    documents: SideInputs = others[0] if others else []
    results = []
    if others:
        results.append(
            await embed_side(api_request, options, documents, "documents", role="passage")
        )
    query_result = await embed_side(
        api_request, options, query, "query", is_list=False, role="query"
    )
    query_vector = query_result.vectors[0]
    if results:
        stored = results[0].converted[options.dtype]
        work = partial(_scores, stored, options.dtype, query_vector)
        scores = await compute(work, size=stored.size)
    else:
        work = partial(_stored_scores, body["vectors"], options.dtype, query_vector)
        scores = await compute(work, size=len(body["vectors"]) * len(query_vector))
    results.append(query_result)
    order = np.argsort(-scores, kind="stable")[:top].tolist()
    rows = [orjson.dumps({"index": index, "score": float(scores[index])}) for index in order]
    if boolean_field(body, "return_documents") is True and documents:
        encoded = await documents_json([documents[index] for index in order])
        rows = with_field(rows, "document", encoded)
    model = api_request.model_name() or query_result.model
    answer = {"object": "list", "model": model, "results": None}
    return await comparison_response(answer, {"results": listed(rows)}, results, query_result)


def _scores(stored: NDArray[Any], dtype: OutputDtype, query: FloatArray) -> NDArray[np.float64]:
    """Return the cosine of each stored vector with the query's."""
    scores: NDArray[np.float64] = as_unit_vectors(stored, dtype) @ query.astype(np.float64)
    return scores


def _stored_scores(value: object, dtype: OutputDtype, query: FloatArray) -> NDArray[np.float64]:
    """Read stored vectors, and return the cosine of each with the query's.

    Raises:
        InputError: A vector does not have the dtype and dimensions; names it.
    """
    return _scores(parse_stored(value, dtype, len(query)), dtype, query)


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
        raise _no_list()
    width = dimensions // dtype.values_per_item
    return np.stack([_stored_vector(item, index, dtype, width) for index, item in enumerate(value)])


def _no_list() -> InputError:
    return InputError("'vectors' must be a list of vectors", param="vectors", code="invalid_type")


def _stored_vector(item: object, index: int, dtype: OutputDtype, width: int) -> NDArray[Any]:
    wrong = invalid_item(
        "vectors", index, f"must hold {width} values of {dtype} (a list, or base64)"
    )
    try:
        if isinstance(item, str):
            vector = np.frombuffer(base64.b64decode(item, validate=True), dtype.storage_dtype)
        elif isinstance(item, list) and len(item) == width and set(map(type, item)) <= NUMBERS:
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
