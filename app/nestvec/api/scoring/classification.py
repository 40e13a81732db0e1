"""Labels of texts and pairs, by a classifier: TEI's `/predict` and vLLM's `/classify`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestvec.api.requests.fields import wrong_item
from nestvec.engine.models.served_model import ModelSpec
from nestvec.engine.types import FloatArray, Pair
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.errors import EmptyInputError, InputError

MOST_TEXTS = 2  # of one item: a text, or a pair


def parse_pairs(given: object, param: str) -> tuple[list[str | Pair], bool]:
    """TEI's grammar: a text, `[text]`, a pair `[a, b]`, or a list of such lists.

    Returns:
        The items, and whether there may be several.

    Raises:
        InputError: Something else; names the item.
    """
    if isinstance(given, str):
        return [given], False
    if not isinstance(given, list):
        raise InputError(f"'{param}' must be a string or a list", param=param, code="invalid_type")
    if not given:
        raise EmptyInputError(f"`{param}` cannot be empty", param=param)
    if all(isinstance(one, str) for one in given):
        if len(given) > MOST_TEXTS:
            raise InputError(
                f"'{param}' must hold one text or a pair; a batch is a list of lists", param=param
            )
        return [_one(given)], False
    items = []
    for index, one in enumerate(given):
        is_text = isinstance(one, str)
        is_texts = isinstance(one, list) and all(isinstance(text, str) for text in one)
        if not is_text and not (is_texts and 1 <= len(one) <= MOST_TEXTS):
            raise wrong_item(param, index, "must be a list of one text or two")
        items.append(one if is_text else _one(one))
    return items, True


def ranked(
    scores: FloatArray, spec: ModelSpec, *, is_raw: bool = False
) -> list[list[dict[str, Any]]]:
    """Labels of each item with their scores, the highest first.

    Args:
        scores: (B, L), before any activation.
        spec: The model's.
        is_raw: Leave them so.
    """
    shown = likelihoods(scores) if not is_raw else scores.astype(np.float64)
    found = []
    for row in shown:
        order = np.argsort(-row, kind="stable").tolist()
        found.append([{"score": float(row[n]), "label": spec.labels[n]} for n in order])
    return found


def likelihoods(scores: FloatArray) -> NDArray[np.float64]:
    """As TEI does: sigmoid of one label, softmax of several, whatever the model's files say."""
    return probabilities(scores, "sigmoid" if scores.shape[1] == 1 else "softmax")


def _one(texts: list[str]) -> str | Pair:
    return texts[0] if len(texts) == 1 else Pair(*texts)
