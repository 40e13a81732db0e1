"""Which file formats there are, by their endings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from nestvec.corpus.files.json_lines import BULK_ENDING, BulkWriter, JsonlBase, JsonlWriter
from nestvec.corpus.files.npy import NpyBase, NpyWriter
from nestvec.corpus.files.tables import TableBase, TableWriter
from nestvec.corpus.files.writer import EarlierOutput, FileLayout, Writer
from nestvec.corpus.reading.readers import TABLES, import_parquet
from nestvec.errors import FormatError

# The first whose ending fits is taken.
WRITERS: Final[Mapping[str, Callable[[Path, FileLayout], Writer]]] = {
    BULK_ENDING: BulkWriter,
    ".jsonl": JsonlWriter,
    ".npy": NpyWriter,
    ".parquet": TableWriter,
    ".arrow": TableWriter,
}
BASES: Final[Mapping[str, Callable[[Path, Mapping[str, str]], EarlierOutput]]] = {
    ".jsonl": JsonlBase,
    ".npy": NpyBase,
    ".parquet": TableBase,
    ".arrow": TableBase,
}


def open_writer(path: Path, layout: FileLayout) -> Writer:
    """Open a file for vectors, in the format of its ending.

    Raises:
        FormatError: The ending is unknown, or the format cannot keep what is wanted.
        OSError: The file cannot be written.
    """
    return WRITERS[check_ending(path)](path, layout)


def open_base(path: Path, metadata: Mapping[str, str]) -> EarlierOutput:
    """Open an output of an earlier run, to be added to.

    Raises:
        FormatError: It cannot be added to, or holds vectors of another space.
    """
    ending = check_ending(path)
    if ending not in BASES:
        raise FormatError(f"{path}: --append adds to {', '.join(BASES)}")
    return BASES[ending](path, metadata)


def check_ending(path: Path) -> str:
    """Return an output's ending, before any work.

    Raises:
        FormatError: It is unknown, or the package is missing that writes it.
    """
    ending = next((known for known in WRITERS if path.name.lower().endswith(known)), None)
    if ending is None:
        raise FormatError(f"{path}: unknown ending; known: {', '.join(WRITERS)}")
    if ending in TABLES:
        import_parquet()
    return ending
