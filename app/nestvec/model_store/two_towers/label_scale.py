"""The scale of cosines that a model of two towers has among its weights."""

import math
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.vectors.label_scale import LabelScale
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights

# Its logarithm, in the checkpoints of CLIP and of SigLIP; the latter has an offset too.
FACTOR: Final = "logit_scale"
OFFSET: Final = "logit_bias"
# CLIP's training keeps the factor at 100 or less, SigLIP's end at some 120.
MAX_LOGARITHM: Final = math.log(1e4)
MAX_OFFSET: Final = 1e4


def read_label_scale(folder: Path) -> LabelScale | None:
    """Read the scale that a model learned; None where its weights hold none.

    Args:
        folder: The encoder's folder.

    Raises:
        FormatError: The weights cannot be read, or hold something else than a number there; names the tensor.
    """
    with Weights(folder) as weights:
        logarithm = _number(weights, folder, FACTOR, MAX_LOGARITHM)
        if logarithm is None:
            return None
        return LabelScale(math.exp(logarithm), _number(weights, folder, OFFSET, MAX_OFFSET))


def _number(weights: Weights, folder: Path, name: str, most: float) -> float | None:
    """Read a tensor of one number, which has at most a size; None where there is none."""
    if name not in weights:
        return None
    tensor = np.asarray(weights.raw(name), np.float64)
    if tensor.size != 1 or not abs(value := float(tensor.reshape(()))) <= most:
        raise FormatError(f"{folder}: tensor '{name}' must be one number of at most {most:.4g}")
    return value
