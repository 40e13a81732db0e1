"""Vectors compared as a store would hold them: what our own routes around similarity share.

`output_dtype` and `dimensions` say how they are held. Values are cosines: of floats, of int8 codes, and for bits of the
vectors of signs (1 - 2 x differing bits / dimensions).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from fastapi import Response
from numpy.typing import NDArray

from nestvec.api.requests.api_request import Asked, embed, result_headers
from nestvec.api.requests.fields import dtype_field, integer_field, text_field, truncation_field
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import EmbedCall, EmbedResult, Truncation

OPTIONS: Final = frozenset({"model", "dimensions", "output_dtype", "layers", "map", "truncate"})
BITS: Final = (OutputDtype.BINARY, OutputDtype.UBINARY)
Wide = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Options:
    """How vectors are compared."""

    dimensions: int | None
    dtype: OutputDtype
    layers: tuple[int, ...]
    map_id: str | None
    truncate: Truncation | None


def parse_options(asked: Asked) -> Options:
    """Read them.

    Raises:
        InputError: A field of the wrong type.
    """
    layers = integer_field(asked.body, "layers")
    return Options(
        integer_field(asked.body, "dimensions"),
        dtype_field(asked.body, "output_dtype") or OutputDtype.FLOAT32,
        () if layers is None else (layers,),
        text_field(asked.body, "map") or None,
        truncation_field(asked.body),
    )


async def vectors_of(
    asked: Asked,
    options: Options,
    texts: Sequence[str],
    source: str,
    *,
    is_list: bool = True,
    role: str | None = None,
) -> EmbedResult:
    """Embed texts for a comparison.

    Args:
        asked: Whose.
        options: How they are compared.
        texts: Of one side.
        source: The field they came from.
        is_list: Whether they came as a list.
        role: What they are for.

    Raises:
        NestvecError: As the engine says; names the field and the place.
    """
    call = EmbedCall(
        texts,
        model=asked.model_name(),
        dimensions=options.dimensions,
        normalize=True,
        truncate=options.truncate,
        prompt_role=role,
        output_dtypes=(options.dtype,),
        layers=options.layers,
        map_id=options.map_id,
    )
    return await embed(asked, call, is_list=is_list, source=source)


def comparable(stored: NDArray[Any], dtype: OutputDtype) -> Wide:
    """Stored vectors as unit vectors of float64, (N, D)."""
    if dtype in BITS:
        octets = stored.astype(np.int16) + (128 if dtype is OutputDtype.BINARY else 0)
        bits = np.unpackbits(octets.astype(np.uint8), axis=1)
        return (bits.astype(np.float64) * 2 - 1) / math.sqrt(bits.shape[1])
    wide = stored.astype(np.float64) - (128 if dtype is OutputDtype.UINT8 else 0)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Wide = wide / np.maximum(norms, 1e-12)
    return unit


def answered(
    answer: dict[str, Any], results: Sequence[EmbedResult], first: EmbedResult
) -> Response:
    """An answer with its usage, and what headers tell of the vectors.

    Args:
        answer: Without usage.
        results: Of all runs.
        first: The one that headers are about.
    """
    tokens = sum(sum(result.input_tokens) for result in results)
    answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    headers = result_headers(first, EmbedCall(()))
    truncated = sum(sum(result.is_truncated) for result in results)
    if truncated:
        headers["x-embed-truncated"] = str(truncated)
    return Response(orjson.dumps(answer), headers=headers, media_type="application/json")
