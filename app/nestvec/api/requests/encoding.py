"""Vectors to JSON: lists with shortest round-trip digits, or base64 of little-endian bytes."""

import asyncio
import base64
from collections.abc import Iterable
from typing import Any, Final

import orjson
from numpy.typing import NDArray

# So many values are encoded before other requests get their turn: about 2 ms.
VALUES_PER_SLICE: Final = 128 * 1024


def array_json(row: NDArray[Any]) -> bytes:
    """A JSON array of one vector, (D,), or of several, (n, D)."""
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def base64_json(row: NDArray[Any]) -> bytes:
    """A JSON string of a vector's bytes: standard alphabet, padded, no line break."""
    return b'"' + base64.b64encode(row.tobytes()) + b'"'


def in_byte_order(vectors: NDArray[Any], *, is_big_endian: bool) -> NDArray[Any]:
    """Values whose bytes come in the order asked for; little-endian is what they have."""
    return vectors.byteswap() if is_big_endian and vectors.itemsize > 1 else vectors


async def rows_json(vectors: Iterable[NDArray[Any]], *, as_base64: bool) -> list[bytes]:
    """Encode each row, giving way to other requests now and then.

    Args:
        vectors: (B, D), C-contiguous; or B arrays of (n, D).
        as_base64: Strings of little-endian bytes instead of arrays.
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
