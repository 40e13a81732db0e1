"""The Cohere dialect: embed v1 and v2, several dtypes at once.

Source: Cohere's API, and what its Python and Node clients, langchain's and litellm's send and need (api-contract 4.1).
"""

import uuid
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import COHERE
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import Asked, embed, open_as, result_headers
from nestvec.api.requests.encoding import rows_json
from nestvec.api.requests.fields import (
    TYPE_WORDS,
    Body,
    integer_field,
    no_images,
    role_field,
    texts_field,
    truncation_field,
    wrong_item,
)
from nestvec.api.schemas.cohere import EMBED_V1_DOC, EMBED_V2_DOC
from nestvec.engine.types import EmbedCall, EmbedResult
from nestvec.errors import EmptyInputError, InputError

router = APIRouter(route_class=RawRoute, tags=[COHERE.name])

FIELDS: Final = frozenset(
    {
        *("model", "input_type", "texts", "images", "inputs", "embedding_types"),
        *("output_dimension", "max_tokens", "truncate", "priority"),
    }
)
ONE_SOURCE: Final = "exactly one of 'texts', 'images' and 'inputs' must be given"


@router.post("/v2/embed", **EMBED_V2_DOC)
async def embed_v2(request: Request) -> Response:
    """Embed texts in one or several types at once."""
    asked = await open_as(request, COHERE)
    return await _embed(asked, _types(asked.body) or ["float"], version="2")


@router.post("/v1/embed", **EMBED_V1_DOC)
async def embed_v1(request: Request) -> Response:
    """Embed texts; without `embedding_types` the vectors come as a bare list."""
    asked = await open_as(request, COHERE)
    return await _embed(asked, _types(asked.body), version="1")


async def _embed(asked: Asked, types: list[str], *, version: str) -> Response:
    """Answer; no types give version 1's bare list."""
    body = asked.body
    asked.check_fields(FIELDS)
    asked.find_model()
    texts, source = _texts(asked)
    wanted = types or ["float"]
    call = EmbedCall(
        inputs=texts,
        model=asked.model_name(),
        dimensions=integer_field(body, "output_dimension"),
        truncate=truncation_field(body),
        max_tokens=integer_field(body, "max_tokens"),
        prompt_role=role_field(body, COHERE.role_fields),
        output_dtypes=tuple(dict.fromkeys(TYPE_WORDS[word][0] for word in wanted)),
    )
    result = await embed(asked, call, source=source)
    lists = await _lists(result, wanted)
    meta = {
        "api_version": {"version": version},
        "billed_units": {"input_tokens": sum(result.input_tokens)},
    }
    by_type = b",".join(b'"%s":%s' % (w.encode(), v) for w, v in zip(wanted, lists, strict=True))
    content = (
        b'{"id":"%s","embeddings":%s,"texts":%s,"meta":%s,"response_type":"embeddings_%s"}'
    ) % (
        str(uuid.uuid4()).encode(),
        b"{%s}" % by_type if types else lists[0],
        orjson.dumps(texts),
        orjson.dumps(meta),
        b"by_type" if types else b"floats",
    )
    return Response(content, headers=result_headers(result, call), media_type="application/json")


async def _lists(result: EmbedResult, types: list[str]) -> list[bytes]:
    """All vectors, as a JSON list for each type."""
    lists = []
    for word in types:
        dtype, as_base64 = TYPE_WORDS[word]
        rows = await rows_json(result.converted[dtype], as_base64=as_base64)
        lists.append(b"[%s]" % b",".join(rows))
    return lists


def _types(body: Body) -> list[str]:
    """Which types are wanted, each once; none where the caller names none.

    Raises:
        InputError: No such type.
    """
    value = body.get("embedding_types")
    if value is None:
        return []
    if not isinstance(value, list) or not all(
        isinstance(w, str) and w in TYPE_WORDS for w in value
    ):
        raise InputError(
            f"'embedding_types' must be a list of {', '.join(TYPE_WORDS)}", param="embedding_types"
        )
    return list(dict.fromkeys(value))


def _texts(asked: Asked) -> tuple[list[str], str]:
    """From `texts`, or the text parts of `inputs`.

    Returns:
        The texts, and the field they came from.

    Raises:
        InputError: None of them, several, or something else in them.
    """
    body = asked.body
    given = [name for name in ("texts", "images", "inputs") if body.get(name) is not None]
    if len(given) != 1:
        raise InputError(ONE_SOURCE, param=given[1] if given else "texts")
    if given == ["images"] or body.get("input_type") == "image":
        raise no_images("images")
    if given == ["texts"]:
        texts, _ = texts_field(body, "texts", check_count=asked.check_count, takes_one=False)
        return texts, "texts"
    inputs = body["inputs"]
    if not isinstance(inputs, list):
        raise InputError("'inputs' must be a list", param="inputs", code="invalid_type")
    if not inputs:
        raise EmptyInputError("'inputs' must not be an empty list", param="inputs")
    asked.check_count(len(inputs))
    return [_content(item, index) for index, item in enumerate(inputs)], "inputs"


def _content(item: Any, index: int) -> str:  # noqa: ANN401 - JSON is of any type
    """The text parts of one of `inputs`, a line each."""
    parts = item.get("content") if isinstance(item, dict) else None
    if not isinstance(parts, list) or not parts:
        raise wrong_item("inputs", index, "must be an object with a list 'content'")
    texts = []
    for part in parts:
        if isinstance(part, dict) and part.get("type") == "image_url":
            raise no_images("inputs", index)
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise wrong_item("inputs", index, "must have parts of 'content' with a string 'text'")
        texts.append(text)
    return "\n".join(texts)
