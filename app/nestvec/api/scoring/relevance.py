"""How relevant texts are to a query, for a request: the engine's scorer over the request's own calls."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.json_parts import compute
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.outputs import relevance
from nestvec.engine.outputs.relevance import RelevanceScorer, RelevanceScores, TextSide
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, FloatArray, Truncation


def relevance_scorer(api_request: ApiRequest, model: ServedModel) -> RelevanceScorer:
    """Return what scores texts for a request, within its key's limits and its deadline.

    Args:
        api_request: Whom the scores are for.
        model: Scores the texts.
    """

    async def embed_side(call: EmbedCall, side: TextSide) -> EmbedResult:
        return await embed(api_request, call, is_list=side.is_list, source=side.source)

    return RelevanceScorer(model.spec, embed_side, compute, api_request.model_name())


def score_headers(scores: RelevanceScores) -> Mapping[str, str]:
    """Return the headers of an answer with scores: by which method they were computed."""
    return {"x-embed-score": scores.method}


async def cross_encoder_scores(
    api_request: ApiRequest,
    model: ServedModel,
    left: TextSide,
    right: TextSide,
    truncate: Truncation,
) -> EmbedResult:
    """Return a cross-encoder's scores before any activation, as vectors `[N, 1]`.

    Raises:
        InputError: A pair cannot be run; names the index on the right.
        UnsupportedError: The model has several labels.
    """
    return await relevance_scorer(api_request, model).cross_encoder_scores(left, right, truncate)


async def row_products(left: FloatArray, right: FloatArray) -> NDArray[np.float64]:
    """Multiply vectors (N, D), or a single one, with as many others, row by row; (N,)."""
    return await relevance.row_products(left, right, compute)
