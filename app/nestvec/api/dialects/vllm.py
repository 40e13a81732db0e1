"""vLLM's own routes: pooling of any kind, labels, and scores of pairs.

Source: vLLM's pooling server; see docs/wire-behaviour.md, "vLLM and infinity". vLLM's fields of `/v1/embeddings` are in
`openai_body.py`.
"""

import dataclasses
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.dialects.openai_body import (
    FIELDS,
    parse_call,
    parse_encoding,
    parse_input,
    parse_truncation,
)
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import decode_tokens, embed
from nestvec.api.requests.fields import (
    Body,
    choice_field,
    integer_field,
    text_field,
    texts_field,
)
from nestvec.api.requests.headers import VOCABULARY_HEADER, result_headers
from nestvec.api.requests.json_parts import Turns, join_parts, listed, object_parts
from nestvec.api.requests.pictures.reading import read_inputs
from nestvec.api.requests.pictures.sides import has_pictures, picture_side, read_sides
from nestvec.api.requests.vector_json import VALUES_PER_SLICE, in_byte_order, rows_json
from nestvec.api.schemas.vllm import CLASSIFY_DOC, POOLING_DOC, SCORE_DOC
from nestvec.api.scoring.relevance import relevance_scorer, score_headers
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.adapters import model_words
from nestvec.engine.outputs.relevance import TextSide
from nestvec.engine.tokenization import check_token_limit
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.errors import InputError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

TASKS: Final = ("embed", "token_embed", "encode", "classify", "token_classify", "score", "plugin")
KINDS: Final = {
    "embed": OutputKind.DENSE,
    "encode": OutputKind.DENSE,
    "token_embed": OutputKind.TOKENS,
    "classify": OutputKind.LABELS,
    "score": OutputKind.LABELS,
}
# The four spellings of pairs: the two fields, and the roles of their texts where the fields name roles.
PAIRS: Final = (
    ("text_1", "text_2", None, None),
    ("queries", "documents", "query", "passage"),
    ("queries", "items", "query", "passage"),
    ("data_1", "data_2", None, None),
)
# What a call gives is `task` here.
POOLING_FIELDS: Final = FIELDS - {"output_types", "return_offsets"} | {"pool_factor"}
CLASSIFY_FIELDS: Final = frozenset(
    {
        *("model", "input", "truncate", "truncate_prompt_tokens", "truncation_side"),
        *("priority", "request_id", "user"),
    }
)
SCORE_FIELDS: Final = frozenset(
    {
        *(name for pair in PAIRS for name in pair[:2]),
        *("model", "truncate", "truncate_prompt_tokens", "truncation_side"),
        *("priority", "request_id", "user", "instruction"),
    }
)


@router.post("/pooling", **POOLING_DOC)
async def pooling(request: Request) -> Response:
    """Return vectors of inputs or of each of their tokens, or probabilities of labels."""
    api_request = await read_request(request, OPENAI)
    api_request.check_fields(POOLING_FIELDS)
    model = await api_request.acquire_model()
    task = choice_field(api_request.body, "task", TASKS) or default_task(model.spec)
    if KINDS.get(task) not in model.spec.kinds:
        raise UnsupportedError(
            f"task '{task}' is not available: {model.spec.name} is {model_words(model.spec)}",
            param="task",
        )
    encoding = parse_encoding(api_request.body, api_request.pinned_dtype())
    if encoding.form.startswith("bytes"):
        raise InputError(
            "'encoding_format' must be 'float' or 'base64' here", param="encoding_format"
        )
    name = api_request.model_name()
    slot = api_request.state.service.models.find(name)
    inputs, is_list = await parse_input(
        api_request.body, slot, name, check_count=api_request.check_count
    )
    vocabulary = request.headers.get(VOCABULARY_HEADER)
    decoded = await decode_tokens(api_request.state, inputs, vocabulary=vocabulary)
    read = await read_inputs(api_request, decoded, is_list=is_list)
    # `task` is vLLM's here; in `/v1/embeddings` it is Jina's.
    call = dataclasses.replace(
        parse_call({**api_request.body, "task": None}, read.inputs, encoding),
        kind=KINDS[task],
        pool_factor=_pool_factor(api_request.body),
        takes_views=False,
    )
    if call.kind is OutputKind.LABELS:
        call = dataclasses.replace(call, output_dtypes=(), dimensions=None)
    result = await embed(api_request, call, is_list=is_list)
    if call.kind is OutputKind.LABELS:
        values = probabilities(result.vectors, model.spec.activation).astype(np.float32)
        result = dataclasses.replace(result, converted={encoding.dtype: values})
    vectors = result.converted[encoding.dtype]
    if encoding.is_pinned and encoding.is_base64:
        vectors = vectors.astype(np.float32)
    vectors = in_byte_order(vectors, is_big_endian=encoding.is_big_endian)
    by_input = result.by_input(vectors) if call.kind is OutputKind.TOKENS else vectors
    rows = await rows_json(by_input, as_base64=encoding.is_base64)
    parts: list[bytes] = []
    for index, row in enumerate(rows):
        separator = b"," if index else b""
        parts += (b'%s{"index":%d,"object":"pooling","data":' % (separator, index), row, b"}")
    return await _list_response(
        "pool",
        api_request.model_name() or result.model,
        [b"[", *parts, b"]"],
        sum(result.input_tokens),
        result_headers(result, call),
    )


