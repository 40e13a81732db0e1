"""Precisions: what each is allowed to cost in quality, and how an artefact in it is asked for."""

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
    """A model's arithmetic; not to be mixed up with the dtype of the vectors given out."""

    FP32 = "fp32"
    FP16 = "fp16"  # on a GPU
    INT8 = "int8"  # 8-bit products, scales fixed by calibration: the fastest
    INT8_ACCURATE = "int8-accurate"  # 8-bit products, a scale for each token
    BF16 = "bf16"  # by OpenVINO, on CPUs with AVX512_BF16 or AMX; on a GPU


CALIBRATED: Final = (Precision.INT8, Precision.INT8_ACCURATE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Cosines to the fp32 vectors of the probe texts that an artefact must reach."""

    mean: float
    least: float


# Measured on the default model with VNNI: int8 0.994 and 0.963 (600 times the same word; 0.992 without it),
# int8-accurate 0.997 and 0.992, bf16 0.9999. CPUs without VNNI saturate some sums of u8 x s8 products, which costs
# 0.002 to 0.003 more. Probes are harder than usual texts: on those of STS-B int8 keeps 0.998.
BOUNDS: Final[Mapping[Precision, Bounds]] = {
    Precision.INT8: Bounds(mean=0.985, least=0.92),
    Precision.INT8_ACCURATE: Bounds(mean=0.99, least=0.97),
    Precision.BF16: Bounds(mean=0.999, least=0.998),
    Precision.FP16: Bounds(mean=0.9999, least=0.9995),
    Precision.FP32: Bounds(mean=0.9999, least=0.9995),  # with weights stored as fp16
}


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Which artefact of a model is wanted.

    Attributes:
        calibration: File of texts, one a line, instead of the bundled ones; only for 8-bit precisions.
        halves_weights: Store weights as float16; they are computed with as float32.
        is_for_device: Made for a GPU.
        machine: The one that it must run on, where that decides what can be made.
    """

    precision: Precision = Precision.FP32
    calibration: Path | None = None
    halves_weights: bool = False
    is_for_device: bool = False
    machine: str = ""

    def key(self, space: str) -> str:
        """What the artefact is kept under: the same vectors may come of graphs for different machines."""
        return f"{space}-gpu" if self.is_for_device else space

    @property
    def is_exact(self) -> bool:
        """Whether vectors must equal the reference's up to rounding."""
        return self.precision is Precision.FP32 and not self.halves_weights


def check_quality(found: FloatArray, reference: FloatArray, precision: Precision) -> None:
    """The gate: compare unit vectors with those of the fp32 graph.

    Args:
        found: (P, D), float32.
        reference: (P, D), float32.
        precision: Chooses the bounds.

    Raises:
        QualityError: They are further apart than the precision may be.
        ProbeError: Shapes differ.
    """
    near = cosines(found, reference)
    bounds = BOUNDS[precision]
    mean, least = float(near.mean()), float(near.min())
    if not (mean >= bounds.mean and least >= bounds.least):  # also catches NaN
        raise QualityError(
            f"precision {precision} is too coarse for this model: cosine to fp32 on the probe texts is {mean:.4f} on "
            f"average (at least {bounds.mean} is asked) and {least:.4f} at worst ({bounds.least}); "
            "try int8-accurate, calibration texts of your own (calibration_file), or fp32"
        )


def cosines(found: FloatArray, reference: FloatArray) -> NDArray[np.float64]:
    """Cosine of each pair of unit vectors.

    Args:
        found: (P, D), float32.
        reference: (P, D), float32.

    Returns:
        (P,), float64.

    Raises:
        ProbeError: Shapes differ.
    """
    check_shapes(found, reference)
    near: NDArray[np.float64] = np.einsum(
        "pd,pd->p", found.astype(np.float64), reference.astype(np.float64)
    )
    return near


def check_shapes(found: FloatArray, reference: FloatArray) -> None:
    """Refuse to compare vectors of another number or width.

    Raises:
        ProbeError: Shapes differ.
    """
    if found.shape != reference.shape:
        raise ProbeError(f"probe vectors have shape {found.shape}, stored ones {reference.shape}")
