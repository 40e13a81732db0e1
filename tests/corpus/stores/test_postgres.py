"""PostgreSQL: COPY and SQL on a real server, with plain arrays. What needs pgvector is run by none of these tests."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from nestvec.corpus.store_writer import IdKind
from nestvec.corpus.stores.common import public_address
from nestvec.corpus.stores.postgres import vector_text
from nestvec.corpus.stores.registry import find_store
from nestvec.errors import ArtefactError, FormatError

from tests.corpus.stores.cases import (
    documents_in,
    layout_of,
    open_reader,
    open_writer,
    row_of,
    unit_vectors,
)
from tests.support.services import Service, postgres_server

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    """A PostgreSQL of these tests' own."""
    pytest.importorskip("psycopg")
    with postgres_server() as service:
        yield service


@pytest.fixture
def address(server: Service, request: pytest.FixtureRequest) -> str:
    """A table of the test's own, with plain arrays."""
    name = request.node.name.replace("[", "_").replace("]", "")[:60]
    base = server.url.replace("postgresql+psycopg", "postgresql")
    return f"{base}?connect_timeout=10&table=public.{name}&vectors=array"


@pytest.mark.parametrize("id_kind", [IdKind.NAME, IdKind.INT, IdKind.UUID5])
def test_rows_are_replaced_by_id_and_old_chunks_go(address: str, id_kind: IdKind) -> None:
    """A changed document keeps no row of before; uncommitted rows are undone; the nearest are the true ones."""
    layout = layout_of(address, id_kind=id_kind)
    rows, vectors = [row_of(layout, n) for n in range(200)], unit_vectors(200)
    store = open_writer(address, layout)
    store.write(rows[:100], vectors[:100])
    store.write(rows[100:], vectors[100:])
    store.write(rows[:10], vectors[:10])
    store.commit()
    store.write([row_of(layout, 500)], vectors[:1])
    store.close()
    store = open_writer(address, layout)
    assert documents_in(store) == {(row.document, row.content_hash): 2 for row in rows}
    changed = replace(rows[0], chunks=1, content_hash="b" * 32, text="a NUL \0 goes")
    store.write([changed], vectors[:1])
    store.commit()
    store.remove({changed.document: "b" * 32, rows[198].document: ""})
    store.finish()
    store.close()
    reader = open_reader(address)
    assert reader.metadata == layout.metadata
    assert len(documents_in(reader)) == 99
    kept = [0, *range(2, 198)]
    query = unit_vectors(1, seed=5)[0]
    nearest = [kept[n] for n in np.argsort(-(vectors[kept] @ query))[:10]]
    hits = reader.search(query, 10)
    assert [str(hit.id) for hit in hits] == [str(rows[n].id) for n in nearest]
    scores = np.sort(vectors[kept] @ query)[::-1][:10]
    assert [hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=1e-6)
    texts = {str(rows[n].id): rows[n].text for n in kept[1:]} | {
        str(changed.id): "a NUL \ufffd goes"
    }
    assert [hit.text for hit in hits] == [texts[str(hit.id)] for hit in hits]
    reader.close()


def test_kept_columns_have_types(address: str) -> None:
    """Kept columns are columns of SQL, with nulls where a record had no value, and JSON that can be asked."""
    import psycopg

    layout = layout_of(address)
    store = open_writer(address, layout)
    store.write([row_of(layout, n) for n in range(4)], unit_vectors(4))
    store.commit()
    store.close()
    with psycopg.connect(address.partition("?")[0]) as connection:
        rows = connection.execute(
            "SELECT title, year, more -> 'a' ->> 0, vector FROM test_kept_columns_have_types ORDER BY id"
        ).fetchall()
    assert [row[:3] for row in rows] == [
        ("title\t0", None, "1"),
        ("title\t1", 1, "1"),
        ("title\t2", 2, "1"),
        ("title\t3", None, "1"),
    ]
    assert np.array([row[3] for row in rows], "float32") == pytest.approx(unit_vectors(4))


def test_other_vectors_and_columns_are_refused(address: str) -> None:
    """Another space, other columns, and tables that others made are refused in words."""
    import psycopg

    layout = layout_of(address)
    open_writer(address, layout).close()
    other = replace(layout, metadata={**layout.metadata, "nestvec.space": "space-b"})
    with pytest.raises(FormatError, match="'space-b'"):
        open_writer(address, other)
    fewer = {key: value for key, value in layout.columns.items() if key != "title"}
    with pytest.raises(FormatError, match=r"lacks text, title.*--with-text"):
        open_writer(address, replace(layout, columns=fewer, with_text=False))
    with psycopg.connect(address.partition("?")[0]) as connection:
        connection.execute("CREATE TABLE theirs (id int)")
    theirs = f"{address.partition('?')[0]}?table=theirs&vectors=array"
    with pytest.raises(FormatError, match="nestvec did not write it"):
        open_writer(theirs, layout)
    with pytest.raises(FormatError, match="no such table"):
        open_reader(theirs.replace("theirs", "none"))


def test_pgvector_is_asked_for_by_default(address: str) -> None:
    """A server without pgvector is told, with both ways out, and no table is made."""
    plain = address.replace("&vectors=array", "")
    with pytest.raises(FormatError, match="no pgvector; install it there, or add '&vectors=array'"):
        open_writer(plain, layout_of(plain))
    with pytest.raises(FormatError, match="no such table"):
        open_reader(plain)


def test_addresses(address: str) -> None:
    """A wrong address is refused before any work; a password is in no message."""
    secret = "postgresql://me:pass%20word@127.0.0.1:1/db"
    kind = find_store(secret)
    assert kind is not None
    with pytest.raises(FormatError, match=r"//me@127\.0\.0\.1:1/db: name a table"):
        kind.check(secret)
    with pytest.raises(FormatError, match="neither 'pgvector'"):
        kind.check(secret + "?table=docs&vectors=list")
    with pytest.raises(ArtefactError, match=r"//me@127\.0\.0\.1:1/db\?table=docs: ") as caught:
        kind.open(secret + "?table=docs", layout_of(address))
    assert "pass" not in str(caught.value).replace("password", "")


def test_an_address_that_others_see() -> None:
    """No password, wherever libpq takes one from."""
    address = "postgresql://me:p%40ss@h/db?password=secret&table=t&vectors=array"
    assert public_address(address) == "postgresql://me@h/db?table=t&vectors=array"
    assert public_address("qdrant://h:6333/docs") == "qdrant://h:6333/docs"
    assert public_address("a folder/x?y.faiss") == "a folder/x?y.faiss"


def test_vectors_as_text() -> None:
    """COPY gets the shortest digits that give the same float32 again, in pgvector's brackets or SQL's braces."""
    vector = np.array([0.1, -1.0, 1e-9], "float32")
    assert vector_text(vector, "vector(3)") == "[0.1,-1.0,1e-9]"
    assert vector_text(vector, "real[]") == "{0.1,-1.0,1e-9}"
