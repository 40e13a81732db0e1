"""Vectors compared as a vector store would hold them: what `/v1/similarity` and `/v1/rescore` share.

`output_dtype` and `dimensions` say how the store holds them. Values are cosines: of floats, of int8 codes, and for bits
of the vectors of signs (1 - 2 x differing bits / dimensions).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from fastapi import Response
from numpy.typing import NDArray

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import dtype_field, integer_field, text_field, truncation_field
from nestvec.api.requests.headers import result_headers
from nestvec.api.requests.json_parts import join_parts, object_parts
from nestvec.api.requests.pictures.sides import SideInputs
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, Truncation

OPTIONS: Final = frozenset({"model", "dimensions", "output_dtype", "layers", "map", "truncate"})
BITS: Final = (OutputDtype.BINARY, OutputDtype.UBINARY)


@dataclass(frozen=True, slots=True)
class ComparisonOptions:
    """How vectors are made for a comparison.

    Attributes:
        dimensions: How many of the leading dimensions are kept; None: all.
        dtype: What values are stored as.
        layers: After which layer the model stops; (): after its last.
        map_id: The map that vectors go through; None: none.
        truncate: What is done with texts that are too long; None: what the server's settings say.
    """

    dimensions: int | None
    dtype: OutputDtype
    layers: tuple[int, ...]
    map_id: str | None
    truncate: Truncation | None


def parse_comparison_options(api_request: ApiRequest) -> ComparisonOptions:
    """Read the options of a comparison from a body.

    Raises:
        InputError: A field is of the wrong type.
    """
    layers = integer_field(api_request.body, "layers")
    return ComparisonOptions(
        integer_field(api_request.body, "dimensions"),
        dtype_field(api_request.body, "output_dtype")
        or api_request.pinned_dtype()
        or OutputDtype.FLOAT32,
        () if layers is None else (layers,),
        text_field(api_request.body, "map") or None,
        truncation_field(api_request.body),
    )


async def embed_side(
    api_request: ApiRequest,
    options: ComparisonOptions,
    texts: SideInputs,
    source: str,
    *,
    is_list: bool = True,
    role: str | None = None,
) -> EmbedResult:
    """Embed texts and pictures for a comparison.

    Args:
        api_request: Whom the vectors are for.
        options: How they are made.
        texts: The texts and pictures of one side.
        source: The field that they came from, for errors.
        is_list: Whether they came as a list, so that an error names one of them.
        role: What they are for ("query", "passage"), if that is known.

    Raises:
        NestvecError: The engine's reason why there are no vectors; names the field and the index.
    """
    call = EmbedCall(
        texts,
        model=api_request.model_name(),
        dimensions=options.dimensions,
        normalize=True,
        truncate=options.truncate,
        prompt_role=role,
        output_dtypes=(options.dtype,),
        layers=options.layers,
        map_id=options.map_id,
    )
    return await embed(api_request, call, is_list=is_list, source=source)


def as_unit_vectors(stored: NDArray[Any], dtype: OutputDtype) -> NDArray[np.float64]:
    """Return stored vectors as unit vectors `[N, D]` float64; bits become signs."""
    if dtype in BITS:
        octets = stored.astype(np.int16) + (128 if dtype is OutputDtype.BINARY else 0)
        bits = np.unpackbits(octets.astype(np.uint8), axis=1)
        return (bits.astype(np.float64) * 2 - 1) / math.sqrt(bits.shape[1])
    wide = stored.astype(np.float64) - (128 if dtype is OutputDtype.UINT8 else 0)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.maximum(norms, 1e-12)
    return unit


async def comparison_response(
    answer: dict[str, Any],
    encoded: Mapping[str, Sequence[bytes]],
    results: Sequence[EmbedResult],
    first: EmbedResult,
) -> Response:
    """Return an answer with its usage, and with headers that describe the vectors.

    Args:
        answer: The body's fields in their order, without `usage`, which is added.
        encoded: Those that are large, as parts of their JSON.
        results: The results of all calls, whose tokens are summed.
        first: The result that the headers describe.
    """
    tokens = sum(sum(result.input_tokens) for result in results)
    answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    headers = result_headers(first, EmbedCall(()))
    truncated = sum(sum(result.is_truncated) for result in results)
    if truncated:
        headers["x-embed-truncated"] = str(truncated)
    content = await join_parts(object_parts(answer, encoded))
    return Response(content, headers=headers, media_type="application/json")
