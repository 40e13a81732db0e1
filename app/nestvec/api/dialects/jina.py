"""The Jina dialect of `/v1/embeddings`: tasks, late chunking, token vectors.

Source: Jina's documentation of its embeddings API. What haystack's, chroma's and litellm's adapters send and need is in
docs/wire-behaviour.md, "Jina".
"""

import dataclasses
import itertools
from typing import Any, Final

from fastapi import Response

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.encoded_picture import EncodedInput
from nestvec.api.requests.fields import (
    EMBEDDING_TYPES,
    PROMPT_ROLES,
    Body,
    Inputs,
    boolean_field,
    integer_field,
    invalid_item,
    option,
    text_field,
    texts_field,
    truncation_field,
    type_word,
)
from nestvec.api.requests.headers import deadline_s, result_headers
from nestvec.api.requests.json_parts import join_parts, object_parts
from nestvec.api.requests.pictures.parts import read_object
from nestvec.api.requests.pictures.reading import read_inputs
from nestvec.api.requests.records import write_records
from nestvec.api.requests.token_offsets import wants_offsets, with_offsets
from nestvec.api.requests.vector_json import rows_json
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.errors import InputError

FIELDS: Final = frozenset(
    {
        *("model", "input", "task", "dimensions", "late_chunking", "truncate", "normalized"),
        *("embedding_type", "encoding_type", "encoding_format", "return_multivector", "user"),
        "return_offsets",
    }
)
TASKS: Final = (
    *("retrieval.query", "retrieval.passage", "nl2code.query", "nl2code.passage"),
    *("text-matching", "classification", "separation"),
)
# So many are looked at: more than there are, since a type may be named twice.
MAX_TYPES: Final = 64
# Clients spell the field in three ways; the first one that is there counts.
TYPE_FIELDS: Final = ("embedding_type", "encoding_type", "encoding_format")


async def embeddings(api_request: ApiRequest) -> Response:
    """Embed texts; the vectors come in input order."""
    body = api_request.body
    api_request.check_fields(FIELDS)
    slot = api_request.find_model()
    types = _types(body) or [type_word(api_request.pinned_dtype())]
    model, check_count = api_request.model_name(), api_request.check_count
    value = await write_records(body.get("input"), slot, model, check_count=check_count)
    items, is_list = _items(api_request, value)
    read = await read_inputs(api_request, items, is_list=is_list)
    is_late = boolean_field(body, "late_chunking") is True
    is_multivector = boolean_field(body, "return_multivector") is True
    if is_late and is_multivector:
        raise InputError(
            "'late_chunking' and 'return_multivector' exclude each other", param="late_chunking"
        )
    call = EmbedCall(
        inputs=read.inputs,
        model=model,
        dimensions=integer_field(body, "dimensions"),
        normalize=boolean_field(body, "normalized"),
        truncate=truncation_field(body),
        prompt_role=_task(body),
        adapter=text_field(body, "task"),
        output_dtypes=tuple(dict.fromkeys(EMBEDDING_TYPES[word][0] for word in types)),
        chunks=(len(read.inputs),) if is_late else (),
        kind=OutputKind.TOKENS if is_multivector else OutputKind.DENSE,
    )
    call = dataclasses.replace(
        call, truncate=call.truncate or api_request.dialect.default_truncation
    )
    has_offsets = wants_offsets(body, call)
    result = await embed(api_request, call, is_list=is_list)
    values = await _values(result, types, is_multivector=is_multivector)
    if has_offsets:
        state = api_request.state
        latest_s = deadline_s(api_request.request, state)
        rows = await with_offsets(state.service, call, result, values, latest_s=latest_s)
        values = [[row] for row in rows]
    name = b"embeddings" if is_multivector else b"embedding"
    parts: list[bytes] = []
    for index, value in enumerate(values):
        separator = b"," if index else b""
        start = b'%s{"object":"embedding","index":%d,"%s":' % (separator, index, name)
        parts += (start, *value, b"}")
    tokens = sum(result.input_tokens)
    usage = {"total_tokens": tokens, "prompt_tokens": tokens}
    if result.unknown_tokens:
        usage["unknown_tokens"] = sum(result.unknown_tokens)
    fields = {
        "object": "list",
        "model": api_request.model_name() or result.model,
        "data": None,
        "usage": usage,
    }
    content = await join_parts(object_parts(fields, {"data": [b"[", *parts, b"]"]}))
    return Response(content, headers=result_headers(result, call), media_type="application/json")


async def _values(
    result: EmbedResult, types: list[str], *, is_multivector: bool
) -> list[list[bytes]]:
    """Return the parts of each input's vectors as JSON, or of an object by type where several types were asked for."""
    by_type = []
    for word in types:
        dtype, as_base64 = EMBEDDING_TYPES[word]
        vectors = result.converted[dtype]
        rows = result.by_input(vectors) if is_multivector else vectors
        by_type.append(await rows_json(rows, as_base64=as_base64))
    if len(types) == 1:
        return [[row] for row in by_type[0]]
    names = [b',"%s":' % word.encode() for word in types]
    names[0] = b"{" + names[0][1:]
    return [
        [*itertools.chain.from_iterable(zip(names, row, strict=True)), b"}"]
        for row in zip(*by_type, strict=True)
    ]


def _types(body: Body) -> list[str]:
    """Read the types that are wanted, each once; none where the caller names none.

    Raises:
        InputError: A type is unknown.
    """
    for name in TYPE_FIELDS:
        value = option(body, name)
        if value is None:
            continue
        words = value if isinstance(value, list) else [value]
        if not 1 <= len(words) <= MAX_TYPES or not all(
            isinstance(word, str) and word in EMBEDDING_TYPES for word in words
        ):
            raise InputError(
                f"'{name}' must be one or several of {', '.join(EMBEDDING_TYPES)}", param=name
            )
        return list(dict.fromkeys(words))
    return []


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


def _items(api_request: ApiRequest, value: object) -> tuple[Inputs, bool]:
    """Read the texts, plain or as objects, and the pictures.

    Args:
        api_request: Whose bounds count.
        value: The body's `input`, in which a template may have written objects as texts.

    Returns:
        The texts and pictures, and whether they came as a list.

    Raises:
        InputError: `input` holds something else; names the item at fault.
    """
    if not isinstance(value, list) or dict not in set(map(type, value)):
        return texts_field({"input": value}, "input", check_count=api_request.check_count)
    api_request.check_count(len(value))
    return [_item(item, index) for index, item in enumerate(value)], True


def _item(item: Any, index: int) -> str | EncodedInput:  # noqa: ANN401 - JSON is of any type
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        raise invalid_item("input", index, "must be a string, or an object with 'text' or 'image'")
    return read_object(item, "input", index)
