"""`POST /v1/rescore`: the second stage of a search, whose candidates a cheap first one has found.

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
from nestvec.api.requests.api_request import open_as
from nestvec.api.requests.fields import (
    boolean_field,
    integer_field,
    text_field,
    texts_field,
    wrong_item,
)
from nestvec.api.schemas.similarity import RESCORE_DOC
from nestvec.api.scoring.vector_comparison import (
    OPTIONS,
    answered,
    comparable,
    parse_options,
    vectors_of,
)
from nestvec.engine.dtypes import OutputDtype
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

FIELDS: Final = OPTIONS | {"query", "documents", "vectors", "top_n", "return_documents", "user"}


@router.post("/v1/rescore", **RESCORE_DOC)
async def rescore(request: Request) -> Response:
    """Order candidates of a first search by a float query against better vectors of them, the best first."""
    asked = await open_as(request, OPENAI)
    body = asked.body
    asked.check_fields(FIELDS)
    asked.find_model()
    options = parse_options(asked)
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
            body, "documents", check_count=asked.check_count, takes_one=False
        )
        results.append(await vectors_of(asked, options, documents, "documents", role="passage"))
    else:
        asked.check_count(len(body["vectors"]) if isinstance(body["vectors"], list) else 0)
    asking = await vectors_of(asked, options, [query], "query", is_list=False, role="query")
    stored = (
        results[0].converted[options.dtype]
        if results
        else parse_stored(body["vectors"], options.dtype, asking.vectors.shape[1])
    )
    results.append(asking)
    scores = comparable(stored, options.dtype) @ asking.vectors[0].astype(np.float64)
    order = np.argsort(-scores, kind="stable")[:top].tolist()
    returns = boolean_field(body, "return_documents") is True and bool(documents)
    rows = [
        {"index": place, "score": float(scores[place])}
        | ({"document": documents[place]} if returns else {})
        for place in order
    ]
    answer = {"object": "list", "model": asked.model_name() or asking.model, "results": rows}
    return answered(answer, results, asking)


def parse_stored(given: object, dtype: OutputDtype, dimensions: int) -> NDArray[Any]:
    """Vectors as the caller's store has them: lists of numbers, or base64.

    Raises:
        InputError: One is not of the dtype and dimensions; names it.
    """
    if not isinstance(given, list) or not given:
        raise InputError(
            "'vectors' must be a list of vectors", param="vectors", code="invalid_type"
        )
    width = dimensions // dtype.values_per_item
    return np.stack([_one_stored(one, index, dtype, width) for index, one in enumerate(given)])


def _one_stored(given: object, index: int, dtype: OutputDtype, width: int) -> NDArray[Any]:
    wrong = wrong_item("vectors", index, f"must hold {width} values of {dtype} (a list, or base64)")
    try:
        # Codes that are no integers, or out of range, would become others: numpy casts them silently.
        if isinstance(given, str):
            found = np.frombuffer(base64.b64decode(given, validate=True), dtype.stored)
        elif isinstance(given, list) and not any(isinstance(v, bool | str | list) for v in given):
            wide = np.asarray(given, np.float64)
            found = wide.astype(dtype.stored)
            if dtype.is_quantised and not np.array_equal(found, wide):
                raise wrong
        else:
            raise wrong
    except (ValueError, TypeError, OverflowError, binascii.Error):
        raise wrong from None
    if found.shape != (width,) or not np.isfinite(found.astype(np.float64)).all():
        raise wrong
    return found
