"""`POST /v1/similarity`: cosines of pairs and matrices, explained by tokens where asked for."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.raw_route import RawRoute
from nestvec.api.requests.api_request import Asked, embed, open_as
from nestvec.api.requests.fields import Body, boolean_field, texts_field, wrong_item
from nestvec.api.schemas.similarity import SIMILARITY_DOC
from nestvec.api.scoring.vector_comparison import (
    OPTIONS,
    Options,
    answered,
    comparable,
    parse_options,
    vectors_of,
)
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall, OutputKind, Truncation
from nestvec.engine.vectors.attribution import WEIGHTS, contributions
from nestvec.errors import InputError, RequestTooLargeError, UnsupportedError

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])

FIELDS: Final = OPTIONS | {"pairs", "left", "right", "explain", "user"}
MOST_CELLS: Final = 262_144  # of a matrix; an answer of about 5 MB
MOST_EXPLAINED: Final = 16  # pairs; a pair's table has as many cells as tokens times tokens
PAIR: Final = 2


@router.post("/v1/similarity", **SIMILARITY_DOC)
async def similarity(request: Request) -> Response:
    """Cosines of pairs, or of each text on the left with each on the right."""
    asked = await open_as(request, OPENAI)
    asked.check_fields(FIELDS)
    asked.find_model()
    options = parse_options(asked)
    left, right, is_pairs = _sides(asked)
    explains = boolean_field(asked.body, "explain") is True
    if explains:
        _check_explained(asked, options, len(left), is_pairs=is_pairs)
    first = await vectors_of(asked, options, left, "pairs" if is_pairs else "left")
    if right is left:
        second = first
    else:
        second = await vectors_of(asked, options, right, "pairs" if is_pairs else "right")
    one, other = (comparable(r.converted[options.dtype], options.dtype) for r in (first, second))
    values = np.einsum("nd,nd->n", one, other) if is_pairs else one @ other.T
    results = [first] if second is first else [first, second]
    answer = {
        "object": "similarity",
        "model": asked.model_name() or first.model,
        "similarities": values.tolist(),
        "dimensions": first.vectors.shape[1],
        "output_dtype": options.dtype.value,
    }
    if explains:
        answer["explanations"] = await _explained(asked, options, left, right)
    return answered(answer, results, first)


def _sides(asked: Asked) -> tuple[Sequence[str], Sequence[str], bool]:
    """Texts on the left and on the right, and whether they go two by two."""
    body = asked.body
    if body.get("pairs") is not None:
        if body.get("left") is not None or body.get("right") is not None:
            raise InputError("give either 'pairs', or 'left' and 'right'", param="pairs")
        pairs = _pairs(body, asked)
        return [a for a, _ in pairs], [b for _, b in pairs], True
    left, _ = texts_field(body, "left", check_count=asked.check_count)
    right: Sequence[str] = left
    if body.get("right") is not None:
        right, _ = texts_field(body, "right", check_count=asked.check_count)
    if len(left) * len(right) > MOST_CELLS:
        raise RequestTooLargeError(
            f"{len(left)} x {len(right)} similarities are too many, max {MOST_CELLS}", param="left"
        )
    return left, right, False


def _pairs(body: Body, asked: Asked) -> list[tuple[str, str]]:
    given = body["pairs"]
    if not isinstance(given, list) or not given:
        raise InputError(
            "'pairs' must be a list of [text, text]", param="pairs", code="invalid_type"
        )
    asked.check_count(len(given))
    for index, pair in enumerate(given):
        if (
            not isinstance(pair, list)
            or len(pair) != PAIR
            or not all(isinstance(text, str) for text in pair)
        ):
            raise wrong_item("pairs", index, "must be [text, text]")
    return [(a, b) for a, b in given]


def _check_explained(asked: Asked, options: Options, pairs: int, *, is_pairs: bool) -> None:
    if not is_pairs:
        raise InputError("'explain' goes with 'pairs'", param="explain")
    if pairs > MOST_EXPLAINED:
        raise RequestTooLargeError(
            f"'explain' takes at most {MOST_EXPLAINED} pairs, got {pairs}", param="explain"
        )
    if options.dtype is not OutputDtype.FLOAT32 or options.layers or options.map_id is not None:
        raise InputError(
            "'explain' splits cosines of float vectors of all layers, without a map",
            param="explain",
        )


async def _explained(
    asked: Asked, options: Options, left: Sequence[str], right: Sequence[str]
) -> list[dict[str, Any]]:
    """For each pair its tokens, and what each two of them add."""
    model = await asked.model(OutputKind.DENSE)
    _check_linear(model)
    texts = [*left, *right]
    call = EmbedCall(
        texts,
        model=asked.model_name(),
        normalize=False,
        truncate=Truncation.ERROR,
        kind=OutputKind.TOKENS,
    )
    result = await embed(asked, call, source="pairs")
    states = result.by_input(result.vectors)
    described = await asked.state.service.describe(
        texts, adds_special=True, prompt_name=result.prompt_used, model=asked.model_name()
    )
    tokens = [
        [{"text": t.text, "special": t.is_special, "start": t.start, "stop": t.stop} for t in own]
        for own in described
    ]
    found = []
    for number in range(len(left)):
        other = len(left) + number
        shares = contributions(
            states[number], states[other], model.spec.pooling, options.dimensions
        )
        found.append(
            {
                "left_tokens": tokens[number],
                "right_tokens": tokens[other],
                "contributions": shares.tolist(),
                "similarity": float(shares.sum()),
            }
        )
    return found


def _check_linear(model: ServedModel) -> None:
    spec, outputs = model.spec, model.core.outputs
    is_plain = outputs.head is None and outputs.lexical is None and spec.late_interaction is None
    if (
        not is_plain
        or spec.pooling not in WEIGHTS
        or not (spec.pools_prompt or not spec.default_prompt)
    ):
        raise UnsupportedError(
            f"'explain' needs a model whose vector is a weighted sum of token states "
            f"({', '.join(WEIGHTS)} pooling and nothing behind it)",
            param="explain",
        )
