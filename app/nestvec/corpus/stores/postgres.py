"""PostgreSQL: `postgresql://user@host/database?table=documents`, by COPY, into a column of pgvector's type.

Without pgvector, `&vectors=array` keeps them as plain arrays (`real[]`), searched by SQL. Search is exact until an
index is made (docs/stores.md). A password comes from the URL, PGPASSWORD or ~/.pgpass, as libpq has it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec.corpus.store_writer import Hit, IdKind, Row, StoredRow, StoreLayout, Vectors
from nestvec.corpus.stores.common import (
    NAME,
    OWN_COLUMNS,
    check_columns,
    check_layout,
    check_same,
    distinct,
    payload,
    public_address,
    require,
)
from nestvec.errors import FormatError

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

DTYPES: Final = ("float32", "float16")
# The types of columns of our own and of kept ones.
TYPES: Final = {
    "string": "text",
    "int64": "bigint",
    "float64": "double precision",
    "bool": "boolean",
    "json": "jsonb",
}
ARRAY: Final = "real[]"
READ_ROWS: Final = 10_000
DELETED_DOCUMENTS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Target:
    """What an address says: a URL for libpq, a table (perhaps with its schema), and whether vectors are arrays."""

    url: str
    table: tuple[str, ...]
    arrays: bool


class PostgresTable:
    """A table: id (primary key), document, start, end, chunk, chunks, content_hash, text, kept columns, vector.

    Args:
        connection: The open connection; what it wrote since the last commit is one transaction.
        table: Name of the table, perhaps with its schema before it.
        layout: How rows are written; None where it is only read.
    """

    def __init__(
        self,
        connection: "psycopg.Connection[Any]",
        table: "sql.Identifier",
        layout: StoreLayout | None,
    ) -> None:
        from psycopg import sql

        self._sql = sql
        self._connection = connection
        self._table = table
        self._layout = layout
        self._columns = _columns(connection, table)
        self._vector_type = self._columns["vector"]
        self._has_staging = False

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was noted as the table's comment."""
        return _comment(self._connection, self._table)

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""
        # A cursor on the server's side, so that a table of millions is not held here.
        with self._connection.cursor("nestvec_stored") as cursor:
            cursor.itersize = READ_ROWS
            text = self._sql.SQL("SELECT document, content_hash, chunks FROM {}")
            for row in cursor.execute(text.format(self._table)):
                yield StoredRow(*row)
        self._connection.commit()

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """COPY rows into a temporary table and merge them from there, by id."""
        if self._layout is None:
            return
        sql = self._sql
        rows, kept = distinct(rows, vectors)
        names = [name for name in self._columns if name != "vector"]
        columns = sql.SQL(", ").join(map(sql.Identifier, [*names, "vector"]))
        staging = sql.Identifier("nestvec_staging")
        text = "CREATE TEMPORARY TABLE {} (LIKE {}) ON COMMIT DELETE ROWS"
        with self._connection.cursor() as cursor:
            if not self._has_staging:
                cursor.execute(sql.SQL(text).format(staging, self._table))
                self._has_staging = True
            copy_text = sql.SQL("COPY {} ({}) FROM STDIN").format(staging, columns)
            with cursor.copy(copy_text) as copy:
                for row, vector in zip(rows, kept, strict=True):
                    values = {"id": row.id, **payload(row, self._layout)}
                    line = [_plain(values[name]) for name in names]
                    copy.write_row([*line, vector_text(vector, self._vector_type)])
            updates = sql.SQL(", ").join(
                sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name))
                for name in [*names, "vector"]
                if name != "id"
            )
            merge = "INSERT INTO {0} ({1}) SELECT {1} FROM {2} ON CONFLICT (id) DO UPDATE SET {3}"
            cursor.execute(sql.SQL(merge).format(self._table, columns, staging, updates))
            cursor.execute(sql.SQL("DELETE FROM {}").format(staging))

    def commit(self) -> None:
        """Commit the transaction."""
        self._connection.commit()

    def remove(self, documents: Mapping[str, str]) -> None:
        """Delete the old rows of documents."""
        text = self._sql.SQL(
            "DELETE FROM {} AS t USING unnest(%s::text[], %s::text[]) AS keep(document, content_hash) "
            "WHERE t.document = keep.document AND t.content_hash <> keep.content_hash"
        ).format(self._table)
        names = sorted(documents)
        for first in range(0, len(names), DELETED_DOCUMENTS):
            part = names[first : first + DELETED_DOCUMENTS]
            self._connection.execute(text, [part, [documents[name] for name in part]])
        self._connection.commit()

    def finish(self) -> None:
        """Commit, and let the planner count the rows."""
        self._connection.commit()
        self._connection.execute(self._sql.SQL("ANALYZE {}").format(self._table))
        self._connection.commit()

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        self._connection.close()

    def search(self, vector: NDArray[Any], limit: int) -> list[Hit]:
        """Search by cosine similarity; of plain arrays by their dot product."""
        sql = self._sql
        score = "(SELECT sum(a * b) FROM unnest(vector, %s::real[]) AS pair(a, b))"
        order = "score DESC NULLS LAST"
        given = [vector_text(vector, self._vector_type)]
        if self._vector_type != ARRAY:
            cast = self._vector_type.partition("(")[0]
            # Ordered by the operator itself, which is what an index of pgvector serves.
            score, order = f"1 - (vector <=> %s::{cast})", f"vector <=> %s::{cast}"
            given *= 2
        text = sql.Identifier("text") if "text" in self._columns else sql.SQL("''")
        query = sql.SQL("SELECT {} AS score, id, document, {} FROM {} ORDER BY {} LIMIT %s").format(
            sql.SQL(score), text, self._table, sql.SQL(order)
        )
        rows = self._connection.execute(query, [*given, limit]).fetchall()
        self._connection.commit()
        return [Hit(float(row[0] or 0.0), row[1], row[2], row[3] or "") for row in rows]


