"""Precisions: what each may cost in quality, and the options that an artefact is built with."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray
from nestvec.errors import ProbeError, QualityError


class Precision(StrEnum):
    """Arithmetic of a model; not to be confused with the dtype of its output vectors."""

    FP32 = "fp32"
    FP16 = "fp16"  # on a GPU
    INT8 = "int8"  # 8-bit products, scales fixed by calibration: the fastest
    INT8_ACCURATE = "int8-accurate"  # 8-bit products, a scale for each token
    BF16 = "bf16"  # by OpenVINO, on CPUs with AVX512_BF16 or AMX; on a GPU


CALIBRATED: Final = (Precision.INT8, Precision.INT8_ACCURATE)


@dataclass(frozen=True, slots=True)
class CosineBounds:
    """Cosines to the fp32 vectors of the probe texts that an artefact must reach.

    Attributes:
        mean: On average.
        min: At worst.
    """

    mean: float
    min: float


# Measured on the default model: int8 0.994 and 0.963 (600 times the same word; 0.993 without it), int8-accurate 0.998
# and 0.992 or more, bf16 0.9999. Probes are harder than usual texts: on those of STS-B int8 keeps 0.998.
BOUNDS: Final[Mapping[Precision, CosineBounds]] = {
    Precision.INT8: CosineBounds(mean=0.985, min=0.92),
    Precision.INT8_ACCURATE: CosineBounds(mean=0.99, min=0.97),
    Precision.BF16: CosineBounds(mean=0.999, min=0.998),
    Precision.FP16: CosineBounds(mean=0.9999, min=0.9995),
    Precision.FP32: CosineBounds(mean=0.9999, min=0.9995),  # with weights stored as fp16
}


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What an artefact of a model is built for.

    Attributes:
        precision: Arithmetic of the graph.
        calibration: File of texts, one a line, instead of the bundled ones; only for 8-bit precisions.
        halves_weights: Whether weights are stored as float16 and widened to float32 where they are computed with.
        rounds_table: Whether rows of the table of tokens are stored as 8-bit integers, each with a scale.
        is_for_device: Whether it is built for a GPU.
        machine: The machine that it must run on, where that decides what can be built.
        capability: Compute capability of the GPU, such as "8.9"; "" where it is not known.
    """

    precision: Precision = Precision.FP32
    calibration: Path | None = None
    halves_weights: bool = False
    rounds_table: bool = False
    is_for_device: bool = False
    machine: str = ""
    capability: str = ""

    def key(self, space: str) -> str:
        """Return the name of the artefact's folder: graphs for different machines may share an embedding space."""
        return f"{space}-gpu" if self.is_for_device else space

    @property
    def is_exact(self) -> bool:
        """Whether vectors must equal the reference's up to rounding."""
        return self.precision is Precision.FP32 and not (self.halves_weights or self.rounds_table)


def check_quality(vectors: FloatArray, reference: FloatArray, precision: Precision) -> None:
    """Compare unit vectors with those of the fp32 graph: the quality gate of an artefact.

    Args:
        vectors: Vectors of the probe texts, [P, D], float32.
        reference: Those by the fp32 graph, [P, D], float32.
        precision: Decides the bounds.

    Raises:
        QualityError: They are further apart than the precision may be.
        ProbeError: Shapes differ.
    """
    similarities = cosines(vectors, reference)
    bounds = BOUNDS[precision]
    mean, lowest = float(similarities.mean()), float(similarities.min())
    if not (mean >= bounds.mean and lowest >= bounds.min):  # also catches NaN
        raise QualityError(
            f"precision {precision} is too coarse for this model: cosine to fp32 on the probe texts is {mean:.4f} on "
            f"average (at least {bounds.mean} is asked) and {lowest:.4f} at worst ({bounds.min}); "
            "try int8-accurate, calibration texts of your own (calibration_file), or fp32"
        )


def cosines(vectors: FloatArray, reference: FloatArray) -> NDArray[np.float64]:
    """Compute the cosine of each pair of unit vectors.

    Args:
        vectors: [P, D], float32.
        reference: [P, D], float32.

    Returns:
        Cosines, [P], float64.

    Raises:
        ProbeError: Shapes differ.
    """
    check_shapes(vectors, reference)
    similarities: NDArray[np.float64] = np.einsum(
        "pd,pd->p", vectors.astype(np.float64), reference.astype(np.float64)
    )
    return similarities


def check_shapes(vectors: FloatArray, reference: FloatArray) -> None:
    """Refuse to compare vectors of another number or width.

    Raises:
        ProbeError: Shapes differ.
    """
    if vectors.shape != reference.shape:
        raise ProbeError(f"probe vectors have shape {vectors.shape}, stored ones {reference.shape}")
