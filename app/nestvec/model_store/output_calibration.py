"""Sets the ranges of a model's 8-bit vectors anew."""

from dataclasses import dataclass
from pathlib import Path

from nestvec.engine.backend import BackendFactory
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.model_store.artefacts.activation_calibration import calibration_texts
from nestvec.model_store.artefacts.build import Builder
from nestvec.model_store.artefacts.output_quantization import (
    BUNDLED_SOURCE,
    bundled_texts,
    write_quantiser,
)
from nestvec.model_store.package import Package


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration changed.

    Attributes:
        clipped_before: Which part of the texts' values the earlier ranges did not hold, 0 … 1.
    """

    quantiser: Quantiser
    texts: int
    clipped_before: float


def calibrate(package: Package, texts: Path | None, open_backend: BackendFactory) -> Calibrated:
    """Set the ranges of 8-bit vectors by other texts; servers take them at their next start.

    Args:
        package: The model.
        texts: A file of texts, one a line; None goes back to the bundled ones.
        open_backend: Opens its graph.

    Raises:
        FormatError: The file cannot be read, or the graph not be run on its texts.
        ArtefactError: The cache cannot be written.
    """
    derived = package.derived
    builder = Builder(derived, (), package.build, open_backend)
    if texts is None:
        chosen, source = bundled_texts(derived.head.dimensions), BUNDLED_SOURCE
    else:
        chosen, source = calibration_texts(texts), "texts"
    found = builder.vectors(package.artefact, chosen)
    before = package.quantiser.clipped_share(found)
    quantiser = Quantiser(found, source)
    write_quantiser(package.artefact, quantiser)
    return Calibrated(quantiser, len(chosen), before)
