"""Vectors to JSON: float lists with shortest round-trip digits, or base64 of little-endian float32."""

import asyncio
import base64
from typing import Final

import orjson

from app.engine.types import FloatArray

# So many values are encoded before other requests get their turn: about 2 ms.
VALUES_PER_SLICE: Final = 128 * 1024


def float_json(row: FloatArray) -> bytes:
    """A JSON array of one vector, (D,), float32."""
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def base64_json(row: FloatArray) -> bytes:
    """A JSON string of one vector, (D,): standard alphabet, padded, 4 * D bytes inside."""
    return b'"' + base64.b64encode(row.astype("<f4", copy=False).tobytes()) + b'"'


async def rows_json(vectors: FloatArray, *, as_base64: bool) -> list[bytes]:
    """Encode each row, giving way to other requests now and then.

    Args:
        vectors: (B, D), float32, C-contiguous.
        as_base64: Strings instead of arrays.
    """
    encode = base64_json if as_base64 else float_json
    step = max(1, VALUES_PER_SLICE // max(1, vectors.shape[1]))
    rows: list[bytes] = []
    for start in range(0, len(vectors), step):
        if start:
            await asyncio.sleep(0)
        rows += [encode(row) for row in vectors[start : start + step]]
    return rows
