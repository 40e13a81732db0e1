"""Labels of texts and pairs, by a classifier: TEI's `/predict` and vLLM's `/classify`."""

from collections.abc import Callable
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec.api.requests.fields import invalid_item
from nestvec.api.requests.json_parts import Turns
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.types import FloatArray, Pair
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.errors import EmptyInputError, InputError

# An item is a text or a pair.
MAX_TEXTS_PER_ITEM: Final = 2


def parse_pairs(
    value: object, param: str, *, check_count: Callable[[int], None]
) -> tuple[list[str | Pair], bool]:
    """Read texts and pairs in TEI's grammar: a text, `[text]`, a pair `[a, b]`, or a list of such lists.

    Args:
        value: As parsed from JSON.
        param: The field that it came from, for errors.
        check_count: Raises for too many items; called first, so that a million of them cost nothing.

    Returns:
        The items, and whether they came as a list of items.

    Raises:
        InputError: The value is something else; names the item.
    """
    if isinstance(value, str):
        return [value], False
    if not isinstance(value, list):
        raise InputError(f"'{param}' must be a string or a list", param=param, code="invalid_type")
    if not value:
        raise EmptyInputError(f"`{param}` cannot be empty", param=param)
    if set(map(type, value)) == {str}:
        if len(value) > MAX_TEXTS_PER_ITEM:
            raise InputError(
                f"'{param}' must hold one text or a pair; a batch is a list of lists", param=param
            )
        return [_text_or_pair(value)], False
    check_count(len(value))
    items = []
    for index, item in enumerate(value):
        is_text = isinstance(item, str)
        is_short = isinstance(item, list) and 1 <= len(item) <= MAX_TEXTS_PER_ITEM
        if not is_text and not (is_short and all(isinstance(text, str) for text in item)):
            raise invalid_item(param, index, "must be a list of one text or two")
        items.append(item if is_text else _text_or_pair(item))
    return items, True


async def ranked_labels(
    scores: FloatArray, spec: ModelSpec, *, is_raw: bool = False
) -> list[bytes]:
    """Return the labels of each item with their scores, the highest first, as JSON.

    Args:
        scores: `[B, L]` float32, before any activation.
        spec: The model's, which names the labels.
        is_raw: Whether the scores stay without an activation.
    """
    values = tei_probabilities(scores) if not is_raw else scores.astype(np.float64)
    turns = Turns()
    labels = []
    for row in values:
        order = np.argsort(-row, kind="stable").tolist()
        ranked = [{"score": float(row[n]), "label": spec.labels[n]} for n in order]
        labels.append(orjson.dumps(ranked))
        await turns.spend(len(ranked))
    return labels


def tei_probabilities(scores: FloatArray) -> NDArray[np.float64]:
    """Apply TEI's activation to scores `[B, L]`: sigmoid of one label, else softmax, whatever the model's files say."""
    return probabilities(scores, "sigmoid" if scores.shape[1] == 1 else "softmax")


def _text_or_pair(texts: list[str]) -> str | Pair:
    return texts[0] if len(texts) == 1 else Pair(*texts)
