"""How near texts are to a query: by a cross-encoder, by late interaction, or by cosine, as the model served can."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.api.requests.api_request import Asked, embed
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall, EmbedResult, FloatArray, OutputKind, Pair, Truncation
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.engine.vectors.token_vectors import max_sim
from nestvec.errors import InputError, InternalError, UnsupportedError

COSINE: Final = "cosine"
CROSS_ENCODER: Final = "cross-encoder"
MAX_SIM: Final = "max-sim"


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of one side.

    Attributes:
        source: The field they came from, for errors.
        role: What they are for, if that is known.
        is_list: Whether they came as a list.
        max_tokens: Take fewer tokens of each than the model could.
    """

    texts: Sequence[str]
    source: str
    role: str | None = None
    is_list: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each pair.

    Attributes:
        values: (max(n, m),), float64.
        tokens: All that were run.
        method: How they came about; told in a header, as a cosine is no probability.
    """

    values: NDArray[np.float64]
    tokens: int
    method: str

    @property
    def headers(self) -> dict[str, str]:
        """Of an answer."""
        return {"x-embed-score": self.method}


async def score(
    asked: Asked, model: ServedModel, left: Texts, right: Texts, truncate: Truncation
) -> Scores:
    """Scores of each pair of the same place, or of one with all.

    Raises:
        InputError: A text cannot be embedded; names the field and the place.
        UnsupportedError: The model has several labels, or terms only.
    """
    kinds = model.spec.kinds
    if OutputKind.LABELS in kinds:
        result = await score_pairs(asked, model, left, right, truncate)
        values = probabilities(result.vectors, model.spec.activation)[:, 0]
        return Scores(values, sum(result.input_tokens), CROSS_ENCODER)
    if OutputKind.DENSE in kinds:
        return await _cosines(asked, model, left, right, truncate)
    if OutputKind.TOKENS in kinds:
        return await _late(asked, model, left, right, truncate)
    raise UnsupportedError(f"{model.spec.name} gives terms' weights: it scores no pairs")


async def score_pairs(
    asked: Asked, model: ServedModel, left: Texts, right: Texts, truncate: Truncation
) -> EmbedResult:
    """A re-ranker's scores before any activation, (n, 1).

    Raises:
        InputError: A pair cannot be run; names the place on the right.
        UnsupportedError: The model has several labels.
    """
    if not model.spec.is_reranker:
        raise UnsupportedError(
            f"model is not a re-ranker model: {model.spec.name} has {len(model.spec.labels)} labels"
        )
    firsts = [*left.texts] * (len(right.texts) if len(left.texts) == 1 else 1)
    pairs = [Pair(one, other) for one, other in zip(firsts, right.texts, strict=True)]
    same = left.max_tokens == right.max_tokens
    call = EmbedCall(
        inputs=pairs,
        model=model.spec.name,
        kind=OutputKind.LABELS,
        truncate=truncate,
        max_tokens=left.max_tokens if same else None,
        max_second_tokens=None if same else right.max_tokens,
    )
    return await embed(asked, call, is_list=right.is_list, source=right.source)


async def _late(
    asked: Asked, model: ServedModel, left: Texts, right: Texts, truncate: Truncation
) -> Scores:
    """Sums over the left's tokens of their nearest on the right."""
    queries = await _embed(asked, model, left, truncate, OutputKind.TOKENS)
    documents = await _embed(asked, model, right, truncate, OutputKind.TOKENS)
    firsts, others = queries.by_input(queries.vectors), documents.by_input(documents.vectors)
    if len(firsts) == 1:
        values = max_sim(firsts[0], others)
    else:
        values = [max_sim(one, [other])[0] for one, other in zip(firsts, others, strict=True)]
    tokens = sum(queries.input_tokens) + sum(documents.input_tokens)
    return Scores(np.array(values), tokens, MAX_SIM)


async def _cosines(
    asked: Asked, model: ServedModel, left: Texts, right: Texts, truncate: Truncation
) -> Scores:
    """In one call where no prompt tells the sides apart."""
    if model.spec.prompts or left.max_tokens != right.max_tokens:
        first = await _embed(asked, model, left, truncate)
        second = await _embed(asked, model, right, truncate)
        tokens = sum(first.input_tokens) + sum(second.input_tokens)
        return Scores(_products(first.vectors, second.vectors), tokens, COSINE)
    both = Texts([*left.texts, *right.texts], "", max_tokens=left.max_tokens)
    try:
        found = await _embed(asked, model, both, truncate)
    except InternalError as error:
        error.input_index = None  # it counts both sides as one
        raise
    except InputError as error:
        _place(error, left, right)
        raise
    count = len(left.texts)
    values = _products(found.vectors[:count], found.vectors[count:])
    return Scores(values, sum(found.input_tokens), COSINE)


def _products(left: FloatArray, right: FloatArray) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.sum(left.astype(np.float64) * right.astype(np.float64), axis=1)
    return found


async def _embed(
    asked: Asked,
    model: ServedModel,
    side: Texts,
    truncate: Truncation,
    kind: OutputKind = OutputKind.DENSE,
) -> EmbedResult:
    call = EmbedCall(
        inputs=side.texts,
        model=asked.model_name() or model.spec.name,
        kind=kind,
        normalize=True,
        truncate=truncate,
        prompt_role=side.role,
        max_tokens=side.max_tokens,
    )
    return await embed(asked, call, is_list=side.is_list, source=side.source)


def _place(error: InputError, left: Texts, right: Texts) -> None:
    """Name the side that a text of both came from."""
    index = error.input_index
    if index is None:
        return
    side = left if index < len(left.texts) else right
    error.param = side.source
    error.input_index = (index - (0 if side is left else len(left.texts))) if side.is_list else None
