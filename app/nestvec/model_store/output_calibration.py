"""Sets the ranges of a model's 8-bit output vectors anew, on other texts: `nestvec calibrate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from nestvec.engine.backend import BackendFactory
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.backend_cache import cached_backends
from nestvec.model_store.artefacts.build import ArtefactBuilder
from nestvec.model_store.artefacts.calibration_texts import calibration_texts
from nestvec.model_store.artefacts.output_quantization import (
    BUNDLED_SOURCE,
    output_calibration_texts,
    write_quantizer,
)
from nestvec.model_store.package import Package

PICTURES_SOURCE: Final = "texts+pictures"


@dataclass(frozen=True, slots=True)
class OutputCalibration:
    """The result of a calibration.

    Attributes:
        quantizer: The new ranges.
        texts: Number of texts that they come from.
        clipped_before: Share of the texts' values, 0 … 1, that the earlier ranges did not hold.
        pictures: Number of pictures that they come from, too.
        clipped_pictures: Share of the pictures' values that the earlier ranges did not hold.
    """

    quantizer: Quantizer
    texts: int
    clipped_before: float
    pictures: int = 0
    clipped_pictures: float = 0.0


def calibrate_outputs(
    package: Package,
    texts: Path | None,
    open_backend: BackendFactory,
    pictures: FloatArray | None = None,
) -> OutputCalibration:
    """Set the ranges of 8-bit vectors by other texts, and by pictures; servers take them at their next start.

    Args:
        package: The model.
        texts: A file of texts, one a line; None goes back to the bundled ones.
        open_backend: Opens its graph.
        pictures: Unit vectors of pictures, [N, H], float32, which the ranges hold too; None for none.

    Raises:
        FormatError: The file cannot be read, the graph cannot be run on its texts, or the model has codes of its own.
        ArtefactError: The cache cannot be written.
    """
    if package.quantizer.takes_raw:
        raise FormatError("this model has 8-bit codes of its own: there are no ranges to calibrate")
    if texts is None:
        lines, source = output_calibration_texts(package.folder.head.dimensions), BUNDLED_SOURCE
    else:
        lines, source = calibration_texts(texts), "texts"
    with cached_backends(open_backend) as backends:
        builder = ArtefactBuilder(package.folder, (), package.build, backends)
        vectors = builder.vectors(package.artefact, lines)
    before = package.quantizer
    clipped_before, clipped_pictures = before.clipped_share(vectors), 0.0
    if pictures is not None:
        clipped_pictures = before.clipped_share(pictures)
        # Of other pictures another model of a recipe has none: they are no texts that both share.
        vectors, source = np.concatenate([vectors, pictures]), PICTURES_SOURCE
    quantizer = Quantizer(vectors, source)
    write_quantizer(package.artefact, quantizer)
    count = 0 if pictures is None else len(pictures)
    return OutputCalibration(quantizer, len(lines), clipped_before, count, clipped_pictures)