@router.post("/classify", **CLASSIFY_DOC)
async def classify(request: Request) -> Response:
    """Return the likeliest label of each text, and the probabilities of all labels."""
    api_request = await read_request(request, OPENAI)
    api_request.check_fields(CLASSIFY_FIELDS)
    model = await api_request.acquire_model(OutputKind.LABELS)
    truncate, max_tokens = parse_truncation(api_request.body)
    texts, is_list = texts_field(api_request.body, "input", check_count=api_request.check_count)
    call = EmbedCall(
        texts,
        model=api_request.model_name(),
        kind=OutputKind.LABELS,
        truncate=truncate,
        max_tokens=max_tokens,
        refuses_wider_limit=True,
    )
    result = await embed(api_request, call, is_list=is_list)
    probs = probabilities(result.vectors, model.spec.activation)
    turns = Turns(VALUES_PER_SLICE)
    rows = []
    for index, row in enumerate(probs):
        label = model.spec.labels[int(row.argmax())]
        item = {"index": index, "label": label, "probs": row.tolist(), "num_classes": len(row)}
        rows.append(orjson.dumps(item))
        await turns.spend(len(row))
    return await _list_response(
        "classify",
        api_request.model_name() or result.model,
        listed(rows),
        sum(result.input_tokens),
        result_headers(result, call),
    )


def _pool_factor(body: Body) -> int | None:
    """Read how many token vectors are merged into one; None: as the model itself does.

    Raises:
        InputError: `pool_factor` is no positive integer.
    """
    factor = integer_field(body, "pool_factor")
    if factor is not None and factor < 1:
        raise InputError("'pool_factor' must be at least 1", param="pool_factor")
    return factor


def default_task(spec: ModelSpec) -> str:
    """Return the task that a model is for, where a request names none."""
    if OutputKind.LABELS in spec.kinds:
        return "classify"
    return "embed" if OutputKind.DENSE in spec.kinds else "token_embed"


@router.post("/score", **SCORE_DOC)
@router.post("/v1/score", include_in_schema=False)
async def score_route(request: Request) -> Response:
    """Score pairs of texts or pictures, in input order: one against many, or pair by pair."""
    api_request = await read_request(request, OPENAI)
    api_request.check_fields(SCORE_FIELDS)
    model = await api_request.acquire_model(OutputKind.LABELS)
    truncate, max_tokens = parse_truncation(api_request.body)
    check_token_limit(max_tokens, model.tokenizer)
    left, right = await _pairs(api_request, max_tokens)
    if has_pictures(left.texts, right.texts) and not api_request.model_name():
        model = await api_request.acquire_model(OutputKind.DENSE)
    truncation = truncate or api_request.state.service.limits.truncate
    scores = await relevance_scorer(api_request, model).scores(left, right, truncation)
    data = [
        {"index": index, "object": "score", "score": score}
        for index, score in enumerate(scores.values.tolist())
    ]
    name = api_request.model_name() or model.spec.name
    return await _list_response(
        "score", name, [orjson.dumps(data)], scores.tokens, score_headers(scores)
    )


async def _list_response(
    prefix: str,
    model: str,
    data: Sequence[bytes],
    tokens: int,
    headers: Mapping[str, str],
) -> Response:
    """Build an answer in the form that vLLM's routes share.

    Args:
        prefix: The beginning of the answer's id.
        model: The model's name in the answer.
        data: A list, as parts of its JSON.
        tokens: The number of tokens that were run, for `usage`.
        headers: Headers that describe the vectors or scores.
    """
    content = {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": None,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    body = await join_parts(object_parts(content, {"data": data}))
    return Response(body, headers=headers, media_type="application/json")


async def _pairs(api_request: ApiRequest, max_tokens: int | None) -> tuple[TextSide, TextSide]:
    """Read both sides of the pairs.

    Raises:
        InputError: A side is missing or of another type, or their numbers of texts make no pairs.
    """
    first, second, left_role, right_role = _pair_fields(api_request.body)
    check = api_request.state.service.check_count
    sides = [picture_side(api_request.body, name, check_count=check) for name in (first, second)]
    counts = [len(side.items) for side in sides]
    if counts[0] not in (1, counts[1]):
        raise InputError(f"'{first}' must hold one text, or as many as '{second}'", param=first)
    check(sum(counts))
    left, right = await read_sides(api_request, *sides)
    instruction = text_field(api_request.body, "instruction")
    return (
        TextSide(
            left,
            first,
            left_role,
            is_list=sides[0].is_list,
            max_tokens=max_tokens,
            instruction=instruction,
        ),
        TextSide(right, second, right_role, is_list=sides[1].is_list, max_tokens=max_tokens),
    )


def _pair_fields(body: Body) -> tuple[str, str, str | None, str | None]:
    """Return the row of `PAIRS` that a body has.

    Raises:
        InputError: It has none of them.
    """
    for pair in PAIRS:
        if body.get(pair[0]) is not None and body.get(pair[1]) is not None:
            return pair
    raise InputError(
        "pairs must be given as 'text_1' and 'text_2', or 'queries' and 'documents'",
        param="text_1",
    )
