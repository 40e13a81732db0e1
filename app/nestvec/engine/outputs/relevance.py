"""How relevant texts or pictures are to a query: by a cross-encoder, by late interaction, or by cosine."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.pictures.picture import PICTURE_KINDS, MixedInput, Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import (
    EmbedCall,
    Float64Array,
    FloatArray,
    OutputKind,
    Pair,
    Truncation,
)
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.engine.vectors.term_table import term_products
from nestvec.engine.vectors.token_vectors import max_sim
from nestvec.errors import InputError, InternalError, UnsupportedError

COSINE: Final = "cosine"
COSINE_AND_TERMS: Final = "cosine+terms"
RANKS_OF_BOTH: Final = "rrf"
CROSS_ENCODER: Final = "cross-encoder"
MAX_SIM: Final = "max-sim"
LEXICAL_WEIGHT: Final = "lexical_weight"
# The constant of reciprocal ranks (Cormack, Clarke, Büttcher: Reciprocal Rank Fusion, SIGIR 2009).
RANK_CONSTANT: Final = 60
QUERY_PARAM: Final = "query"  # what the engine calls the first text of a pair

Result = TypeVar("Result")


class Fusion(StrEnum):
    """How scores of two kinds make one."""

    WEIGHTED = "weighted"  # the scores themselves, each with its share
    RRF = "rrf"  # their reciprocal ranks


@dataclass(frozen=True, slots=True)
class TextSide:
    """The texts on one side of a comparison, and the pictures.

    Attributes:
        texts: One, or as many as on the other side.
        source: The field that they came from, for errors.
        role: What they are for ("query", "passage"), if that is known.
        is_list: Whether they came as a list, so that an error names one of them.
        max_tokens: How many tokens of each are taken, if fewer than the model takes.
        instruction: What is wanted of the other side's texts, for queries of models that take it; None for none.
    """

    texts: Sequence[str | Picture | MixedInput]
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
        method: How the scores were computed; it is told with them, as a cosine is no probability.
    """

    values: NDArray[np.float64]
    tokens: int
    method: str


class Compute(Protocol):
    """Computes with arrays where that holds nobody up."""

    async def __call__(self, work: Callable[[], Result], *, size: int) -> Result:
        """Do work that goes through so many values."""


