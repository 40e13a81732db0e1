"""Chroma: `chroma://host:8000/collection` (or `chroma+https://`), or a local folder, `chroma://./folder/collection`.

A token for a server is read from CHROMA_TOKEN and sent as X-Chroma-Token.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.store_writer import Hit, Row, StoredRow, StoreLayout, Vectors
from nestvec.corpus.stores.common import (
    check_layout,
    check_same,
    distinct,
    parse_place,
    payload,
    require,
)
from nestvec.errors import FormatError

DTYPES: Final = ("float32",)
PORT: Final = 8000
SHORTEST_NAME: Final = 3
READ_ROWS: Final = 1000
DELETED_DOCUMENTS: Final = 100
# More than Chroma's own (16 neighbours, 100, 100): recall comes before bytes in a first index.
HNSW: Final = {"space": "cosine", "ef_construction": 200, "ef_search": 200, "max_neighbors": 32}


class ChromaCollection:
    """A collection: a vector a record, the text as its document, all else as its metadata.

    Args:
        client: The open client.
        collection: The collection.
        layout: How records are written; None where it is only read.
    """

    def __init__(self, client: Any, collection: Any, layout: StoreLayout | None) -> None:  # noqa: ANN401 - an optional package
        self._client = client
        self._collection = collection
        self._layout = layout

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was noted in the collection's metadata."""
        return dict(self._collection.metadata or {})

    def stored(self) -> Iterator[StoredRow]:
        """Yield every record."""
        first = 0
        while True:
            found = self._collection.get(limit=READ_ROWS, offset=first, include=["metadatas"])
            for values in found["metadatas"]:
                yield StoredRow(values["document"], values["content_hash"], values["chunks"])
            if len(found["ids"]) < READ_ROWS:
                return
            first += READ_ROWS

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Upsert records; Chroma has them in its log when this returns."""
        if self._layout is None:
            return
        rows, kept = distinct(rows, vectors)
        most = self._client.get_max_batch_size()
        for first in range(0, len(rows), most):
            part = rows[first : first + most]
            values = [payload(row, self._layout) for row in part]
            texts = [value.pop("text", None) for value in values]
            self._collection.upsert(
                ids=[str(row.id) for row in part],
                embeddings=np.asarray(kept[first : first + most], "float32"),
                metadatas=values,
                documents=texts if self._layout.with_text else None,
            )

    def commit(self) -> None:
        """Nothing is left to do: `write` waits."""

    def remove(self, documents: Mapping[str, str]) -> None:
        """Delete the old records of documents."""
        names = sorted(documents)
        for first in range(0, len(names), DELETED_DOCUMENTS):
            terms = [
                {"$and": [{"document": name}, {"content_hash": {"$ne": documents[name]}}]}
                for name in names[first : first + DELETED_DOCUMENTS]
            ]
            self._collection.delete(where={"$or": terms} if len(terms) > 1 else terms[0])

    def finish(self) -> None:
        """Nothing is left to do: Chroma indexes as it writes."""

    def close(self) -> None:
        """Forget the client, which has no closing of its own."""
        self._client = None

    def search(self, vector: NDArray[Any], limit: int) -> list[Hit]:
        """Search by cosine similarity."""
        found = self._collection.query(
            query_embeddings=[np.asarray(vector, "float32")],
            n_results=limit,
            include=["metadatas", "documents", "distances"],
        )
        rows = zip(
            found["ids"][0],
            found["distances"][0],
            found["metadatas"][0],
            found["documents"][0],
            strict=True,
        )
        return [
            Hit(1 - distance, name, values.get("document", ""), text or "")
            for name, distance, values, text in rows
        ]


def check(address: str) -> None:
    """Refuse an address that is none, or a missing package."""
    place = parse_place(address, default_port=PORT)
    # Its own rule, told by itself only after a model was loaded.
    if len(place.name) < SHORTEST_NAME or not (place.name[0] + place.name[-1]).isalnum():
        raise FormatError(
            f"{address}: Chroma's names have {SHORTEST_NAME} characters or more and a letter or digit at both ends"
        )
    require("chromadb", "chroma")


def open_for_writing(address: str, layout: StoreLayout) -> ChromaCollection:
    """Open a collection, or make it."""
    check_layout(address, layout, dtypes=DTYPES)
    client = _connect(address)
    name = parse_place(address, default_port=PORT).name
    collection = _find(client, name)
    if collection is None:
        collection = client.create_collection(
            name,
            metadata=dict(layout.metadata),
            configuration={"hnsw": HNSW},
            embedding_function=None,
        )
    check_same(address, collection.metadata or {}, layout)
    return ChromaCollection(client, collection, layout)


def open_for_reading(address: str) -> ChromaCollection:
    """Open a collection to search it."""
    place = parse_place(address, default_port=PORT)
    collection = client = None
    if place.folder is None or place.folder.is_dir():
        client = _connect(address)
        collection = _find(client, place.name)
    if collection is None:
        raise FormatError(f"{address}: no such collection")
    return ChromaCollection(client, collection, None)


def _find(client: Any, name: str) -> Any:  # noqa: ANN401 - an optional package
    """Return a collection; None where there is none."""
    missing = require("chromadb.errors", "chroma").NotFoundError
    try:
        return client.get_collection(name, embedding_function=None)
    except missing:
        return None


def _connect(address: str) -> Any:  # noqa: ANN401 - an optional package
    """Return a client, which sends nothing to Chroma's makers."""
    place = parse_place(address, default_port=PORT)
    chromadb = require("chromadb", "chroma")
    # It speaks of our use of no embedding function, which is on purpose.
    warnings.filterwarnings("ignore", message="legacy embedding function config")
    settings = chromadb.Settings(anonymized_telemetry=False)
    if place.folder is not None:
        return chromadb.PersistentClient(path=str(place.folder), settings=settings)
    url = urlsplit(place.url)
    token = os.environ.get("CHROMA_TOKEN")
    return chromadb.HttpClient(
        host=url.hostname,
        port=url.port,
        ssl=url.scheme == "https",
        headers={"X-Chroma-Token": token} if token else None,
        settings=settings,
    )
