"""How relevant texts are to a query: by a cross-encoder, by late interaction, or by cosine, as the model allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import embed
from nestvec.api.requests.json_parts import compute
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall, EmbedResult, FloatArray, OutputKind, Pair, Truncation
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.engine.vectors.token_vectors import max_sim
from nestvec.errors import InputError, InternalError, UnsupportedError

COSINE: Final = "cosine"
CROSS_ENCODER: Final = "cross-encoder"
MAX_SIM: Final = "max-sim"
QUERY_PARAM: Final = "query"  # what the engine calls the first text of a pair


@dataclass(frozen=True, slots=True)
class TextSide:
    """The texts on one side of a comparison.

    Attributes:
        texts: One, or as many as on the other side.
        source: The field that they came from, for errors.
        role: What they are for ("query", "passage"), if that is known.
        is_list: Whether they came as a list, so that an error names one of them.
        max_tokens: How many tokens of each are taken, if fewer than the model takes.
        instruction: What is wanted of the other side's texts, for queries of models that take it; None for none.
    """

    texts: Sequence[str]
    source: str
    role: str | None = None
    is_list: bool = True
    max_tokens: int | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class RelevanceScores:
    """The scores of pairs.

    Attributes:
        values: `[N]` float64, one for each pair.
        tokens: How many tokens were run.
        method: How the scores were computed; told in a header, as a cosine is no probability.
    """

    values: NDArray[np.float64]
    tokens: int
    method: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an answer with these scores."""
        return {"x-embed-score": self.method}


async def relevance_scores(
    api_request: ApiRequest,
    model: ServedModel,
    left: TextSide,
    right: TextSide,
    truncate: Truncation,
) -> RelevanceScores:
    """Score texts pair by pair, or a single text on the left against all on the right, by the model's best method.

    Args:
        api_request: Whom the scores are for.
        model: Scores them.
        left: The queries.
        right: The documents.
        truncate: What is done with texts that are too long.

    Raises:
        InputError: A text cannot be embedded; names the field and the index.
        UnsupportedError: The model has several labels, or gives weights of terms only.
    """
    kinds = model.spec.kinds
    if OutputKind.LABELS in kinds:
        result = await cross_encoder_scores(api_request, model, left, right, truncate)
        values = probabilities(result.vectors, model.spec.activation)[:, 0]
        return RelevanceScores(values, sum(result.input_tokens), CROSS_ENCODER)
    if OutputKind.DENSE in kinds:
        return await _cosines(api_request, model, left, right, truncate)
    if OutputKind.TOKENS in kinds:
        return await _max_sims(api_request, model, left, right, truncate)
    raise UnsupportedError(f"{model.spec.name} gives terms' weights: it scores no pairs")


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
    if not model.spec.is_reranker:
        raise UnsupportedError(
            f"model is not a re-ranker model: {model.spec.name} has {len(model.spec.labels)} labels"
        )
    lefts = [*left.texts] * (len(right.texts) if len(left.texts) == 1 else 1)
    pairs = [Pair(a, b) for a, b in zip(lefts, right.texts, strict=True)]
    has_one_limit = left.max_tokens == right.max_tokens
    call = EmbedCall(
        inputs=pairs,
        model=model.spec.name,
        kind=OutputKind.LABELS,
        truncate=truncate,
        max_tokens=left.max_tokens if has_one_limit else None,
        max_second_tokens=None if has_one_limit else right.max_tokens,
        instruction=left.instruction,
    )
    try:
        return await embed(api_request, call, is_list=right.is_list, source=right.source)
    except InputError as error:
        if error.param == QUERY_PARAM:
            error.param = left.source
        raise


async def _max_sims(
    api_request: ApiRequest,
    model: ServedModel,
    left: TextSide,
    right: TextSide,
    truncate: Truncation,
) -> RelevanceScores:
    """Score by late interaction: for each token on the left its nearest on the right, summed."""
    queries = await _embed(api_request, model, left, truncate, OutputKind.TOKENS)
    documents = await _embed(api_request, model, right, truncate, OutputKind.TOKENS)
    lefts, rights = queries.by_input(queries.vectors), documents.by_input(documents.vectors)
    cells = len(queries.vectors) * len(documents.vectors)
    values = await compute(partial(_all_max_sims, lefts, rights), size=cells)
    tokens = sum(queries.input_tokens) + sum(documents.input_tokens)
    return RelevanceScores(np.array(values), tokens, MAX_SIM)


def _all_max_sims(lefts: Sequence[FloatArray], rights: Sequence[FloatArray]) -> list[float]:
    """Score pair by pair, or a single query against all documents."""
    if len(lefts) == 1:
        return max_sim(lefts[0], rights)
    return [max_sim(a, [b])[0] for a, b in zip(lefts, rights, strict=True)]


async def _cosines(
    api_request: ApiRequest,
    model: ServedModel,
    left: TextSide,
    right: TextSide,
    truncate: Truncation,
) -> RelevanceScores:
    """Score by cosine, in one call where no prompt tells the sides apart."""
    if model.spec.prompts or left.max_tokens != right.max_tokens or left.instruction is not None:
        first = await _embed(api_request, model, left, truncate)
        second = await _embed(api_request, model, right, truncate)
        tokens = sum(first.input_tokens) + sum(second.input_tokens)
        values = await row_products(first.vectors, second.vectors)
        return RelevanceScores(values, tokens, COSINE)
    both = TextSide([*left.texts, *right.texts], "", max_tokens=left.max_tokens)
    try:
        result = await _embed(api_request, model, both, truncate)
    except InternalError as error:
        error.input_index = None  # it counts both sides as one list
        raise
    except InputError as error:
        _name_side(error, left, right)
        raise
    count = len(left.texts)
    values = await row_products(result.vectors[:count], result.vectors[count:])
    return RelevanceScores(values, sum(result.input_tokens), COSINE)


async def row_products(left: FloatArray, right: FloatArray) -> NDArray[np.float64]:
    """Multiply vectors (N, D), or a single one, with as many others, row by row; (N,)."""

    def multiply() -> NDArray[np.float64]:
        products: NDArray[np.float64] = np.sum(
            left.astype(np.float64) * right.astype(np.float64), axis=1
        )
        return products

    return await compute(multiply, size=right.size)


async def _embed(
    api_request: ApiRequest,
    model: ServedModel,
    side: TextSide,
    truncate: Truncation,
    kind: OutputKind = OutputKind.DENSE,
) -> EmbedResult:
    call = EmbedCall(
        inputs=side.texts,
        model=api_request.model_name() or model.spec.name,
        kind=kind,
        normalize=True,
        truncate=truncate,
        prompt_role=side.role,
        instruction=side.instruction,
        max_tokens=side.max_tokens,
    )
    return await embed(api_request, call, is_list=side.is_list, source=side.source)


def _name_side(error: InputError, left: TextSide, right: TextSide) -> None:
    """Make an error of a call with both sides name the side and the index there."""
    index = error.input_index
    if index is None:
        return
    side = left if index < len(left.texts) else right
    error.param = side.source
    error.input_index = (index - (0 if side is left else len(left.texts))) if side.is_list else None
