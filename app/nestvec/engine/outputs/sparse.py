"""Weights of vocabulary terms: SPLADE (arXiv:2109.10086), and BGE-M3's lexical weights (arXiv:2402.03216)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from nestvec.engine.model_spec import ModelSpec, QueryLookup
from nestvec.engine.outputs.base import OutputAdapter
from nestvec.engine.results import RawVectors
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.tokenization import encode_inputs, is_query_call
from nestvec.engine.types import EmbedCall, FloatArray, Item
from nestvec.engine.vectors.pooler import Pooler, RowFunction
from nestvec.engine.vectors.pooling import pool

# States of so many tokens at a time become weights of all terms: 128 x 30,522 of them are 16 MB.
VOCABULARY_STEP: Final = 128

MERGES: Final[Mapping[str, Callable[..., FloatArray]]] = {"max": np.max, "sum": np.sum}


class SparseOutput(OutputAdapter):
    """Gives a row (id, weight) for each term of positive weight, ids rising.

    Ids are below 2^24, which float32 holds exactly.
    """

    needed_model = "a sparse model (SPLADE)"
    has_dimensions = False

    @override
    def model_words(self, spec: ModelSpec) -> str:
        """Return the word for a model whose main output is sparse."""
        return "sparse"

    @override
    def tokenize(
        self, tokenizer: Tokenizer, spec: ModelSpec, call: EmbedCall, options: TokenizeOptions
    ) -> list[Encoded]:
        """Tokenize all inputs of a call; queries whose words alone are weighed without special tokens around them."""
        lookup = spec.query_lookup
        if lookup is not None and not lookup.adds_special_tokens and is_looked_up(call, lookup):
            options = replace(options, adds_special_tokens=False, allows_nothing=True)
        return encode_inputs(tokenizer, spec, call, options)

    @override
    def look_up(
        self, call: EmbedCall, encoded: Sequence[Encoded], spec: ModelSpec, pooler: Pooler
    ) -> RawVectors | None:
        """Weigh queries by stored weights alone, for models that were trained so: no model runs."""
        lookup = spec.query_lookup
        if lookup is None or pooler.term_weights is None or not is_looked_up(call, lookup):
            return None
        rows = [stored_weights(value.ids, pooler.term_weights) for value in encoded]
        return RawVectors(np.concatenate(rows), tuple(map(len, rows)), 0.0, 0.0)

    @override
    def width(self, pooler: Pooler, hidden_size: int) -> int:
        """Return 0: a row is a term, not a vector."""
        return 0

    @override
    def rows(self, states: FloatArray, item: Item, pooler: Pooler) -> FloatArray:
        """Weigh the terms of an item, (k, 2)."""
        if pooler.lexical_column is not None:
            return lexical_weights(states, item.ids, pooler, pooler.lexical_column)
        if pooler.latent_head is not None:
            return latent_weights(states, item.skip_tokens, pooler, pooler.latent_head)
        return vocabulary_weights(states, pooler)


def is_looked_up(call: EmbedCall, lookup: QueryLookup) -> bool:
    """Whether a call's texts are queries for a model that weighs those by stored weights."""
    has_role = call.prompt_role is not None or call.prompt_name is not None
    return is_query_call(call) or (lookup.is_default and not has_role)


def vocabulary_weights(states: FloatArray, pooler: Pooler) -> FloatArray:
    """Weigh all terms of the vocabulary by each token state, and merge the tokens' weights (SPLADE); (k, 2).

    Args:
        states: The item's token states, (n, W).
        pooler: The model's pooler.

    Raises:
        ValueError: The model has no sparse output.
    """
    if pooler.vocabulary_head is None:
        raise ValueError("this model has no sparse output")
    merge = MERGES[pooler.merge]
    starts = range(0, len(states), VOCABULARY_STEP)
    parts = [pooler.vocabulary_head(states[start : start + VOCABULARY_STEP]) for start in starts]
    weights = merge(np.concatenate(parts), axis=0)
    terms = np.flatnonzero(weights > 0)
    return np.stack([terms.astype(np.float32), weights[terms]], axis=1)


def latent_weights(
    states: FloatArray, skip_tokens: int, pooler: Pooler, head: RowFunction
) -> FloatArray:
    """Take the greatest latents of a text's pooled states, those above zero (arXiv:2503.01776); (k, 2).

    Args:
        states: The item's token states, (n, W).
        skip_tokens: Number of leading tokens that are not pooled.
        pooler: The model's pooler.
        head: Pooled rows to latents.
    """
    offsets, skip = np.array([0, len(states)]), np.array([skip_tokens])
    latents = head(pool(pooler.pooling, states, offsets, skip))[0]
    count = min(pooler.active_latents, len(latents))
    greatest = np.sort(np.argpartition(latents, len(latents) - count)[len(latents) - count :])
    kept = greatest[latents[greatest] > 0]
    return np.stack([kept.astype(np.float32), latents[kept]], axis=1)


def lexical_weights(
    states: FloatArray, ids: NDArray[np.int32], pooler: Pooler, column: int
) -> FloatArray:
    """Take the greatest weight that the tokens of an id have (BGE-M3); (k, 2).

    Args:
        states: The item's token states, (n, W).
        ids: Its token ids, (n,).
        pooler: The model's pooler.
        column: The column of the states that holds each token's weight.
    """
    terms, term_of_token = np.unique(ids, return_inverse=True)
    weights = np.zeros(len(terms), np.float32)
    np.maximum.at(weights, term_of_token, np.maximum(states[:, column], 0))
    kept = (weights > 0) & ~np.isin(terms, pooler.special_ids)
    return np.stack([terms[kept].astype(np.float32), weights[kept]], axis=1)


def stored_weights(ids: NDArray[np.int32], term_weights: FloatArray) -> FloatArray:
    """Weigh a query's terms by their stored weights, (k, 2).

    Args:
        ids: The query's token ids, (n,).
        term_weights: The weight of every id, (V,).
    """
    terms = np.unique(ids)
    weights = term_weights[terms]
    kept = weights != 0  # trained ones may be below it
    return np.stack([terms[kept].astype(np.float32), weights[kept]], axis=1)
