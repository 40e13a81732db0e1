"""Folders of pictures with labels: a folder for each label, by its name, as torchvision's `ImageFolder` has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nestvec.errors import FormatError
from nestvec.tools.quality.labelled_texts import Concept, LabelledText
from nestvec.tools.quality.picture_vectors import find_pictures

MIN_LABELS: Final = 2


def read_picture_concepts(folder: Path) -> list[Concept]:
    """Read labels whose examples are pictures: those of a folder for each, and of the folders below it.

    Raises:
        FormatError: There are fewer than two folders, or one of them has no pictures.
    """
    folders = _folders(folder)
    if len(folders) < MIN_LABELS:
        raise FormatError(
            f"{folder}: expected a folder of pictures for each of two labels at least"
        )
    return [Concept(each.name, tuple(find_pictures(each)), is_named=False) for each in folders]


def read_labelled_pictures(folder: Path, labels: Sequence[str]) -> list[LabelledText]:
    """Read pictures that have a label each: those of a folder by the label's name.

    Raises:
        FormatError: A folder is of no label, or has no pictures.
    """
    labelled = []
    for each in _folders(folder):
        if each.name not in labels:
            raise FormatError(f"{each}: there is no such label")
        index = labels.index(each.name)
        labelled += [LabelledText(path, (index,)) for path in find_pictures(each)]
    return labelled


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; hidden ones are left out.

    Raises:
        FormatError: It cannot be read.
    """
    try:
        return sorted(
            each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
        )
    except OSError as error:
        raise FormatError(f"{folder}: cannot be read ({error.strerror})") from error
