"""The Jina dialect of `/v1/embeddings`: tasks, late chunking, token vectors.

Source: Jina's documentation of its embeddings API. What haystack's, chroma's and litellm's adapters send and need is in
docs/wire-behaviour.md, "Jina".
"""

from typing import Any, Final

import orjson
from fastapi import Response

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import (
    EMBEDDING_TYPES,
    PROMPT_ROLES,
    Body,
    boolean_field,
    integer_field,
    invalid_item,
    text_field,
    texts_field,
    truncation_field,
    unsupported_image,
)
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.vector_json import rows_json
from nestvec.engine.types import EmbedCall, EmbedResult, OutputKind
from nestvec.errors import InputError

FIELDS: Final = frozenset(
    {
        *("model", "input", "task", "dimensions", "late_chunking", "truncate", "normalized"),
        *("embedding_type", "encoding_type", "encoding_format", "return_multivector", "user"),
    }
)
TASKS: Final = (
    *("retrieval.query", "retrieval.passage", "nl2code.query", "nl2code.passage"),
    *("text-matching", "classification", "separation"),
)
# Clients spell the field in three ways; the first one that is there counts.
TYPE_FIELDS: Final = ("embedding_type", "encoding_type", "encoding_format")


async def embeddings(api_request: ApiRequest) -> Response:
    """Embed texts; the vectors come in input order."""
    body = api_request.body
    api_request.check_fields(FIELDS)
    api_request.find_model()
    types = _types(body)
    texts, is_list = _texts(api_request)
    is_late = boolean_field(body, "late_chunking") is True
    is_multivector = boolean_field(body, "return_multivector") is True
    if is_late and is_multivector:
        raise InputError(
            "'late_chunking' and 'return_multivector' exclude each other", param="late_chunking"
        )
    call = EmbedCall(
        inputs=texts,
        model=api_request.model_name(),
        dimensions=integer_field(body, "dimensions"),
        normalize=boolean_field(body, "normalized"),
        truncate=truncation_field(body),
        prompt_role=_task(body),
        adapter=text_field(body, "task"),
        output_dtypes=tuple(dict.fromkeys(EMBEDDING_TYPES[word][0] for word in types)),
        chunks=(len(texts),) if is_late else (),
        kind=OutputKind.TOKENS if is_multivector else OutputKind.DENSE,
    )
    result = await embed(api_request, call, is_list=is_list)
    values = await _values(result, types, is_multivector=is_multivector)
    name = b"embeddings" if is_multivector else b"embedding"
    items = [
        b'{"object":"embedding","index":%d,"%s":%s}' % (index, name, value)
        for index, value in enumerate(values)
    ]
    tokens = sum(result.input_tokens)
    content = b'{"object":"list","model":%s,"data":[%s],"usage":%s}' % (
        orjson.dumps(api_request.model_name() or result.model),
        b",".join(items),
        orjson.dumps({"total_tokens": tokens, "prompt_tokens": tokens}),
    )
    return Response(content, headers=result_headers(result, call), media_type="application/json")


async def _values(result: EmbedResult, types: list[str], *, is_multivector: bool) -> list[bytes]:
    """Return each input's vectors as JSON, or as an object by type where several types were asked for."""
    by_type = []
    for word in types:
        dtype, as_base64 = EMBEDDING_TYPES[word]
        vectors = result.converted[dtype]
        rows = result.by_input(vectors) if is_multivector else vectors
        by_type.append(await rows_json(rows, as_base64=as_base64))
    if len(types) == 1:
        return by_type[0]
    return [
        b"{%s}" % b",".join(b'"%s":%s' % (t.encode(), v) for t, v in zip(types, row, strict=True))
        for row in zip(*by_type, strict=True)
    ]


def _types(body: Body) -> list[str]:
    """Read the types that are wanted, each once; float by default.

    Raises:
        InputError: A type is unknown.
    """
    for name in TYPE_FIELDS:
        value = body.get(name)
        if value is None:
            continue
        words = value if isinstance(value, list) else [value]
        if not words or not all(
            isinstance(word, str) and word in EMBEDDING_TYPES for word in words
        ):
            raise InputError(
                f"'{name}' must be one or several of {', '.join(EMBEDDING_TYPES)}", param=name
            )
        return list(dict.fromkeys(words))
    return ["float"]


def _task(body: Body) -> str | None:
    """Read the task as the role that it stands for; None where there is none.

    Raises:
        InputError: The task is none of Jina's.
    """
    task = text_field(body, "task")
    if task is None:
        return None
    if task not in TASKS:
        raise InputError(f"'task' must be one of {', '.join(TASKS)}", param="task")
    return PROMPT_ROLES[task]


def _texts(api_request: ApiRequest) -> tuple[list[str], bool]:
    """Read the texts, plain or as objects.

    Returns:
        The texts, and whether they came as a list.

    Raises:
        InputError: `input` holds something else; names the item at fault.
    """
    items = api_request.body.get("input")
    if not isinstance(items, list) or not any(isinstance(item, dict) for item in items):
        return texts_field(api_request.body, "input", check_count=api_request.check_count)
    api_request.check_count(len(items))
    return [_text(item, index) for index, item in enumerate(items)], True


def _text(item: Any, index: int) -> str:  # noqa: ANN401 - JSON is of any type
    if isinstance(item, dict) and "text" not in item and ("image" in item or "url" in item):
        raise unsupported_image("input", index)
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise invalid_item("input", index, "must be a string, or an object with 'text'")
    return text
