"""Vectors to JSON: lists with shortest round-trip digits, or base64 of little-endian bytes."""

import asyncio
import base64
from collections.abc import Iterable
from typing import Any, Final

import orjson
from numpy.typing import NDArray

# How many values are encoded before other requests get their turn: about 2 ms.
VALUES_PER_SLICE: Final = 128 * 1024


def array_json(row: NDArray[Any]) -> bytes:
    """Encode one vector `[D]`, or several `[N, D]`, as a JSON array."""
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def base64_json(row: NDArray[Any]) -> bytes:
    """Encode a vector's bytes as a JSON string: base64 in the standard alphabet, padded, without line breaks."""
    return b'"' + base64.b64encode(row.tobytes()) + b'"'


def in_byte_order(vectors: NDArray[Any], *, is_big_endian: bool) -> NDArray[Any]:
    """Return little-endian values `[B, D]` with their bytes in the order asked for."""
    return vectors.byteswap() if is_big_endian and vectors.itemsize > 1 else vectors


async def rows_json(vectors: Iterable[NDArray[Any]], *, as_base64: bool) -> list[bytes]:
    """Encode each row as JSON, giving way to other requests now and then.

    Args:
        vectors: `[B, D]`, C-contiguous; or B arrays `[N, D]`.
        as_base64: Whether a row becomes a string of its bytes instead of an array of numbers.
    """
    encode = base64_json if as_base64 else array_json
    rows: list[bytes] = []
    values = 0
    for row in vectors:
        if values > VALUES_PER_SLICE:
            await asyncio.sleep(0)
            values = 0
        values += row.size
        rows.append(encode(row))
    return rows
