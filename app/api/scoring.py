"""How near texts are to a query: by cosine, as the models served so far give vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.api.calls import Asked, embed
from app.engine.registry import ServedModel
from app.engine.types import EmbedCall, FloatArray, Truncation
from app.errors import InputError, InternalError

SCORE_HEADER: Final = {"x-embed-score": "cosine"}  # not a cross-encoder's probability


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
class Sides:
    """Vectors of both sides, (n, D) and (m, D), float32, unit length, and all tokens."""

    left: FloatArray
    right: FloatArray
    tokens: int

    def cosines(self) -> NDArray[np.float64]:
        """Of each pair of the same place, or of one with all; (max(n, m),)."""
        found: NDArray[np.float64] = np.sum(
            self.left.astype(np.float64) * self.right.astype(np.float64), axis=1
        )
        return found


async def embed_sides(
    asked: Asked, model: ServedModel, left: Texts, right: Texts, truncate: Truncation
) -> Sides:
    """Vectors of both sides; in one call where no prompt tells them apart.

    Raises:
        InputError: A text cannot be embedded; names the field and the place.
    """
    if model.spec.prompts or left.max_tokens != right.max_tokens:
        first, first_tokens = await _embed(asked, left, truncate)
        second, second_tokens = await _embed(asked, right, truncate)
        return Sides(first, second, first_tokens + second_tokens)
    both = Texts([*left.texts, *right.texts], "", max_tokens=left.max_tokens)
    try:
        vectors, tokens = await _embed(asked, both, truncate)
    except InternalError as error:
        error.input_index = None  # it counts both sides as one
        raise
    except InputError as error:
        _place(error, left, right)
        raise
    return Sides(vectors[: len(left.texts)], vectors[len(left.texts) :], tokens)


async def _embed(asked: Asked, side: Texts, truncate: Truncation) -> tuple[FloatArray, int]:
    call = EmbedCall(
        inputs=side.texts,
        model=asked.model_name(),
        normalize=True,
        truncate=truncate,
        prompt_role=side.role,
        max_tokens=side.max_tokens,
    )
    result = await embed(asked, call, is_list=side.is_list, source=side.source)
    return result.vectors, sum(result.input_tokens)


def _place(error: InputError, left: Texts, right: Texts) -> None:
    """Name the side that a text of both came from."""
    index = error.input_index
    if index is None:
        return
    side = left if index < len(left.texts) else right
    error.param = side.source
    error.input_index = (index - (0 if side is left else len(left.texts))) if side.is_list else None