@dataclass(frozen=True, slots=True)
class RelevanceScorer:
    """Scores texts pair by pair, or a single text on the left against all on the right, by the model's best method.

    Attributes:
        spec: The model that scores.
        embed: Runs a call on the texts of a side, whose errors name the side's field.
        compute: Computes with the vectors.
        name: The name by which the model was asked for, which may stand for a prompt.
    """

    spec: ModelSpec
    embed: Callable[[EmbedCall, TextSide], Awaitable[EmbedResult]]
    compute: Compute
    name: str = ""

    async def scores(
        self,
        left: TextSide,
        right: TextSide,
        truncate: Truncation,
        *,
        lexical_weight: float = 0.0,
        fusion: Fusion = Fusion.WEIGHTED,
    ) -> RelevanceScores:
        """Score the queries on the left against the documents on the right.

        Args:
            left: The queries.
            right: The documents.
            truncate: What is done with texts that are too long.
            lexical_weight: Share of the terms' products in the scores, 0 to 1, beside cosines with a single query.
            fusion: How both make one score.

        Raises:
            InputError: A text cannot be embedded; names the field and the index. Or the model has no cosines and
                weights of terms to fuse.
            UnsupportedError: The model has several labels, gives weights of terms only, or takes texts only and there
                is a picture.
        """
        kinds = self.spec.kinds
        if self.spec.pictures is None:
            _plain_texts(left, self.spec.name)
            _plain_texts(right, self.spec.name)
        if lexical_weight:
            self._check_fusion()
            cosines = await self._cosines(left, right, truncate)
            return await self._fused(cosines, left, right, truncate, (lexical_weight, fusion))
        if OutputKind.LABELS in kinds:
            result = await self.cross_encoder_scores(left, right, truncate)
            values = probabilities(result.vectors, self.spec.activation)[:, 0]
            return RelevanceScores(values, sum(result.input_tokens), CROSS_ENCODER)
        if OutputKind.DENSE in kinds:
            return await self._cosines(left, right, truncate)
        if OutputKind.TOKENS in kinds:
            return await self._max_sims(left, right, truncate)
        raise UnsupportedError(f"{self.spec.name} gives terms' weights: it scores no pairs")

    def _check_fusion(self) -> None:
        """Refuse to fuse scores of which the model lacks one.

        Raises:
            InputError: Says which, and what helps.
        """
        kinds, problem = self.spec.kinds, None
        if OutputKind.LABELS in kinds:
            problem = "is a cross-encoder or classifier, which reads both texts' words itself"
        elif OutputKind.DENSE not in kinds:
            problem = "does not score by cosine"
        elif OutputKind.SPARSE not in kinds:
            problem = (
                "has no weights of terms; `nestvec model fit --idf --texts FILE` counts them, for a model that is "
                "served by itself"
            )
        if problem is not None:
            raise InputError(f"{self.spec.name} {problem}", param=LEXICAL_WEIGHT)

    async def _fused(
        self,
        cosines: RelevanceScores,
        left: TextSide,
        right: TextSide,
        truncate: Truncation,
        share: tuple[float, Fusion],
    ) -> RelevanceScores:
        """Mix cosines with products of terms: the scores, or their reciprocal ranks."""
        # An instruction is for the model that reads it.
        query = await self._embed(replace(left, instruction=None), truncate, OutputKind.SPARSE)
        documents = await self._embed(right, truncate, OutputKind.SPARSE)
        work = partial(term_products, query.vectors, documents.vectors, documents.rows)
        products = await self.compute(work, size=documents.vectors.size)
        weight, fusion = share
        fuse = fused_ranks if fusion is Fusion.RRF else fused_scores
        values = fuse(cosines.values, products, weight)
        tokens = cosines.tokens + sum(query.input_tokens) + sum(documents.input_tokens)
        method = RANKS_OF_BOTH if fusion is Fusion.RRF else COSINE_AND_TERMS
        return RelevanceScores(values, tokens, method)

    async def cross_encoder_scores(
        self, left: TextSide, right: TextSide, truncate: Truncation
    ) -> EmbedResult:
        """Return a cross-encoder's scores before any activation, as vectors `[N, 1]`.

        Raises:
            InputError: A pair cannot be run; names the index on the right.
            UnsupportedError: The model has several labels, or there is a picture.
        """
        if not self.spec.is_reranker:
            raise UnsupportedError(
                f"model is not a re-ranker model: {self.spec.name} has {len(self.spec.labels)} labels"
            )
        firsts, seconds = (_plain_texts(side, self.spec.name) for side in (left, right))
        lefts = [*firsts] * (len(seconds) if len(firsts) == 1 else 1)
        pairs = [Pair(a, b) for a, b in zip(lefts, seconds, strict=True)]
        has_one_limit = left.max_tokens == right.max_tokens
        call = EmbedCall(
            inputs=pairs,
            model=self.spec.name,
            kind=OutputKind.LABELS,
            truncate=truncate,
            max_tokens=left.max_tokens if has_one_limit else None,
            max_second_tokens=None if has_one_limit else right.max_tokens,
            instruction=left.instruction,
        )
        try:
            return await self.embed(call, right)
        except InputError as error:
            if error.param == QUERY_PARAM:
                error.param = left.source
            raise

    async def _max_sims(
        self, left: TextSide, right: TextSide, truncate: Truncation
    ) -> RelevanceScores:
        """Score by late interaction: for each token on the left its nearest on the right, summed."""
        late = self.spec.late_interaction
        if late is not None and late.takes_queries_unasked:
            # Of fields that name no roles, such as `text_1` and `text_2`.
            left = replace(left, role=left.role or "query")
            right = replace(right, role=right.role or "passage")
        queries = await self._embed(left, truncate, OutputKind.TOKENS)
        documents = await self._embed(right, truncate, OutputKind.TOKENS)
        lefts, rights = queries.by_input(queries.vectors), documents.by_input(documents.vectors)
        cells = len(queries.vectors) * len(documents.vectors)
        values = await self.compute(partial(_all_max_sims, lefts, rights), size=cells)
        tokens = sum(queries.input_tokens) + sum(documents.input_tokens)
        return RelevanceScores(np.array(values), tokens, MAX_SIM)

    async def _cosines(
        self, left: TextSide, right: TextSide, truncate: Truncation
    ) -> RelevanceScores:
        """Score by cosine, in one call where no prompt tells the sides apart."""
        has_one_limit = left.max_tokens == right.max_tokens
        if self.spec.prompts or not has_one_limit or left.instruction is not None:
            first = await self._embed(left, truncate)
            second = await self._embed(right, truncate)
            tokens = sum(first.input_tokens) + sum(second.input_tokens)
            values = await row_products(first.vectors, second.vectors, self.compute)
            return RelevanceScores(values, tokens, COSINE)
        both = TextSide([*left.texts, *right.texts], "", max_tokens=left.max_tokens)
        try:
            result = await self._embed(both, truncate)
        except InternalError as error:
            error.input_index = None  # it counts both sides as one list
            raise
        except InputError as error:
            _name_side(error, left, right)
            raise
        count = len(left.texts)
        values = await row_products(result.vectors[:count], result.vectors[count:], self.compute)
        return RelevanceScores(values, sum(result.input_tokens), COSINE)

    async def _embed(
        self, side: TextSide, truncate: Truncation, kind: OutputKind = OutputKind.DENSE
    ) -> EmbedResult:
        # What an alias stands for beside its model is of vectors.
        is_sparse = kind is OutputKind.SPARSE
        call = EmbedCall(
            inputs=side.texts,
            model=self.spec.name if is_sparse else self.name or self.spec.name,
            kind=kind,
            normalize=True,
            truncate=truncate,
            prompt_role=side.role,
            instruction=side.instruction,
            max_tokens=side.max_tokens,
        )
        return await self.embed(call, side)


