"""The OpenAI dialect: embeddings and models; Azure's paths and vLLM's raw bytes too.

Source: OpenAI's API reference for `POST /v1/embeddings` and `GET /v1/models`, and what its Python and Node
clients were seen to send and need (the project's api-contract, sections 1 and 7).
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.dialects.openai_body import (
    FIELDS,
    Encoding,
    parse_call,
    parse_encoding,
    refuse_chat,
)
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import (
    VOCABULARY_HEADER,
    Asked,
    decode_tokens,
    embed,
    open_as,
    result_headers,
)
from nestvec.api.requests.encoding import in_byte_order, rows_json
from nestvec.api.requests.fields import parse_inputs
from nestvec.api.schemas.openai import DEPLOYMENT_DOC
from nestvec.engine.types import Chunk, EmbedCall, EmbedResult, LongInput, OutputKind
from nestvec.errors import InputError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

# At about 100 bytes an input, the `metadata` header of `bytes` would pass what proxies take.
MOST_IN_HEADER: Final = 64
MODEL_PATH: Final = Path(description="A model's name.", examples=["all-MiniLM-L6-v2"])


async def embeddings(asked: Asked) -> Response:
    """Embed texts or token ids; vectors come in input order."""
    return await _embeddings(asked, asked.model_name())


@router.post("/openai/deployments/{deployment:path}/embeddings", **DEPLOYMENT_DOC)
@router.post("/engines/{deployment:path}/embeddings", include_in_schema=False)
async def deployment_embeddings(
    request: Request, deployment: Annotated[str, MODEL_PATH]
) -> Response:
    """Azure's path, which names the model; the body's own name does not count."""
    asked = await open_as(request, OPENAI)
    asked.body["model"] = deployment
    return await _embeddings(asked, deployment)


async def _embeddings(asked: Asked, model: str) -> Response:
    asked.check_fields(FIELDS)
    asked.state.service.models.find(model, OutputKind.DENSE)
    encoding = parse_encoding(asked.body)
    refuse_chat(asked.body)
    inputs, is_list = parse_inputs(asked.body.get("input"), check_count=asked.check_count)
    if encoding.form == "bytes" and len(inputs) > MOST_IN_HEADER:
        raise InputError(
            f"'bytes' describes at most {MOST_IN_HEADER} inputs in its header; use 'bytes_only'",
            param="encoding_format",
        )
    try:
        vocabulary = asked.request.headers.get(VOCABULARY_HEADER)
        given = await decode_tokens(asked.state, inputs, vocabulary=vocabulary)
    except InputError as error:
        if not is_list:
            error.input_index = None
        raise
    call = parse_call(asked.body, given)
    result = await embed(asked, call, is_list=is_list)
    if encoding.form.startswith("bytes"):
        return _bytes_response(result, call, encoding, model or result.model)
    rows = await vectors_json(result, encoding)
    told = Told(result.chunks, result.long_inputs)
    body = embeddings_json(rows, model or result.model, sum(result.input_tokens), told)
    return Response(body, headers=result_headers(result, call), media_type="application/json")


async def vectors_json(
    result: EmbedResult, encoding: Encoding, inputs: slice = slice(None)
) -> list[bytes]:
    """Each input's vector, or those of some, as JSON."""
    vectors = result.converted[encoding.dtype][inputs]
    vectors = in_byte_order(vectors, is_big_endian=encoding.is_big_endian)
    return await rows_json(vectors, as_base64=encoding.is_base64)


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says beside OpenAI's fields, where there is anything to say.

    Attributes:
        chunks: Where each vector's chunk lies, for documents that were cut here.
        long_inputs: What became of inputs that were too long.
    """

    chunks: Sequence[Chunk] = ()
    long_inputs: Sequence[LongInput] = ()


NOTHING_TOLD: Final = Told()


def embeddings_json(
    rows: Sequence[bytes], model: str, tokens: int, told: Told = NOTHING_TOLD
) -> bytes:
    """An answer's body, from its vectors as JSON."""
    places = [_place_json(chunk) for chunk in told.chunks] or [b""] * len(rows)
    items = [
        b'{"object":"embedding","index":%d%s,"embedding":%s}' % (index, place, row)
        for index, (place, row) in enumerate(zip(places, rows, strict=True))
    ]
    usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if told.long_inputs:
        usage["long_inputs"] = [_long_input(one) for one in told.long_inputs]
    return b'{"object":"list","data":[%s],"model":%s,"usage":%s}' % (
        b",".join(items),
        orjson.dumps(model),
        orjson.dumps(usage),
    )


def _place_json(chunk: Chunk) -> bytes:
    values = (chunk.document, chunk.start, chunk.stop, chunk.tokens)
    return b',"document":%d,"start":%d,"end":%d,"tokens":%d' % values


def _long_input(one: LongInput) -> dict[str, Any]:
    found: dict[str, Any] = {
        "index": one.index,
        "tokens_seen": one.seen_tokens,
        "tokens_dropped": one.dropped_tokens,
        "windows": one.windows,
    }
    return {**found, "at_least": True} if one.drops_more else found


def _bytes_response(
    result: EmbedResult, call: EmbedCall, encoding: Encoding, model: str
) -> Response:
    """VLLM's raw vectors end to end, in input order; where each lies stands in a header."""
    vectors = in_byte_order(result.converted[encoding.dtype], is_big_endian=encoding.is_big_endian)
    width = vectors.shape[1] * vectors.itemsize
    headers = result_headers(result, call)
    if encoding.form == "bytes":
        tokens = sum(result.input_tokens)
        described = {
            "index": 0,
            "embed_dtype": encoding.vllm_dtype,
            "endianness": "big" if encoding.is_big_endian else "little",
        }
        data = [
            {**described, "index": i, "start": i * width, "end": (i + 1) * width, "shape": [n]}
            for i, n in enumerate([vectors.shape[1]] * len(vectors))
        ]
        metadata = {
            "id": f"embd-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        # Headers are ASCII; a model's name need not be.
        headers["metadata"] = orjson.dumps(metadata).decode().encode("ascii", "replace").decode()
    return Response(vectors.tobytes(), headers=headers, media_type="application/octet-stream")
