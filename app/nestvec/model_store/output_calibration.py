"""Sets the ranges of a model's 8-bit output vectors anew, on other texts: `nestvec calibrate`."""

from dataclasses import dataclass
from pathlib import Path

from nestvec.engine.backend import BackendFactory
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


@dataclass(frozen=True, slots=True)
class OutputCalibration:
    """The result of a calibration.

    Attributes:
        quantizer: The new ranges.
        texts: Number of texts that they come from.
        clipped_before: Share of the texts' values, 0 … 1, that the earlier ranges did not hold.
    """

    quantizer: Quantizer
    texts: int
    clipped_before: float


def calibrate_outputs(
    package: Package, texts: Path | None, open_backend: BackendFactory
) -> OutputCalibration:
    """Set the ranges of 8-bit vectors by other texts; servers take them at their next start.

    Args:
        package: The model.
        texts: A file of texts, one a line; None goes back to the bundled ones.
        open_backend: Opens its graph.

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
    clipped_before = package.quantizer.clipped_share(vectors)
    quantizer = Quantizer(vectors, source)
    write_quantizer(package.artefact, quantizer)
    return OutputCalibration(quantizer, len(lines), clipped_before)
