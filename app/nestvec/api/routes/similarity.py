"""`POST /v1/similarity`: cosines of pairs and matrices, explained by tokens on request; or scores of their tokens."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, cast

import numpy as np
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import ApiRequest, read_request
from nestvec.api.requests.embedding import embed, until_disconnect
from nestvec.api.requests.encoded_picture import EncodedInput
from nestvec.api.requests.fields import Body, boolean_field, choice_field, invalid_item
from nestvec.api.requests.headers import deadline_s
from nestvec.api.requests.json_parts import (
    compute,
    join_parts,
    listed,
    lists_json,
    object_parts,
)
from nestvec.api.requests.pictures.parts import read_object
from nestvec.api.requests.pictures.sides import (
    PictureSide,
    SideInputs,
    has_pictures,
    picture_side,
    read_sides,
)
from nestvec.api.requests.vector_json import values_json
from nestvec.api.schemas.similarity import SIMILARITY_DOC
from nestvec.api.scoring.token_comparison import BERTSCORE, COSINE, METRICS, token_similarity
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
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.token_report import DescribedToken
from nestvec.engine.types import EmbedCall, Float64Array, OutputKind, Truncation
from nestvec.engine.vectors.attribution import WEIGHTS, contributions
from nestvec.errors import InputError, RequestTooLargeError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

FIELDS: Final = OPTIONS | {"pairs", "left", "right", "explain", "metric", "user"}
# Cells of a matrix, or of the tables of all pairs that are explained, whose answer has about 5 MB.
MAX_CELLS: Final = 262_144
MAX_EXPLAINED_PAIRS: Final = 16
PAIR: Final = 2


@router.post("/v1/similarity", **SIMILARITY_DOC)
async def similarity(request: Request) -> Response:
    """Cosines of pairs, or of each text or picture on the left with each on the right."""
    api_request = await read_request(request, OPENAI)
    api_request.check_fields(FIELDS)
    api_request.find_model()
    options = parse_comparison_options(api_request)
    left, right, is_pairs = await _sides(api_request)
    explains = boolean_field(api_request.body, "explain") is True
    metric = choice_field(api_request.body, "metric", METRICS) or COSINE
    if (explains or metric == BERTSCORE) and has_pictures(left, right):
        raise InputError(
            "a picture has no tokens of a text: it is compared by 'cosine', or by 'maxsim' where the model gives "
            "vectors of its patches",
            param="explain" if explains else "metric",
        )
    if metric != COSINE:
        if explains:
            raise InputError("'explain' splits cosines", param="explain")
        return await token_similarity(api_request, options, metric, left, right, is_pairs=is_pairs)
    if explains:
        _check_explained(api_request, options, len(left), is_pairs=is_pairs)
    first = await embed_side(api_request, options, left, "pairs" if is_pairs else "left")
    if right is left:
        second = first
    else:
        second = await embed_side(api_request, options, right, "pairs" if is_pairs else "right")
    work = partial(_cosines, first, second, options.dtype, is_pairs=is_pairs)
    values = await compute(work, size=first.vectors.size + second.vectors.size)
    results = [first] if second is first else [first, second]
    answer: dict[str, Any] = {
        "object": "similarity",
        "model": api_request.model_name() or first.model,
        "similarities": None,
        "dimensions": first.vectors.shape[1],
        "output_dtype": options.dtype.value,
    }
    encoded: dict[str, Sequence[bytes]] = {"similarities": await values_json(values)}
    if explains:
        answer["explanations"] = None
        encoded["explanations"] = listed(await _explained(api_request, options, left, right))
    return await comparison_response(answer, encoded, results, first)


def _cosines(
    first: EmbedResult, second: EmbedResult, dtype: OutputDtype, *, is_pairs: bool
) -> Float64Array:
    """Return the cosine of each pair, (N,), or of each vector with each, (N, M)."""
    lefts, rights = (as_unit_vectors(r.converted[dtype], dtype) for r in (first, second))
    values: Float64Array
    values = np.einsum("nd,nd->n", lefts, rights) if is_pairs else lefts @ rights.T
    return values


async def _sides(api_request: ApiRequest) -> tuple[SideInputs, SideInputs, bool]:
    """Read what is on the left and on the right, and whether it is compared pair by pair.

    Raises:
        InputError: It is missing, given in two ways, or no text or picture.
        RequestTooLargeError: The matrix has too many cells.
    """
    body = api_request.body
    if body.get("pairs") is not None:
        if body.get("left") is not None or body.get("right") is not None:
            raise InputError("give either 'pairs', or 'left' and 'right'", param="pairs")
        lefts, rights = _pairs(body, api_request)
        left, right = await read_sides(
            api_request, PictureSide(lefts, "pairs"), PictureSide(rights, "pairs")
        )
        return left, right, True
    sides = [picture_side(body, "left", check_count=api_request.check_count)]
    if body.get("right") is not None:
        sides.append(picture_side(body, "right", check_count=api_request.check_count))
    counts = [len(side.items) for side in sides]
    if counts[0] * counts[-1] > MAX_CELLS:
        raise RequestTooLargeError(
            f"{counts[0]} x {counts[-1]} similarities are too many, max {MAX_CELLS}", param="left"
        )
    read = await read_sides(api_request, *sides)
    return read[0], read[-1], False


def _pairs(
    body: Body, api_request: ApiRequest
) -> tuple[list[str | EncodedInput], list[str | EncodedInput]]:
    """Read the left and the right of each pair.

    Raises:
        InputError: A pair is none; names it.
    """
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
            or not all(isinstance(each, str | dict) for each in pair)
        ):
            raise invalid_item("pairs", index, "must be [text, text], or have objects with 'image'")
    lefts, rights = (
        [
            pair[side] if isinstance(pair[side], str) else read_object(pair[side], "pairs", index)
            for index, pair in enumerate(pairs)
        ]
        for side in range(PAIR)
    )
    return lefts, rights


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
    api_request: ApiRequest, options: ComparisonOptions, left: SideInputs, right: SideInputs
) -> list[bytes]:
    """Return the tokens of each pair, and what each two tokens contribute to its similarity, as JSON.

    Raises:
        RequestTooLargeError: The pairs have too many tokens.
    """
    model = await api_request.acquire_model(OutputKind.DENSE)
    _check_linear(model)
    texts = cast("list[str]", [*left, *right])  # pictures were refused
    call = EmbedCall(
        texts,
        model=api_request.model_name(),
        normalize=False,
        truncate=Truncation.ERROR,
        kind=OutputKind.TOKENS,
    )
    describing = api_request.state.service.token_calls.describe(
        texts,
        adds_special_tokens=True,
        prompt_name=model.spec.default_prompt,
        model=api_request.model_name(),
        deadline_s=deadline_s(api_request.request, api_request.state),
    )
    described = await until_disconnect(api_request.request, describing)
    _check_cells(list(map(len, described)))
    result = await embed(api_request, call, source="pairs")
    states = result.by_input(result.vectors)
    tokens = await lists_json(described, _token)
    explanations = []
    for index in range(len(left)):
        other = len(left) + index
        work = partial(
            contributions, states[index], states[other], model.spec.pooling, options.dimensions
        )
        shares = await compute(work, size=states[index].size + states[other].size)
        parts = object_parts(
            {
                "left_tokens": None,
                "right_tokens": None,
                "contributions": None,
                "similarity": float(shares.sum()),
            },
            {
                "left_tokens": [tokens[index]],
                "right_tokens": [tokens[other]],
                "contributions": await values_json(shares),
            },
        )
        explanations.append(await join_parts(parts))
    return explanations


def _token(token: DescribedToken) -> dict[str, Any]:
    return {
        "text": token.text,
        "special": token.is_special,
        "start": token.start,
        "stop": token.stop,
    }


def _check_cells(tokens: Sequence[int]) -> None:
    """Refuse pairs whose tables would have too many cells.

    Args:
        tokens: How many tokens each text has: those on the left, then those on the right.

    Raises:
        RequestTooLargeError: They would.
    """
    pairs = len(tokens) // PAIR
    cells = sum(a * b for a, b in zip(tokens[:pairs], tokens[pairs:], strict=True))
    if cells > MAX_CELLS:
        raise RequestTooLargeError(
            f"'explain' gives a number for each two tokens of a pair: {cells} here, max {MAX_CELLS} per request; send "
            "fewer pairs, or shorter texts",
            param="explain",
        )


def _check_linear(model: ServedModel) -> None:
    """Check that a model's vector is a weighted sum of its token states.

    Raises:
        UnsupportedError: It is not.
    """
    spec, pooler = model.spec, model.core.pooler
    is_plain_pooling = (
        pooler.head is None
        and pooler.lexical_column is None
        and pooler.part_column is None
        and spec.late_interaction is None
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
