"""`POST /v1/similarity`: cosines of pairs and matrices, explained by tokens on request."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.fields import Body, boolean_field, invalid_item, texts_field
from nestvec.api.schemas.similarity import SIMILARITY_DOC
from nestvec.api.scoring.vector_comparison import (
    OPTIONS,
    ComparisonOptions,
    as_unit_vectors,
    comparison_response,
    embed_side,
    parse_comparison_options,
)
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.engine.vectors.attribution import WEIGHTS, contributions
from nestvec.errors import InputError, RequestTooLargeError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

FIELDS: Final = OPTIONS | {"pairs", "left", "right", "explain", "user"}
# Cells of a matrix, whose answer has about 5 MB.
MAX_CELLS: Final = 262_144
# A pair's table has as many cells as the left text has tokens times those of the right.
MAX_EXPLAINED_PAIRS: Final = 16
PAIR: Final = 2


@router.post("/v1/similarity", **SIMILARITY_DOC)
async def similarity(request: Request) -> Response:
    """Cosines of pairs, or of each text on the left with each on the right."""
    api_request = await read_request(request, OPENAI)
    api_request.check_fields(FIELDS)
    api_request.find_model()
    options = parse_comparison_options(api_request)
    left, right, is_pairs = _sides(api_request)
    explains = boolean_field(api_request.body, "explain") is True
    if explains:
        _check_explained(api_request, options, len(left), is_pairs=is_pairs)
    first = await embed_side(api_request, options, left, "pairs" if is_pairs else "left")
    if right is left:
        second = first
    else:
        second = await embed_side(api_request, options, right, "pairs" if is_pairs else "right")
    lefts, rights = (
        as_unit_vectors(r.converted[options.dtype], options.dtype) for r in (first, second)
    )
    values = np.einsum("nd,nd->n", lefts, rights) if is_pairs else lefts @ rights.T
    results = [first] if second is first else [first, second]
    answer = {
        "object": "similarity",
        "model": api_request.model_name() or first.model,
        "similarities": values.tolist(),
        "dimensions": first.vectors.shape[1],
        "output_dtype": options.dtype.value,
    }
    if explains:
        answer["explanations"] = await _explained(api_request, options, left, right)
    return comparison_response(answer, results, first)


def _sides(api_request: ApiRequest) -> tuple[Sequence[str], Sequence[str], bool]:
    """Read the texts on the left and on the right, and whether they are compared pair by pair.

    Raises:
        InputError: They are missing, or given in two ways.
        RequestTooLargeError: Their matrix has too many cells.
    """
    body = api_request.body
    if body.get("pairs") is not None:
        if body.get("left") is not None or body.get("right") is not None:
            raise InputError("give either 'pairs', or 'left' and 'right'", param="pairs")
        pairs = _pairs(body, api_request)
        return [a for a, _ in pairs], [b for _, b in pairs], True
    left, _ = texts_field(body, "left", check_count=api_request.check_count)
    right: Sequence[str] = left
    if body.get("right") is not None:
        right, _ = texts_field(body, "right", check_count=api_request.check_count)
    if len(left) * len(right) > MAX_CELLS:
        raise RequestTooLargeError(
            f"{len(left)} x {len(right)} similarities are too many, max {MAX_CELLS}", param="left"
        )
    return left, right, False


def _pairs(body: Body, api_request: ApiRequest) -> list[tuple[str, str]]:
    pairs = body["pairs"]
    if not isinstance(pairs, list) or not pairs:
        raise InputError(
            "'pairs' must be a list of [text, text]", param="pairs", code="invalid_type"
        )
    api_request.check_count(len(pairs))
    for index, pair in enumerate(pairs):
        if (
            not isinstance(pair, list)
            or len(pair) != PAIR
            or not all(isinstance(text, str) for text in pair)
        ):
            raise invalid_item("pairs", index, "must be [text, text]")
    return [(a, b) for a, b in pairs]


def _check_explained(
    api_request: ApiRequest, options: ComparisonOptions, pairs: int, *, is_pairs: bool
) -> None:
    if not is_pairs:
        raise InputError("'explain' goes with 'pairs'", param="explain")
    if pairs > MAX_EXPLAINED_PAIRS:
        raise RequestTooLargeError(
            f"'explain' takes at most {MAX_EXPLAINED_PAIRS} pairs, got {pairs}", param="explain"
        )
    if options.dtype is not OutputDtype.FLOAT32 or options.layers or options.map_id is not None:
        raise InputError(
            "'explain' splits cosines of float vectors of all layers, without a map",
            param="explain",
        )


async def _explained(
    api_request: ApiRequest, options: ComparisonOptions, left: Sequence[str], right: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the tokens of each pair, and what each two tokens contribute to its similarity."""
    model = await api_request.acquire_model(OutputKind.DENSE)
    _check_linear(model)
    texts = [*left, *right]
    call = EmbedCall(
        texts,
        model=api_request.model_name(),
        normalize=False,
        truncate=Truncation.ERROR,
        kind=OutputKind.TOKENS,
    )
    result = await embed(api_request, call, source="pairs")
    states = result.by_input(result.vectors)
    described = await api_request.state.service.describe(
        texts,
        adds_special_tokens=True,
        prompt_name=result.prompt_used,
        model=api_request.model_name(),
    )
    tokens = [
        [{"text": t.text, "special": t.is_special, "start": t.start, "stop": t.stop} for t in row]
        for row in described
    ]
    explanations = []
    for index in range(len(left)):
        other = len(left) + index
        shares = contributions(states[index], states[other], model.spec.pooling, options.dimensions)
        explanations.append(
            {
                "left_tokens": tokens[index],
                "right_tokens": tokens[other],
                "contributions": shares.tolist(),
                "similarity": float(shares.sum()),
            }
        )
    return explanations


def _check_linear(model: ServedModel) -> None:
    """Check that a model's vector is a weighted sum of its token states.

    Raises:
        UnsupportedError: It is not.
    """
    spec, pooler = model.spec, model.core.pooler
    is_plain_pooling = (
        pooler.head is None and pooler.lexical_column is None and spec.late_interaction is None
    )
    if (
        not is_plain_pooling
        or spec.pooling not in WEIGHTS
        or not (spec.pools_prompt or not spec.default_prompt)
    ):
        raise UnsupportedError(
            f"'explain' needs a model whose vector is a weighted sum of token states "
            f"({', '.join(WEIGHTS)} pooling and nothing behind it)",
            param="explain",
        )
