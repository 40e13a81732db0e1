"""Counts of a corpus's terms, kept beside a model's artefact: `term-counts.npz`, arrays and a word, no pickles."""

import logging
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from nestvec.engine.vectors.term_table import TermTable
from nestvec.errors import FormatError
from nestvec.model_store.cache_files import atomic_cache_write

log = logging.getLogger(__name__)

FILE: Final = "term-counts.npz"


def read_term_table(artefact: Path, vocabulary_size: int, source: str) -> TermTable | None:
    """Read the counts beside an artefact; None where there are none, or none that fit, of which a warning tells.

    Args:
        artefact: The artefact's folder.
        vocabulary_size: Number of the model's ids.
        source: Fingerprint of its space.
    """
    try:
        return load_term_table(artefact, vocabulary_size, source)
    except FormatError as error:
        log.warning("counts of terms are left out: %s", error.message)
        return None


def load_term_table(artefact: Path, vocabulary_size: int, source: str) -> TermTable | None:
    """Read the counts beside an artefact; None where there are none.

    Args:
        artefact: The artefact's folder.
        vocabulary_size: Number of the model's ids.
        source: Fingerprint of its space.

    Raises:
        FormatError: The file is damaged, or of another vocabulary or form of texts.
    """
    path = artefact / FILE
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            counts, special = stored["counts"], stored["special_ids"]
            documents, tokens = (int(stored[name]) for name in ("documents", "tokens"))
            kept_source = str(stored["source"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, OverflowError, TypeError, BadZipFile) as error:
        raise FormatError(f"{path}: no counts of terms ({type(error).__name__})") from error
    if kept_source != source:
        raise FormatError(f"{path}: counted in another space or form of texts; count again")
    is_whole = (
        0 < documents <= np.iinfo(np.int64).max
        and all(np.issubdtype(array.dtype, np.integer) for array in (counts, special))
        and counts.shape == (vocabulary_size,)
        and special.ndim == 1
        and bool(((counts >= 0) & (counts <= documents)).all())
        # Each text with a term has a token of it.
        and 0 < int(counts.sum()) <= tokens
    )
    if not is_whole:
        raise FormatError(f"{path}: no counts of terms (its arrays do not fit each other)")
    return TermTable(
        counts.astype(np.int64), documents, tokens, tuple(map(int, special)), kept_source
    )


def store_term_table(artefact: Path, table: TermTable) -> Path:
    """Write counts beside an artefact; earlier ones are replaced.

    Returns:
        The file.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    path = artefact / FILE
    with atomic_cache_write(path) as file:
        np.savez_compressed(
            file,
            counts=table.counts,
            special_ids=np.array(table.special_ids, np.int64),
            documents=np.array(table.documents),
            tokens=np.array(table.tokens),
            source=np.array(table.source),
        )
    return path
