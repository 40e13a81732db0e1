"""Reranking for the Cohere, Jina, Voyage, vLLM and infinity clients: one answer that each of them understands.

`results` is Cohere's and Jina's, `data` Voyage's; both together were tried with their clients (api-contract 0.3).
By the cross-encoder served, by a late-interaction model's token vectors, else by cosine of query and document, as in
vLLM; a header says which.
"""

import uuid
from typing import Any, Final

import numpy as np
import orjson
from fastapi import Response

from nestvec.api.requests.api_request import Asked
from nestvec.api.requests.fields import (
    Body,
    boolean_field,
    integer_field,
    text_field,
    truncation_field,
    wrong_item,
)
from nestvec.api.scoring.relevance import Texts, score
from nestvec.engine.types import OutputKind, Truncation
from nestvec.errors import EmptyInputError, InputError

FIELDS: Final = frozenset(
    {
        *("model", "query", "documents", "top_n", "top_k", "truncation", "truncate"),
        *("return_documents", "max_tokens_per_doc", "rank_fields", "priority", "user"),
    }
)


async def rerank_cohere(asked: Asked) -> Response:
    """Cohere v2: documents come back only when asked for."""
    return await _rerank(asked, returns_documents=False)


async def rerank_jina(asked: Asked) -> Response:
    """Jina, vLLM, Cohere v1: documents come back unless told otherwise."""
    return await _rerank(asked, returns_documents=True)


async def rerank_voyage(asked: Asked) -> Response:
    """Voyage: as Cohere v2, `top_k` for `top_n`."""
    return await _rerank(asked, returns_documents=False)


async def _rerank(asked: Asked, *, returns_documents: bool) -> Response:
    body = asked.body
    asked.check_fields(FIELDS)
    model = await asked.model(OutputKind.LABELS)
    query = text_field(body, "query")
    if query is None:
        raise InputError("you must provide 'query'", param="query")
    documents = _documents(asked)
    top = _top(body)
    with_documents = boolean_field(body, "return_documents")
    found = await score(
        asked,
        model,
        Texts([query], "query", "query", is_list=False),
        Texts(documents, "documents", "passage", max_tokens=_max_tokens(body)),
        _truncation(body),
    )
    scores = found.values
    order = np.argsort(-scores, kind="stable")[:top].tolist()
    results: list[dict[str, Any]] = [
        {"index": place, "relevance_score": float(scores[place])} for place in order
    ]
    if returns_documents if with_documents is None else with_documents:
        for row in results:
            row["document"] = {"text": documents[row["index"]]}
    content = {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": asked.model_name() or model.spec.name,
        "results": results,
        "data": results,
        "usage": {"total_tokens": found.tokens, "prompt_tokens": found.tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1, "input_tokens": found.tokens},
        },
    }
    return Response(orjson.dumps(content), headers=found.headers, media_type="application/json")


def _truncation(body: Body) -> Truncation:
    """Rerankers cut long documents unless told not to."""
    found = truncation_field(body, "truncation")
    return found or truncation_field(body) or Truncation.END


def _max_tokens(body: Body) -> int | None:
    """Cohere's cap on each document.

    Raises:
        InputError: Not a positive integer.
    """
    most = integer_field(body, "max_tokens_per_doc")
    if most is not None and most < 1:
        raise InputError("'max_tokens_per_doc' must be at least 1", param="max_tokens_per_doc")
    return most


def _top(body: Body) -> int | None:
    """How many results are wanted; 0 is all (vLLM).

    Raises:
        InputError: A negative number.
    """
    for name in ("top_n", "top_k"):
        top = integer_field(body, name)
        if top is not None:
            if top < 0:
                raise InputError(f"'{name}' must not be negative", param=name)
            return top or None
    return None


def _documents(asked: Asked) -> list[str]:
    """Documents, plain or as objects.

    Raises:
        InputError: Something else; names the item.
    """
    given = asked.body.get("documents")
    if not isinstance(given, list):
        raise InputError("'documents' must be a list of strings", param="documents")
    if not given:
        raise EmptyInputError("'documents' must not be an empty list", param="documents")
    # The query takes a place too.
    asked.state.service.check_count(len(given) + 1)
    fields = _rank_fields(asked.body)
    return [_document(item, index, fields) for index, item in enumerate(given)]


def _rank_fields(body: Body) -> list[str]:
    """Which fields of an object count (Cohere v1), one line each."""
    given = body.get("rank_fields")
    if given is None:
        return ["text"]
    if not isinstance(given, list) or not given or not all(isinstance(n, str) for n in given):
        raise InputError("'rank_fields' must be a list of strings", param="rank_fields")
    return given


def _document(item: Any, index: int, fields: list[str]) -> str:  # noqa: ANN401 - JSON is of any type
    if isinstance(item, str):
        return item
    parts = [item.get(name) for name in fields] if isinstance(item, dict) else [None]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) != len(parts):
        rule = f"must be a string, or an object with {', '.join(fields)}"
        raise wrong_item("documents", index, rule)
    return "\n".join(texts)
