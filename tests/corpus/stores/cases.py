"""The stores under test, each as an address in a folder of the test's own, and rows for them."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from nestvec.corpus.store_writer import (
    ColumnType,
    IdKind,
    Row,
    StoreLayout,
    StoreReader,
    StoreWriter,
)
from nestvec.corpus.stores.registry import find_store
from numpy.typing import NDArray

WIDTH: Final = 32
INSTALL: Final = "`make test-stores` installs it"


@dataclass(frozen=True, slots=True)
class Case:
    """A store under test.

    Attributes:
        name: For the test's id.
        module: The package that it needs.
        address: Returns its address in a folder.
        exact: Whether it compares with every vector.
    """

    name: str
    module: str
    address: Callable[[Path], str]
    exact: bool = True


CASES: Final = (
    Case("lancedb", "lancedb", lambda folder: f"lancedb://{folder}/index/docs"),
    Case("qdrant", "qdrant_client", lambda folder: f"qdrant://{folder}/index/docs"),
    Case("chroma", "chromadb", lambda folder: f"chroma://{folder}/index/docs", exact=False),
    Case("faiss", "faiss", lambda folder: f"{folder}/docs.faiss"),
    Case("usearch", "usearch", lambda folder: f"{folder}/docs.usearch", exact=False),
    Case("hnswlib", "hnswlib", lambda folder: f"{folder}/docs.hnsw", exact=False),
)


WARNINGS_OF_LIBRARIES: Final = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Libraries that leave the closing of their files to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def skip_module_without_stores() -> None:
    """Skip a whole module, once, where no store's package is installed, as in the venv of `make test`."""
    if not any(importlib.util.find_spec(case.module) for case in CASES):
        pytest.skip(f"no vector store's package is installed; {INSTALL}", allow_module_level=True)


def installed(case: Case) -> Case:
    """Return a case, or skip the test where its package is not there."""
    if importlib.util.find_spec(case.module) is None:
        pytest.skip(f"{case.module} is not installed; {INSTALL}")
    return case


def layout_of(address: str, **changes: Any) -> StoreLayout:
    """Return a layout with kept columns, as a run would make for a store."""
    kind = find_store(address)
    assert kind is not None
    metadata = {
        "nestvec.model": "tiny",
        "nestvec.space": "space-a",
        "nestvec.dimensions": str(WIDTH),
        "nestvec.output_dtype": "float32",
    }
    fields: dict[str, Any] = {
        "metadata": metadata,
        "width": WIDTH,
        "id_kind": kind.id_kind,
        "columns": {"title": ColumnType.STRING, "year": ColumnType.INT, "more": ColumnType.JSON},
        "with_text": True,
    }
    return StoreLayout(**(fields | changes))


def row_of(layout: StoreLayout, number: int, chunks: int = 2, content_hash: str = "a" * 32) -> Row:
    """Return a row of a document of some chunks; its texts and names hold what is hard to quote."""
    document = f'it\'s/"{number // chunks}".md'
    if layout.id_kind is IdKind.INT:
        name: str | int = number + 2**40
    elif layout.id_kind is IdKind.UUID5:
        name = f"00000000-0000-5000-8000-{number:012d}"
    else:
        name = f"{document}#{number % chunks}"
    text = f"text {number}\n\t'\\N\" \u00e9 \U0001f600"
    columns = {"title": f"title\t{number}", "year": None if number % 3 == 0 else number}
    return Row(
        name, document, 0, len(text), text, number % chunks, chunks, content_hash,
        {**columns, "more": '{"a": [1]}'},
    )  # fmt: skip


def unit_vectors(count: int, seed: int = 0, width: int = WIDTH) -> NDArray[np.float32]:
    """Return random unit vectors `[count, width]`."""
    vectors = np.random.default_rng(seed).standard_normal((count, width)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def open_writer(address: str, layout: StoreLayout) -> StoreWriter:
    """Open a store as a run does."""
    kind = find_store(address)
    assert kind is not None
    kind.check(address)
    return kind.open(address, layout)


def open_reader(address: str) -> StoreReader:
    """Open a store as a search does."""
    kind = find_store(address)
    assert kind is not None
    return kind.read(address)


def documents_in(store: StoreWriter | StoreReader) -> Mapping[tuple[str, str], int]:
    """Return how many rows a store has of each document and content hash."""
    counts: dict[tuple[str, str], int] = {}
    for row in store.stored():
        key = (row.document, row.content_hash)
        counts[key] = counts.get(key, 0) + 1
    return counts
