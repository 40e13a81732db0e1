"""Which addresses mean a vector store: by the scheme of a URL, or by the ending of a file."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Final

from nestvec.corpus.store_writer import IdKind, StoreKind, StoreLayout
from nestvec.corpus.stores import (
    chroma,
    faiss_index,
    hnsw_index,
    lance,
    postgres,
    qdrant,
    usearch_index,
)
from nestvec.corpus.stores.common import check_layout, public_address, require
from nestvec.corpus.stores.guard import guarded
from nestvec.corpus.stores.index_file import IndexFile, IndexOpener, library_failures
from nestvec.errors import FormatError


def _any_error() -> tuple[type[Exception], ...]:
    """Return what the libraries raise that have no common class of errors."""
    return (Exception,)


def _postgres_errors() -> tuple[type[Exception], ...]:
    """Return what psycopg raises."""
    return (require("psycopg", "postgres").Error,)


def _index_file(
    name: str, package: tuple[str, str], open_index: IndexOpener, dtypes: tuple[str, ...]
) -> StoreKind:
    """Describe a kind of index file."""

    def check(address: str) -> None:
        require(*package)
        if not Path(address).expanduser().absolute().parent.is_dir():
            raise FormatError(f"{address}: no such folder")

    def opener(address: str, layout: StoreLayout) -> IndexFile:
        check_layout(address, layout, dtypes=dtypes)
        return IndexFile(Path(address).expanduser(), open_index, layout)

    def reader(address: str) -> IndexFile:
        return IndexFile(Path(address).expanduser(), open_index, None)

    # Keys of such an index are numbers: so they are the ids themselves.
    return guarded(name, check, opener, reader, library_failures, id_kind=IdKind.INT)


_QDRANT: Final = guarded(
    "Qdrant",
    qdrant.check,
    qdrant.open_for_writing,
    qdrant.open_for_reading,
    _any_error,
    id_kind=IdKind.UUID5,
)
_CHROMA: Final = guarded(
    "Chroma", chroma.check, chroma.open_for_writing, chroma.open_for_reading, _any_error
)
_POSTGRES: Final = guarded(
    "PostgreSQL",
    postgres.check,
    postgres.open_for_writing,
    postgres.open_for_reading,
    _postgres_errors,
    shown=public_address,
)
# By scheme, as in qdrant://host:6333/collection.
SCHEMES: Final[Mapping[str, StoreKind]] = {
    "lancedb": guarded(
        "LanceDB", lance.check, lance.open_for_writing, lance.open_for_reading, _any_error
    ),
    "qdrant": _QDRANT,
    "qdrant+https": _QDRANT,
    "chroma": _CHROMA,
    "chroma+https": _CHROMA,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
}
# By ending, as in vectors.faiss.
ENDINGS: Final[Mapping[str, StoreKind]] = {
    ".faiss": _index_file("FAISS", faiss_index.PACKAGE, faiss_index.FaissIndex, faiss_index.DTYPES),
    ".usearch": _index_file(
        "USearch", usearch_index.PACKAGE, usearch_index.UsearchIndex, usearch_index.DTYPES
    ),
    ".hnsw": _index_file("hnswlib", hnsw_index.PACKAGE, hnsw_index.HnswlibIndex, hnsw_index.DTYPES),
}


def find_store(address: str) -> StoreKind | None:
    """Return the kind of store that a target names, or None where it is none: a file of rows, or standard output.

    Raises:
        FormatError: It is a URL of a scheme that is not known.
    """
    scheme, separator, _ = address.partition("://")
    if not separator:
        return ENDINGS.get(PurePath(address).suffix.lower())
    if scheme.lower() not in SCHEMES:
        raise FormatError(f"{scheme}://: no such store; known: {', '.join(SCHEMES)}")
    return SCHEMES[scheme.lower()]
