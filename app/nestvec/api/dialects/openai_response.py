"""Answers of `POST /v1/embeddings` in OpenAI's form: as JSON, also for lines of a batch, or as vLLM's raw bytes."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import Response

from nestvec.api.dialects.openai_body import Encoding
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.vector_json import in_byte_order, rows_json
from nestvec.engine.types import Chunk, EmbedCall, EmbedResult, LongInput


@dataclass(frozen=True, slots=True)
class ResponseExtras:
    """What an answer tells beyond OpenAI's fields; nothing by default.

    Attributes:
        chunks: The span of each vector's chunk, for documents that the server cut.
        long_inputs: What became of inputs that were too long.
        views: Names of the vectors that each input has; empty where it has one.
    """

    chunks: Sequence[Chunk] = ()
    long_inputs: Sequence[LongInput] = ()
    views: Sequence[str] = ()


NO_EXTRAS: Final = ResponseExtras()


async def vectors_json(
    result: EmbedResult, encoding: Encoding, inputs: slice = slice(None)
) -> list[bytes]:
    """Encode the vector of each input as JSON; where inputs have several views, those of an input follow one another.

    Args:
        result: Holds vectors of the encoding's dtype, `[B, D]`.
        encoding: How a vector is written, as "float" or "base64".
        inputs: The inputs whose vectors are wanted.
    """
    if result.views:
        by_view = [await vectors_json(view, encoding, inputs) for view in result.views.values()]
        return [row for of_input in zip(*by_view, strict=True) for row in of_input]
    vectors = result.converted[encoding.dtype][inputs]
    vectors = in_byte_order(vectors, is_big_endian=encoding.is_big_endian)
    return await rows_json(vectors, as_base64=encoding.is_base64)


def embeddings_parts(
    rows: Sequence[bytes], model: str, tokens: int, extras: ResponseExtras = NO_EXTRAS
) -> list[bytes]:
    """Build the JSON body of an answer, in parts.

    Args:
        rows: Each vector as JSON, at least one.
        model: The model's name in the answer.
        tokens: The number of tokens that were run, for `usage`.
        extras: What the answer tells beyond OpenAI's fields.
    """
    views = [b',"view":%s' % orjson.dumps(name) for name in extras.views] or [b""]
    spans = [_chunk_json(chunk) for chunk in extras.chunks] or views * (len(rows) // len(views))
    parts: list[bytes] = []
    start = b'{"object":"list","data":[{"object":"embedding","index":%d%s,"embedding":'
    for index, (span, row) in enumerate(zip(spans, rows, strict=True)):
        parts += (start % (index // len(views), span), row)
        start = b'},{"object":"embedding","index":%d%s,"embedding":'
    usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if extras.long_inputs:
        usage["long_inputs"] = [_long_input(long_input) for long_input in extras.long_inputs]
    parts.append(b'}],"model":%s,"usage":%s}' % (orjson.dumps(model), orjson.dumps(usage)))
    return parts


def bytes_response(
    result: EmbedResult, call: EmbedCall, encoding: Encoding, model: str
) -> Response:
    """Build vLLM's answer of raw vectors end to end, in input order; for "bytes" a header says where each lies."""
    vectors = in_byte_order(result.converted[encoding.dtype], is_big_endian=encoding.is_big_endian)
    width_bytes = vectors.shape[1] * vectors.itemsize
    headers = result_headers(result, call)
    if encoding.form == "bytes":
        tokens = sum(result.input_tokens)
        description = {
            "index": 0,
            "embed_dtype": encoding.vllm_dtype,
            "endianness": "big" if encoding.is_big_endian else "little",
        }
        data = [
            {
                **description,
                "index": index,
                "start": index * width_bytes,
                "end": (index + 1) * width_bytes,
                "shape": [vectors.shape[1]],
            }
            for index in range(len(vectors))
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


def _chunk_json(chunk: Chunk) -> bytes:
    values = (chunk.document, chunk.start, chunk.stop, chunk.tokens)
    return b',"document":%d,"start":%d,"end":%d,"tokens":%d' % values


def _long_input(long_input: LongInput) -> dict[str, Any]:
    row: dict[str, Any] = {
        "index": long_input.index,
        "tokens_seen": long_input.seen_tokens,
        "tokens_dropped": long_input.dropped_tokens,
        "windows": long_input.windows,
    }
    return {**row, "at_least": True} if long_input.drops_more else row