def fused_scores(cosines: Float64Array, products: Float64Array, weight: float) -> Float64Array:
    """Mix scores, (N,): `weight` of the products over the greatest of them, and the rest of the cosines.

    Args:
        cosines: Cosines of a query with documents, (N,).
        products: Products of their weights of terms, (N,).
        weight: The products' share, 0 to 1.
    """
    greatest = products.max(initial=0)
    share = products / greatest if greatest > 0 else np.zeros(len(products))
    return np.asarray((1 - weight) * cosines + weight * share)


def fused_ranks(cosines: Float64Array, products: Float64Array, weight: float) -> Float64Array:
    """Mix reciprocal ranks, (N,), scaled such that what is first by both scores has 1.

    Equal scores share the best of their ranks, so that the order of the documents decides nothing; a document that has
    no term of the query has no rank by terms.

    Args:
        cosines: Cosines of a query with documents, (N,).
        products: Products of their weights of terms, (N,).
        weight: The share of ranks by products, 0 to 1; 0.5 is the published formula's order.
    """
    first = RANK_CONSTANT + 1
    by_terms = np.where(products > 0, first / (RANK_CONSTANT + _ranks(products)), 0.0)
    by_cosine = first / (RANK_CONSTANT + _ranks(cosines))
    return np.asarray((1 - weight) * by_cosine + weight * by_terms)


def _ranks(scores: Float64Array) -> NDArray[np.int64]:
    """Rank of each score, (N,), from 1 for the greatest."""
    rising = np.sort(scores)
    return np.asarray(len(scores) - np.searchsorted(rising, scores, side="right") + 1)


async def row_products(
    left: FloatArray, right: FloatArray, compute: Compute
) -> NDArray[np.float64]:
    """Multiply vectors (N, D), or a single one, with as many others, row by row; (N,)."""

    def multiply() -> NDArray[np.float64]:
        products: NDArray[np.float64] = np.sum(
            left.astype(np.float64) * right.astype(np.float64), axis=1
        )
        return products

    return await compute(multiply, size=right.size)


def _all_max_sims(lefts: Sequence[FloatArray], rights: Sequence[FloatArray]) -> list[float]:
    """Score pair by pair, or a single query against all documents."""
    if len(lefts) == 1:
        return max_sim(lefts[0], rights)
    return [max_sim(a, [b])[0] for a, b in zip(lefts, rights, strict=True)]


def _plain_texts(side: TextSide, name: str) -> Sequence[str]:
    """Return the texts of a side.

    Raises:
        UnsupportedError: There is a picture among them, which the model of this name does not take.
    """
    place = next((n for n, each in enumerate(side.texts) if type(each) in PICTURE_KINDS), None)
    if place is not None:
        raise UnsupportedError(
            f"{name} takes texts only, and this is a picture",
            param=side.source,
            input_index=place if side.is_list else None,
        )
    return cast("Sequence[str]", side.texts)


def _name_side(error: InputError, left: TextSide, right: TextSide) -> None:
    """Make an error of a call with both sides name the side and the index there."""
    index = error.input_index
    if index is None:
        return
    side = left if index < len(left.texts) else right
    error.param = side.source
    error.input_index = (index - (0 if side is left else len(left.texts))) if side.is_list else None
