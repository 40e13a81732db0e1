"""Reranking for the Cohere, Jina, Voyage, vLLM and infinity clients: one answer that each of them understands.

`results` is Cohere's and Jina's, `data` Voyage's; both together were tried with their clients. Documents are scored by
the cross-encoder served, by a late-interaction model's token vectors, else by the cosine of query and document, as in
vLLM; a header says which.
"""

import uuid
from typing import Any, Final

import numpy as np
import orjson
from fastapi import Response

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.encoded_picture import EncodedInput
from nestvec.api.requests.fields import (
    Body,
    boolean_field,
    integer_field,
    invalid_item,
    option,
    text_field,
    truncation_field,
)
from nestvec.api.requests.json_parts import (
    join_parts,
    listed,
    object_parts,
    with_field,
)
from nestvec.api.requests.pictures.parts import names_picture, read_object, with_picture
from nestvec.api.requests.pictures.sides import (
    PictureSide,
    documents_json,
    has_pictures,
    query_side,
    read_lone,
    read_sides,
)
from nestvec.api.scoring.relevance import relevance_scorer, score_headers
from nestvec.engine.outputs.relevance import LEXICAL_WEIGHT, Fusion, TextSide
from nestvec.engine.types import OutputKind, Truncation
from nestvec.errors import EmptyInputError, InputError

DEFAULT_FIELDS: Final = ["text"]
MAX_RANK_FIELDS: Final = 64
SHOWN_FIELDS: Final = ("image", "image_url", "image_base64")
# Of reciprocal ranks, where a request does not say.
EQUAL_SHARE: Final = 0.5
FIELDS: Final = frozenset(
    {
        *("model", "query", "documents", "top_n", "top_k", "truncation", "truncate"),
        *("return_documents", "max_tokens_per_doc", "rank_fields", "priority", "user"),
        *("instruction", "lexical_weight", "fusion"),
    }
)


async def rerank_cohere(api_request: ApiRequest) -> Response:
    """Rerank for Cohere v2: documents come back only when asked for."""
    return await _rerank(api_request, returns_documents=False)


async def rerank_jina(api_request: ApiRequest) -> Response:
    """Rerank for Jina, vLLM and Cohere v1: documents come back unless the request says otherwise."""
    return await _rerank(api_request, returns_documents=True)


async def rerank_voyage(api_request: ApiRequest) -> Response:
    """Rerank for Voyage: as for Cohere v2, with `top_k` for `top_n`."""
    return await _rerank(api_request, returns_documents=False)


async def _rerank(api_request: ApiRequest, *, returns_documents: bool) -> Response:
    body = api_request.body
    api_request.check_fields(FIELDS)
    model = await api_request.acquire_model(OutputKind.LABELS)
    asked = query_side(body)
    candidates = _documents(api_request, takes_pictures=model.spec.pictures is not None)
    query, documents = await read_sides(api_request, asked, candidates)
    if has_pictures(query, documents) and not api_request.model_name():
        # Re-rankers come first where no model is named, and read texts only.
        model = await api_request.acquire_model(OutputKind.DENSE)
    top = _top(body)
    with_documents = boolean_field(body, "return_documents")
    instruction = text_field(body, "instruction")
    fusion = _fusion(body)
    relevance = await relevance_scorer(api_request, model).scores(
        TextSide(query, "query", "query", is_list=False, instruction=instruction),
        TextSide(documents, "documents", "passage", max_tokens=_max_tokens(body)),
        _truncation(body),
        lexical_weight=_lexical_weight(body, fusion),
        fusion=fusion,
    )
    scores = relevance.values
    order = np.argsort(-scores, kind="stable")[:top].tolist()
    rows = [
        orjson.dumps({"index": index, "relevance_score": float(scores[index])}) for index in order
    ]
    if returns_documents if with_documents is None else with_documents:
        texts = await documents_json([documents[index] for index in order])
        rows = with_field(rows, "document", [b'{"text":%s}' % text for text in texts])
    content = {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": api_request.model_name() or model.spec.name,
        "results": None,
        "data": None,
        "usage": {"total_tokens": relevance.tokens, "prompt_tokens": relevance.tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1, "input_tokens": relevance.tokens},
        },
    }
    results = listed(rows)
    body_parts = object_parts(content, {"results": results, "data": results})
    return Response(
        await join_parts(body_parts),
        headers=score_headers(relevance),
        media_type="application/json",
    )


def _truncation(body: Body) -> Truncation:
    """Read what is done with long documents; rerankers cut them unless told otherwise."""
    truncation = truncation_field(body, "truncation")
    return truncation or truncation_field(body) or Truncation.END


