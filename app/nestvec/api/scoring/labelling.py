"""Probabilities of labels, by a model of vectors or by a classifier, and what an answer says of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec.api.requests.json_parts import OBJECTS_PER_SLICE, Turns, join_parts, listed
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.label_calibration import (
    PLAIN_TEMPERATURE,
    LabelCalibration,
    softmax_at,
)
from nestvec.engine.vectors.label_scale import LabelScale

LabelMask = NDArray[np.bool_]
# A label that may go with others is given where it is as likely as not, if nobody measured a better threshold.
EVEN_CHANCE: Final = 0.5


@dataclass(frozen=True, slots=True)
class LabelProbabilities:
    """What is known of the labels of each text or picture.

    Attributes:
        values: The probability of each label, (B, K), float64.
        is_calibrated: Whether texts of known labels taught them.
        chosen: Which labels apply, (B, K), where several may; None where one does.
        sets: Which labels are in each conformal set, (B, K); None where none was asked for.
    """

    values: Float64Array
    is_calibrated: bool
    chosen: LabelMask | None = None
    sets: LabelMask | None = None


def label_probabilities(
    cosines: FloatArray,
    calibration: LabelCalibration | None,
    *,
    is_multi_label: bool = False,
    threshold: float | None = None,
) -> LabelProbabilities:
    """Turn cosines with labels into probabilities.

    Args:
        cosines: (B, K).
        calibration: What was learned of them; None for nothing.
        is_multi_label: Whether labels may go together; needs a calibration.
        threshold: Up to which score a label is in a conformal set; needs a calibration. None gives no sets.
    """
    if is_multi_label and calibration is not None:
        independent = calibration.independent(cosines)
        return LabelProbabilities(independent, True, calibration.chosen(independent))  # noqa: FBT003 - a record's field
    temperature = None if calibration is None else calibration.temperature
    values = softmax_at(cosines, temperature or PLAIN_TEMPERATURE)
    sets = None if threshold is None else np.asarray(1 - values <= threshold)
    return LabelProbabilities(values, temperature is not None, sets=sets)


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Which rows of cosines with labels are of which kinds, where pictures are among rows or labels.

    Attributes:
        crossing: Which rows are pictures by labels of texts, or texts by labels of pictures, (B,).
        calibrated: Which rows are of the kind that a calibration is of, (B,); of none without one.
    """

    crossing: LabelMask
    calibrated: LabelMask


def mixed_probabilities(
    cosines: FloatArray,
    rows: LabelledRows,
    scale: LabelScale | None,
    calibration: LabelCalibration | None = None,
    *,
    is_multi_label: bool = False,
) -> LabelProbabilities:
    """Turn cosines of pictures, and of texts among them, with labels into probabilities.

    Args:
        cosines: (B, K).
        rows: Of which kinds they are.
        scale: What the model learned of cosines of pictures with texts; None for nothing.
        calibration: What was learned of cosines with these labels; None for nothing.
        is_multi_label: Whether labels may go together; needs a scale with an offset, and rows that cross only.
    """
    if is_multi_label and scale is not None:
        independent = scale.independent(cosines)
        return LabelProbabilities(independent, False, independent >= EVEN_CHANCE)  # noqa: FBT003 - a record's field
    of_crossing = PLAIN_TEMPERATURE if scale is None else scale.temperature
    temperatures = np.where(rows.crossing, of_crossing, PLAIN_TEMPERATURE)
    if calibration is not None and calibration.temperature is not None:
        temperatures = np.where(rows.calibrated, calibration.temperature, temperatures)
    return LabelProbabilities(softmax_at(cosines, temperatures[:, None]), is_calibrated=False)


async def classifications_json(
    labels: Sequence[str], probabilities: LabelProbabilities
) -> list[bytes]:
    """Encode what is known of each text as an object in Jina's form."""
    turns = Turns()
    answers = []
    for index, values in enumerate(probabilities.values):
        best = int(values.argmax())
        answer = {
            "object": "classification",
            "index": index,
            "prediction": labels[best],
            "score": float(values[best]),
        }
        predictions = await _predictions_json(labels, values, turns)
        parts = [orjson.dumps(answer)[:-1], b',"predictions":', predictions]
        masks = (("labels", probabilities.chosen), ("prediction_set", probabilities.sets))
        for name, mask in masks:
            if mask is not None:
                named = [labels[column] for column in np.flatnonzero(mask[index]).tolist()]
                parts.append(b',"%s":%s' % (name.encode(), orjson.dumps(named)))
        answers.append(await join_parts([*parts, b"}"]))
    return answers


async def _predictions_json(labels: Sequence[str], values: Float64Array, turns: Turns) -> bytes:
    """Encode a text's probability of each label, in slices."""
    slices = []
    for start in range(0, len(labels), OBJECTS_PER_SLICE):
        stop = start + OBJECTS_PER_SLICE
        pairs = zip(labels[start:stop], values[start:stop].tolist(), strict=True)
        part = [{"label": label, "score": score} for label, score in pairs]
        slices.append(orjson.dumps(part)[1:-1])
        await turns.spend(len(part))
    return await join_parts(listed(slices))
