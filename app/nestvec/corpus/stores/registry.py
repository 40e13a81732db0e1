"""Which addresses mean a vector store: by the scheme of a URL, or by the ending of a file."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Final

from nestvec.corpus.store_writer import StoreKind

# By scheme, as in qdrant://host:6333/collection.
SCHEMES: Final[Mapping[str, StoreKind]] = {}
# By ending, as in vectors.faiss.
ENDINGS: Final[Mapping[str, StoreKind]] = {}


def find_store(address: str) -> StoreKind | None:
    """Return the kind of store that a target names, or None where it is none: a file of rows, or standard output."""
    scheme, separator, _ = address.partition("://")
    if separator:
        return SCHEMES.get(scheme.lower())
    return ENDINGS.get(PurePath(address).suffix.lower())
