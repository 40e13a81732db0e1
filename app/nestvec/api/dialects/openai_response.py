"""Answers of `POST /v1/embeddings` in OpenAI's form: as JSON, also for lines of a batch, or as vLLM's raw bytes."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from fastapi import Response
from numpy.typing import NDArray

from nestvec.api.dialects.openai_body import Encoding
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import COPIED_BYTES, Turns
from nestvec.api.requests.vector_json import array_json, in_byte_order, rows_json
from nestvec.engine.outputs.joint import kinds_of
from nestvec.engine.results import Chunk, EmbedResult, LongInput
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.errors import InputError


@dataclass(frozen=True, slots=True)
class ResponseExtras:
    """What an answer tells beyond OpenAI's fields; nothing by default.

    Attributes:
        chunks: The span of each vector's chunk, for documents that the server cut.
        long_inputs: What became of inputs that were too long.
        labels: What each value stands for, where the map gives one for each label.
        unknown_tokens: How many tokens stand for what the vocabulary lacks.
        instruction_tokens: How many tokens are those of the prompt that was asked for.
        views: Names of the vectors that each input has; empty where it has one.
    """

    chunks: Sequence[Chunk] = ()
    long_inputs: Sequence[LongInput] = ()
    labels: Sequence[str] = ()
    unknown_tokens: int = 0
    instruction_tokens: int = 0
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
    if encoding.is_pinned and encoding.is_base64:
        vectors = vectors.astype(np.float32)
    vectors = in_byte_order(vectors, is_big_endian=encoding.is_big_endian)
    return await rows_json(vectors, as_base64=encoding.is_base64)


async def outputs_json(
    result: EmbedResult, call: EmbedCall, encoding: Encoding, inputs: slice = slice(None)
) -> list[bytes]:
    """Encode what each input gives: its vector, or the members of its row in `data`, where other kinds are asked for.

    A text's vectors of tokens are `embeddings`, as in Jina's API; its terms are lists of ids and of weights.

    Args:
        result: Holds vectors of the encoding's dtype.
        call: What was asked for.
        encoding: How a vector is written, as "float" or "base64".
        inputs: The inputs whose outputs are wanted.
    """
    if call.kind is OutputKind.DENSE:
        return await vectors_json(result, encoding, inputs)
    by_name: dict[bytes, list[bytes]] = {}
    for kind in kinds_of(call.kind):
        of_kind = result.by_kind.get(kind, result)
        if kind is OutputKind.SPARSE:
            terms = of_kind.by_input(of_kind.vectors)[inputs]
            by_name[b"sparse_embedding"] = await _terms_json(terms)
            continue
        vectors = of_kind.converted[encoding.dtype]
        if encoding.is_pinned and encoding.is_base64:
            vectors = vectors.astype(np.float32)
        vectors = in_byte_order(vectors, is_big_endian=encoding.is_big_endian)
        is_tokens = kind is OutputKind.TOKENS
        parts = of_kind.by_input(vectors)[inputs] if is_tokens else vectors[inputs]
        name = b"embeddings" if is_tokens else b"embedding"
        by_name[name] = await rows_json(parts, as_base64=encoding.is_base64)
    rows, turns = [], Turns(COPIED_BYTES)
    for values in zip(*by_name.values(), strict=True):
        members = (b'"%s":%s' % pair for pair in zip(by_name, values, strict=True))
        rows.append(b",".join(members))
        await turns.spend(len(rows[-1]))
    return rows


def refuse_bytes(call: EmbedCall, encoding: Encoding) -> None:
    """Refuse vLLM's raw bytes for anything but a vector for each input.

    Raises:
        InputError: The encoding is raw bytes.
    """
    if call.kind is not OutputKind.DENSE and encoding.form.startswith("bytes"):
        raise InputError(
            f"'{encoding.form}' holds one vector for each input; use 'float' or 'base64' with 'output_types'",
            param="encoding_format",
        )


def embeddings_parts(
    rows: Sequence[bytes],
    model: str,
    tokens: int,
    extras: ResponseExtras = NO_EXTRAS,
    *,
    kind: OutputKind = OutputKind.DENSE,
) -> list[bytes]:
    """Build the JSON body of an answer, in parts.

    Args:
        rows: What `outputs_json` gives for each input, at least one.
        model: The model's name in the answer.
        tokens: The number of tokens that were run, for `usage`.
        extras: What the answer tells beyond OpenAI's fields.
        kind: What was asked for.
    """
    name = b'"embedding":' if kind is OutputKind.DENSE else b""
    views = [b',"view":%s' % orjson.dumps(view) for view in extras.views] or [b""]
    spans = [_chunk_json(chunk) for chunk in extras.chunks] or views * (len(rows) // len(views))
    parts: list[bytes] = []
    start = b'{"object":"list","data":[{"object":"embedding","index":%d%s,' + name
    for index, (span, row) in enumerate(zip(spans, rows, strict=True)):
        parts += (start % (index // len(views), span), row)
        start = b'},{"object":"embedding","index":%d%s,' + name
    usage: dict[str, Any] = {"prompt_tokens": tokens, "total_tokens": tokens}
    if extras.instruction_tokens:
        usage["prompt_tokens_details"] = {"instruction_tokens": extras.instruction_tokens}
    if extras.long_inputs:
        usage["long_inputs"] = [_long_input(long_input) for long_input in extras.long_inputs]
    labels = b',"labels":%s' % orjson.dumps(extras.labels) if extras.labels else b""
    if extras.unknown_tokens:
        usage["unknown_tokens"] = extras.unknown_tokens
    end = b'}],"model":%s,"usage":%s%s}'
    parts.append(end % (orjson.dumps(model), orjson.dumps(usage), labels))
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


async def _terms_json(texts: Sequence[NDArray[Any]]) -> list[bytes]:
    """Write each text's terms, (k, 2), as lists of their ids, rising, and of their weights."""
    rows, turns = [], Turns()
    for terms in texts:
        ids, weights = terms[:, 0].astype(np.int64), np.ascontiguousarray(terms[:, 1])
        written = (array_json(ids), array_json(weights))
        rows.append(b'{"indices":%s,"values":%s}' % written)
        await turns.spend(len(terms))
    return rows


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