def check(address: str) -> None:
    """Refuse an address that is none, or a missing package."""
    _parse(address)
    require("psycopg", "postgres")


def open_for_writing(address: str, layout: StoreLayout) -> PostgresTable:
    """Open a table, or make it with its comment."""
    check_layout(address, layout, dtypes=DTYPES)
    from psycopg import sql

    target = _parse(address)
    table = sql.Identifier(*target.table)
    connection = _connect(target)
    try:
        if not _columns(connection, table):
            _make_table(address, connection, target, layout)
        check_same(address, _comment(connection, table), layout)
        opened = PostgresTable(connection, table, layout)
        wanted = ["id", *OWN_COLUMNS, *(["text"] if layout.with_text else []), *layout.columns]
        check_columns(address, list(_columns(connection, table)), [*wanted, "vector"])
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return opened


def open_for_reading(address: str) -> PostgresTable:
    """Open a table to search it."""
    require("psycopg", "postgres")
    from psycopg import sql

    target = _parse(address)
    table = sql.Identifier(*target.table)
    connection = _connect(target)
    if "vector" in _columns(connection, table):
        return PostgresTable(connection, table, None)
    connection.close()
    raise FormatError(f"{public_address(address)}: no such table of vectors")


def vector_text(vector: NDArray[Any], column_type: str) -> str:
    """Return a vector as COPY and casts take it: `[1,2]` for pgvector, `{1,2}` for arrays; the shortest digits."""
    values = np.ascontiguousarray(vector, "float32")
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return "{" + text[1:-1] + "}" if column_type == ARRAY else text


def _connect(target: _Target) -> "psycopg.Connection[Any]":
    import psycopg

    return psycopg.connect(target.url, application_name="nestvec")


def _parse(address: str) -> _Target:
    """Take the parameters of ours out of an address.

    Raises:
        FormatError: No table is named, or a parameter has no such value.
    """
    parts = urlsplit(address)
    given = parse_qsl(parts.query, keep_blank_values=True)
    ours = {key: value for key, value in given if key in ("table", "vectors")}
    names = tuple(ours.get("table", "").split("."))
    if not all(NAME.fullmatch(name) for name in names) or len(names) > 2:  # noqa: PLR2004 - schema and table
        raise FormatError(
            f"{public_address(address)}: name a table, as in postgresql://user@host/database?table=documents"
        )
    kind = ours.get("vectors", "pgvector")
    if kind not in ("pgvector", "array"):
        raise FormatError(
            f"{public_address(address)}: vectors={kind} is neither 'pgvector' (the default) nor 'array'"
        )
    rest = urlencode([(key, value) for key, value in given if key not in ours])
    url = urlunsplit(("postgresql", parts.netloc, parts.path, rest, ""))
    return _Target(url, names, kind == "array")


def _make_table(
    address: str,
    connection: "psycopg.Connection[Any]",
    target: _Target,
    layout: StoreLayout,
) -> None:
    """Make the table, and the extension where it is used."""
    from psycopg import sql

    kind = ARRAY
    if not target.arrays:
        found = "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"
        if connection.execute(found).fetchone() is None:
            raise FormatError(
                f"{public_address(address)}: this server has no pgvector; install it there, or add '&vectors=array' "
                "for plain arrays"
            )
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        kind = f"{'halfvec' if layout.dtype == 'float16' else 'vector'}({layout.width})"
    id_types = {IdKind.INT: "bigint", IdKind.UUID5: "uuid"}
    columns = {name: TYPES[kind] for name, kind in OWN_COLUMNS.items()}
    if layout.with_text:
        columns["text"] = "text"
    columns |= {name: TYPES[column.value] for name, column in layout.columns.items()}
    definitions: list[sql.Composable] = [
        sql.SQL(f"id {id_types.get(layout.id_kind, 'text')} PRIMARY KEY")
    ]
    definitions += [
        sql.SQL("{} {}{}").format(
            sql.Identifier(name),
            sql.SQL(column),
            sql.SQL(" NOT NULL" if name in OWN_COLUMNS else ""),
        )
        for name, column in columns.items()
    ]
    definitions.append(sql.SQL(f"vector {kind} NOT NULL"))
    table = sql.Identifier(*target.table)
    make = sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(definitions))
    connection.execute(make)
    connection.execute(sql.SQL("CREATE INDEX ON {} (document)").format(table))
    note = json.dumps(dict(layout.metadata))
    connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(note)))


def _columns(connection: "psycopg.Connection[Any]", table: "sql.Identifier") -> dict[str, str]:
    """Return names and types of a table's columns, in order; none where there is no such table."""
    rows = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [table.as_string(connection)],
    )
    return dict(rows.fetchall())


def _comment(connection: "psycopg.Connection[Any]", table: "sql.Identifier") -> dict[str, str]:
    """Return the metadata in a table's comment; nothing where the comment is another's."""
    row = connection.execute(
        "SELECT obj_description(to_regclass(%s)::oid, 'pg_class')", [table.as_string(connection)]
    ).fetchone()
    try:
        noted = json.loads(row[0]) if row and row[0] else {}
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}


def _plain(value: Any) -> Any:  # noqa: ANN401 - a kept column's
    """Return a value that PostgreSQL can keep: it knows no NUL in texts."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value
