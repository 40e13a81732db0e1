"""Vectors to JSON: lists with shortest round-trip digits, or base64 of little-endian bytes."""

import base64
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec.api.requests.json_parts import Turns, join_parts, listed

# How many values are encoded before other requests get their turn: 2 to 6 ms. A multiple of three, so that the base64
# of all slices but the last ends without padding.
VALUES_PER_SLICE: Final = 3 * 40 * 1024


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
    """Encode each row as JSON, giving way to other requests now and then, also within a row of many values.

    Args:
        vectors: `[B, D]`, C-contiguous; or B arrays `[N, D]`.
        as_base64: Whether a row becomes a string of its bytes instead of an array of numbers.
    """
    encode = base64_json if as_base64 else array_json
    encode_large = _large_base64 if as_base64 else _large_array
    turns = Turns(VALUES_PER_SLICE)
    rows: list[bytes] = []
    for row in vectors:
        if row.size <= VALUES_PER_SLICE:
            rows.append(encode(row))
            await turns.spend(row.size)
        else:
            rows.append(await join_parts(await encode_large(row, turns)))
    return rows


async def values_json(values: NDArray[Any]) -> list[bytes]:
    """Return the parts of a JSON array of any number of values, `[N]` or `[N, M]`, whose rows are short."""
    return await _large_array(values, Turns(VALUES_PER_SLICE))


async def _large_array(values: NDArray[Any], turns: Turns) -> list[bytes]:
    """Return the parts of a JSON array, encoded some rows at a time."""
    width = max(1, values.size // max(1, len(values)))
    step = max(1, VALUES_PER_SLICE // width)
    slices = []
    for start in range(0, len(values), step):
        part = values[start : start + step]
        slices.append(array_json(np.ascontiguousarray(part))[1:-1])
        await turns.spend(part.size)
    return listed(slices)


async def _large_base64(values: NDArray[Any], turns: Turns) -> list[bytes]:
    """Return the parts of a JSON string of the bytes of an array."""
    flat = np.ascontiguousarray(values).reshape(-1)
    parts = [b'"']
    for start in range(0, len(flat), VALUES_PER_SLICE):
        part = flat[start : start + VALUES_PER_SLICE]
        parts.append(base64.b64encode(part.tobytes()))
        await turns.spend(part.size)
    parts.append(b'"')
    return parts
