"""Qdrant: `qdrant://host:6333/collection` (or `qdrant+https://`), or a local folder, `qdrant://./folder/collection`.

A local collection lies in one SQLite file, is held in memory and searched exactly: for up to some 20,000 rows. A key
for a server is read from QDRANT_API_KEY.
"""

import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.store_writer import Hit, IdKind, Row, StoredRow, StoreLayout, Vectors
from nestvec.corpus.stores.common import (
    check_layout,
    check_same,
    parse_place,
    payload,
    require,
)
from nestvec.errors import FormatError

DTYPES: Final = ("float32", "float16")
ID_KINDS: Final = (IdKind.UUID5, IdKind.INT)
PORT: Final = 6333
# So that a request stays far under a server's 32 MB, even of 8,192 dimensions.
UPSERT_POINTS: Final = 128
READ_POINTS: Final = 1000
DELETED_DOCUMENTS: Final = 100
TIMEOUT_S: Final = 60


class QdrantCollection:
    """A collection: a vector a point, all else in its payload.

    Args:
        client: The open client.
        name: The collection's name.
        layout: How points are written; None where it is only read.
    """

    def __init__(self, client: Any, name: str, layout: StoreLayout | None) -> None:  # noqa: ANN401 - an optional package
        self._client = client
        self._models = require("qdrant_client.models", "qdrant")
        self._name = name
        self._layout = layout

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was noted in the collection's metadata."""
        return collection_metadata(self._client, self._name)

    def stored(self) -> Iterator[StoredRow]:
        """Yield every point."""
        fields = ["document", "content_hash", "chunks"]
        offset = None
        while True:
            points, offset = self._client.scroll(
                self._name, limit=READ_POINTS, offset=offset, with_payload=fields
            )
            for point in points:
                yield StoredRow(*(point.payload[field] for field in fields))
            if offset is None:
                return

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Upsert points; the server has them in its log when this returns, the local store in its file."""
        if self._layout is None:
            return
        make = self._models.PointStruct
        points = [
            make(
                id=row.id,
                vector=np.asarray(vector, "float32").tolist(),
                payload=payload(row, self._layout),
            )
            for row, vector in zip(rows, vectors, strict=True)
        ]
        for first in range(0, len(points), UPSERT_POINTS):
            self._client.upsert(self._name, points[first : first + UPSERT_POINTS], wait=True)

    def commit(self) -> None:
        """Bring a local store's log into its file; a server has what `write` waited for."""
        if (database := _local_database(self._client, self._name)) is not None:
            database.execute("pragma wal_checkpoint(truncate)")

    def remove(self, documents: Mapping[str, str]) -> None:
        """Delete the old points of documents."""
        m = self._models
        names = sorted(documents)

        def old(name: str) -> Any:  # noqa: ANN401 - an optional package
            is_document = m.FieldCondition(key="document", match=m.MatchValue(value=name))
            value = m.MatchValue(value=documents[name])
            return m.Filter(
                must=[is_document], must_not=[m.FieldCondition(key="content_hash", match=value)]
            )

        for first in range(0, len(names), DELETED_DOCUMENTS):
            chosen = m.Filter(should=[old(n) for n in names[first : first + DELETED_DOCUMENTS]])
            self._client.delete(self._name, m.FilterSelector(filter=chosen), wait=True)

    def finish(self) -> None:
        """Nothing is left to do: a server builds its index by itself."""

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def search(self, vector: NDArray[Any], limit: int) -> list[Hit]:
        """Search by cosine similarity."""
        found = self._client.query_points(
            self._name, query=np.asarray(vector, "float32").tolist(), limit=limit
        )
        return [
            Hit(p.score, p.id, p.payload.get("document", ""), p.payload.get("text") or "")
            for p in found.points
        ]


def check(address: str) -> None:
    """Refuse an address that is none, or a missing package."""
    parse_place(address, default_port=PORT)
    require("qdrant_client", "qdrant")


def open_for_writing(address: str, layout: StoreLayout) -> QdrantCollection:
    """Open a collection, or make it."""
    check_layout(address, layout, dtypes=DTYPES, id_kinds=ID_KINDS)
    client, name = _connect(address)
    try:
        if not client.collection_exists(name):
            _make_collection(address, client, name, layout)
        check_same(address, collection_metadata(client, name), layout)
    except BaseException:
        client.close()
        raise
    if (database := _local_database(client, name)) is not None:
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=normal")
    return QdrantCollection(client, name, layout)


def open_for_reading(address: str) -> QdrantCollection:
    """Open a collection to search it."""
    place = parse_place(address, default_port=PORT)
    if place.folder is None or place.folder.is_dir():
        client, name = _connect(address)
        if client.collection_exists(name):
            return QdrantCollection(client, name, None)
        client.close()
    raise FormatError(f"{address}: no such collection")


def _make_collection(address: str, client: Any, name: str, layout: StoreLayout) -> None:  # noqa: ANN401 - an optional package
    """Make a collection.

    Raises:
        FormatError: The server keeps no metadata, by which vectors of another space would be refused.
    """
    m = require("qdrant_client.models", "qdrant")
    datatype = m.Datatype.FLOAT16 if layout.dtype == "float16" else None
    vectors = m.VectorParams(size=layout.width, distance=m.Distance.COSINE, datatype=datatype)
    client.create_collection(
        name, vectors_config=vectors, metadata=dict(layout.metadata), timeout=TIMEOUT_S
    )
    if parse_place(address, default_port=PORT).folder is None:
        for field in ("document", "content_hash"):
            client.create_payload_index(name, field, m.PayloadSchemaType.KEYWORD)
    if not collection_metadata(client, name):
        client.delete_collection(name)
        raise FormatError(
            f"{address}: this server keeps no metadata of a collection; Qdrant 1.16 and later do"
        )


def collection_metadata(client: Any, name: str) -> dict[str, str]:  # noqa: ANN401 - an optional package
    """Return what is noted of a collection; nothing where a server is too old to note anything."""
    return dict(getattr(client.get_collection(name).config, "metadata", None) or {})


def _local_database(client: Any, name: str) -> sqlite3.Connection | None:  # noqa: ANN401 - an optional package
    """Return the connection to a local collection's file; None of a server, and where the library has changed.

    The library commits, and so syncs to the disk, once a point: some 30 a second. With a write-ahead log it syncs when
    the log is brought into the file.
    """
    collections = getattr(getattr(client, "_client", None), "collections", None) or {}
    storage = getattr(collections.get(name), "storage", None)
    database = getattr(storage, "storage", None)
    return database if isinstance(database, sqlite3.Connection) else None


def _connect(address: str) -> tuple[Any, str]:
    """Return a client, and the collection's name."""
    place = parse_place(address, default_port=PORT)
    make = require("qdrant_client", "qdrant").QdrantClient
    # The local mode advises a server above 20,000 points, and a key over plain HTTP is the user's own choice.
    warnings.filterwarnings("ignore", message=".*(20,000 points|insecure connection)")
    if place.folder is not None:
        # Rows are written in threads, one at a time.
        return make(path=str(place.folder), force_disable_check_same_thread=True), place.name
    key = os.environ.get("QDRANT_API_KEY")
    return make(
        url=place.url, api_key=key, timeout=TIMEOUT_S, check_compatibility=False
    ), place.name
