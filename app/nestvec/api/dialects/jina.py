"""The Jina dialect of `/v1/embeddings`: tasks, late chunking, token vectors.

Source: Jina's embeddings API, and what haystack's, chroma's and litellm's adapters send and need (api-contract 4.4).
"""

from typing import Any, Final

import orjson
from fastapi import Response

from nestvec.api.requests.api_request import Asked, embed, result_headers
from nestvec.api.requests.encoding import rows_json
from nestvec.api.requests.fields import (
    ROLE_WORDS,
    TYPE_WORDS,
    Body,
    boolean_field,
    integer_field,
    no_images,
    text_field,
    texts_field,
    truncation_field,
    wrong_item,
)
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
# Spelled in three ways by clients in the field.
TYPE_FIELDS: Final = ("embedding_type", "encoding_type", "encoding_format")


async def embeddings(asked: Asked) -> Response:
    """Embed texts; vectors come in input order."""
    body = asked.body
    asked.check_fields(FIELDS)
    asked.find_model()
    types = _types(body)
    texts, is_list = _texts(asked)
    is_late = boolean_field(body, "late_chunking") is True
    is_multivector = boolean_field(body, "return_multivector") is True
    if is_late and is_multivector:
        raise InputError(
            "'late_chunking' and 'return_multivector' exclude each other", param="late_chunking"
        )
    call = EmbedCall(
        inputs=texts,
        model=asked.model_name(),
        dimensions=integer_field(body, "dimensions"),
        normalize=boolean_field(body, "normalized"),
        truncate=truncation_field(body),
        prompt_role=_task(body),
        adapter=text_field(body, "task"),
        output_dtypes=tuple(dict.fromkeys(TYPE_WORDS[word][0] for word in types)),
        chunks=(len(texts),) if is_late else (),
        kind=OutputKind.TOKENS if is_multivector else OutputKind.DENSE,
    )
    result = await embed(asked, call, is_list=is_list)
    values = await _values(result, types, is_multivector=is_multivector)
    name = b"embeddings" if is_multivector else b"embedding"
    items = [
        b'{"object":"embedding","index":%d,"%s":%s}' % (index, name, value)
        for index, value in enumerate(values)
    ]
    tokens = sum(result.input_tokens)
    content = b'{"object":"list","model":%s,"data":[%s],"usage":%s}' % (
        orjson.dumps(asked.model_name() or result.model),
        b",".join(items),
        orjson.dumps({"total_tokens": tokens, "prompt_tokens": tokens}),
    )
    return Response(content, headers=result_headers(result, call), media_type="application/json")


async def _values(result: EmbedResult, types: list[str], *, is_multivector: bool) -> list[bytes]:
    """Each input's vectors as JSON; an object by type where several were asked for."""
    by_type = []
    for word in types:
        dtype, as_base64 = TYPE_WORDS[word]
        vectors = result.converted[dtype]
        rows = result.by_input(vectors) if is_multivector else vectors
        by_type.append(await rows_json(rows, as_base64=as_base64))
    if len(types) == 1:
        return by_type[0]
    return [
        b"{%s}" % b",".join(b'"%s":%s' % (w.encode(), v) for w, v in zip(types, row, strict=True))
        for row in zip(*by_type, strict=True)
    ]


def _types(body: Body) -> list[str]:
    """Which types are wanted, each once.

    Raises:
        InputError: No such type.
    """
    for name in TYPE_FIELDS:
        value = body.get(name)
        if value is None:
            continue
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) and word in TYPE_WORDS for word in words):
            raise InputError(
                f"'{name}' must be one or several of {', '.join(TYPE_WORDS)}", param=name
            )
        return list(dict.fromkeys(words))
    return ["float"]


def _task(body: Body) -> str | None:
    task = text_field(body, "task")
    if task is None:
        return None
    if task not in TASKS:
        raise InputError(f"'task' must be one of {', '.join(TASKS)}", param="task")
    return ROLE_WORDS[task]


def _texts(asked: Asked) -> tuple[list[str], bool]:
    """Texts, plain or as objects.

    Raises:
        InputError: Something else; names the item.
    """
    given = asked.body.get("input")
    if not isinstance(given, list) or not any(isinstance(item, dict) for item in given):
        return texts_field(asked.body, "input", check_count=asked.check_count)
    asked.check_count(len(given))
    return [_text(item, index) for index, item in enumerate(given)], True


def _text(item: Any, index: int) -> str:  # noqa: ANN401 - JSON is of any type
    if isinstance(item, dict) and "text" not in item and ("image" in item or "url" in item):
        raise no_images("input", index)
    text = item.get("text") if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise wrong_item("input", index, "must be a string, or an object with 'text'")
    return text