def _max_tokens(body: Body) -> int | None:
    """Read Cohere's limit on the tokens of each document.

    Raises:
        InputError: The field holds no positive integer.
    """
    max_tokens = integer_field(body, "max_tokens_per_doc")
    if max_tokens is not None and max_tokens < 1:
        raise InputError("'max_tokens_per_doc' must be at least 1", param="max_tokens_per_doc")
    return max_tokens


def _fusion(body: Body) -> Fusion:
    """Read how terms and cosines make one score.

    Raises:
        InputError: The field holds none of its words.
    """
    value = option(body, "fusion")
    if value is None:
        return Fusion.WEIGHTED
    if value not in list(Fusion):
        raise InputError(f"'fusion' must be one of: {', '.join(Fusion)}", param="fusion")
    return Fusion(value)


def _lexical_weight(body: Body, fusion: Fusion) -> float:
    """Read the share of terms in the scores of a model that gives vectors; 0 for cosines alone.

    Raises:
        InputError: The field holds no number from 0 to 1.
    """
    value = option(body, LEXICAL_WEIGHT)
    if value is None:
        return EQUAL_SHARE if fusion is Fusion.RRF else 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"'{LEXICAL_WEIGHT}' must be a number from 0 to 1", param=LEXICAL_WEIGHT)
    return float(value)


def _top(body: Body) -> int | None:
    """Read how many results are wanted; 0 means all, as in vLLM.

    Raises:
        InputError: The number is negative.
    """
    for name in ("top_n", "top_k"):
        top = integer_field(body, name)
        if top is not None:
            if top < 0:
                raise InputError(f"'{name}' must not be negative", param=name)
            return top or None
    return None


def _documents(api_request: ApiRequest, *, takes_pictures: bool) -> PictureSide:
    """Read the documents: texts, plain or as objects, and pictures.

    Args:
        api_request: The request.
        takes_pictures: Whether a picture beside a text is more than a field that nobody reads.

    Raises:
        InputError: The field holds something else; names the item.
    """
    documents = api_request.body.get("documents")
    if isinstance(documents, dict):
        # As vLLM's requests have a document of parts.
        return PictureSide([read_lone(documents, "documents")], "documents", is_list=False)
    if not isinstance(documents, list):
        raise InputError("'documents' must be a list of strings", param="documents")
    if not documents:
        raise EmptyInputError("'documents' must not be an empty list", param="documents")
    # The query is an input too.
    api_request.state.service.check_count(len(documents) + 1)
    fields = _rank_fields(api_request.body)
    read = [_document(item, index, fields) for index, item in enumerate(documents)]
    if takes_pictures:
        read = [
            _shown(text, item, index)
            for index, (text, item) in enumerate(zip(read, documents, strict=True))
        ]
    return PictureSide(read, "documents")


def _shown(document: str | EncodedInput, item: object, index: int) -> str | EncodedInput:
    """Return a document with the picture that stands beside its text: one input of both.

    `url` is none: it is where documents of search engines come from.
    """
    if not isinstance(document, str) or not isinstance(item, dict):
        return document
    shown = {name: item[name] for name in SHOWN_FIELDS if item.get(name) is not None}
    return with_picture(document, shown, "documents", index) if shown else document


def _rank_fields(body: Body) -> list[str]:
    """Read which fields of an object are ranked (Cohere v1); each becomes a line of the text.

    Raises:
        InputError: The field holds no list of strings.
    """
    names = option(body, "rank_fields")
    if names is None:
        return DEFAULT_FIELDS
    if not isinstance(names, list) or not names or set(map(type, names)) != {str}:
        raise InputError("'rank_fields' must be a list of strings", param="rank_fields")
    # Each field is read of each document.
    if len(names) > MAX_RANK_FIELDS:
        raise InputError(
            f"'rank_fields' holds {len(names)} names, max {MAX_RANK_FIELDS}", param="rank_fields"
        )
    return list(dict.fromkeys(names))


def _document(item: Any, index: int, fields: list[str]) -> str | EncodedInput:  # noqa: ANN401 - JSON is of any type
    if isinstance(item, str):
        return item
    parts = [item.get(name) for name in fields] if isinstance(item, dict) else [None]
    texts = [part for part in parts if isinstance(part, str)]
    has_text = not isinstance(item, dict) or item.get("text") is not None
    if len(texts) != len(parts) and not has_text and names_picture(item):
        return read_object(item, "documents", index)
    if len(texts) != len(parts):
        named = "'text'" if fields == DEFAULT_FIELDS else "the fields of 'rank_fields'"
        rule = f"must be a string, or an object with {named}"
        raise invalid_item("documents", index, rule)
    return "\n".join(texts)
