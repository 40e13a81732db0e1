"""Pictures of an operator's own, by which ranges and probabilities are fitted: their files, and their vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nestvec.corpus.reading.readers import PICTURES
from nestvec.corpus.reading.sources import PictureFiles, find_sources
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.postprocess import finish
from nestvec.errors import FormatError
from nestvec.tools.quality.vectors import ModelVectors

MIN_PICTURES: Final = 16
# As of texts: ranges hardly move beyond.
MAX_PICTURES: Final = 2000


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder and of those below it, by their endings, sorted.

    Raises:
        FormatError: There is none.
    """
    sources = find_sources([str(folder)], pictures=PictureFiles.ALL)
    found = [source.path for source in sources if source.kind in PICTURES]
    if not found:
        raise FormatError(f"{folder}: holds no pictures ({', '.join(PICTURES)})")
    return found


def calibration_pictures(folder: Path) -> list[Path]:
    """Return pictures to fit ranges by: those of a folder, of many as many as are enough, spread over all.

    Raises:
        FormatError: There are too few to say anything.
    """
    found = find_pictures(folder)
    if len(found) < MIN_PICTURES:
        raise FormatError(f"{folder}: {len(found)} pictures; at least {MIN_PICTURES} are needed")
    step = max(1.0, len(found) / MAX_PICTURES)
    return [found[int(n * step)] for n in range(min(len(found), MAX_PICTURES))]


def unit_picture_vectors(source: ModelVectors, paths: Sequence[Path]) -> FloatArray:
    """Return unit vectors of pictures, [N, H], float32.

    Raises:
        FormatError: The model takes texts only, or a picture cannot be read; names the file.
    """
    return finish(source.raw_pictures(paths), dimensions=None, normalize=True)
