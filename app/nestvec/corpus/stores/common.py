"""What all stores share: their addresses, checks of what may go into one, and rows as plain values."""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from nestvec.corpus.store_writer import IdKind, Row, RowId, StoreLayout, Vectors
from nestvec.errors import ArtefactError, FormatError, NestvecError
from nestvec.system.extras import how_to_install

# The columns that every row has, beside its vector and its id.
OWN_COLUMNS: Final[Mapping[str, str]] = {
    "document": "string",
    "start": "int64",
    "end": "int64",
    "chunk": "int64",
    "chunks": "int64",
    "content_hash": "string",
}
# What a kept column may not be called: names of ours.
RESERVED: Final = frozenset({"id", "text", "vector", *OWN_COLUMNS})
# What decides whether two vectors may be compared.
COMPARED: Final = (
    "nestvec.space",
    "nestvec.dimensions",
    "nestvec.output_dtype",
    "nestvec.output",
    "nestvec.quantization",
)
BIT_DTYPES: Final = ("binary", "ubinary")
# Most characters of a library's message that are passed on.
MESSAGE_CHARACTERS: Final = 300
# Of the parameters of an address, those that are no library's.
OWN_PARAMETERS: Final = ("table=", "vectors=")
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a collection is.

    Attributes:
        name: The collection's or table's name.
        folder: The folder of a local store; None of a server.
        url: The URL of a server; "" of a local store.
    """

    name: str
    folder: Path | None
    url: str = ""


def parse_place(address: str, *, default_port: int | None = None) -> Place:
    """Read `scheme://host:port/collection`, or `scheme://` and the path of a local store's folder and a collection.

    Of a store that may be a server (`default_port`), a path begins with `/`, `./`, `../` or `~/`.

    Raises:
        FormatError: It names no collection, or one whose name holds other characters than letters, digits, `_.-`.
    """
    scheme, _, rest = address.partition("://")
    where, _, name = rest.rpartition("/")
    if not NAME.fullmatch(name):
        raise FormatError(
            f"{address}: name a collection at the end, of letters, digits, '_', '-' and '.', "
            f"as in {scheme}://./index/documents"
        )
    if default_port is None or where.startswith((".", "~")) or rest.startswith("/"):
        if not where and not rest.startswith("/"):
            raise FormatError(
                f"{address}: name a folder and a table, as in {scheme}://index/{name}"
            )
        return Place(name, Path(where or "/").expanduser())
    if not where or "/" in where or "@" in where:
        raise FormatError(
            f"{address}: expected {scheme}://host:port/collection, or a local folder as in "
            f"{scheme}://./index/{name}; keys come from the environment"
        )
    has_port = re.search(r":\d+$", where) is not None
    secure = scheme.endswith("+https")
    port = "" if has_port else ":443" if secure else f":{default_port}"
    return Place(name, None, f"http{'s' if secure else ''}://{where}{port}")


def public_address(address: str) -> str:
    """Return an address as others may see it: without a password, and with no other parameters than those of ours."""
    base, _, query = address.partition("?")
    if "://" not in address:
        return address
    ours = [part for part in query.split("&") if part.startswith(OWN_PARAMETERS)]
    base = re.sub(r"//([^/@:]*):[^/]*@", r"//\1@", base)
    return base + ("?" + "&".join(ours) if ours else "")


def require(module: str, extra: str) -> ModuleType:
    """Import a store's package.

    Raises:
        FormatError: It is not installed; the message says how to.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FormatError(
            f"this store needs the package {module.split('.', maxsplit=1)[0]}: {how_to_install(extra)}"
        ) from error


@contextmanager
def library_errors(address: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a store's library raises into an error of ours that names the store.

    Raises:
        ArtefactError: The library failed, as it does where a server is not there or a disk is full.
    """
    try:
        yield
    except NestvecError:
        raise
    except kinds as error:
        lines = str(error).strip().splitlines()
        reason = lines[0][:MESSAGE_CHARACTERS] if lines else type(error).__name__
        raise ArtefactError(f"{address}: {reason}") from error


def check_layout(
    address: str,
    layout: StoreLayout,
    *,
    dtypes: Sequence[str],
    id_kinds: Sequence[IdKind] = tuple(IdKind),
) -> None:
    """Refuse what a store cannot hold.

    Args:
        address: The store, for messages.
        layout: What is to be stored.
        dtypes: The output dtypes that it takes.
        id_kinds: The kinds of ids that it takes.

    Raises:
        FormatError: It cannot; the message says what it takes instead.
    """
    output = layout.metadata.get("nestvec.output", "dense")
    if output != "dense":
        raise FormatError(f"{address}: takes one dense vector a text, and this is {output} output")
    dtype = output_dtype(layout.metadata)
    if dtype not in dtypes:
        raise FormatError(
            f"{address}: cannot search vectors of {dtype}; --output-dtype may be {' or '.join(dtypes)}"
        )
    if layout.id_kind not in id_kinds:
        raise FormatError(
            f"{address}: takes no such ids; --id may be {' or '.join(kind.value for kind in id_kinds)}"
        )
    if taken := RESERVED.intersection(layout.columns):
        raise FormatError(
            f"{address}: a kept column is called '{min(taken)}', which is a column of nestvec's own; rename it"
        )


def check_same(address: str, stored: Mapping[str, str], layout: StoreLayout) -> None:
    """Refuse to mix vectors that cannot be compared.

    Args:
        address: The store, for messages.
        stored: The metadata found in it; empty where it was made by something else.
        layout: What is to be stored.

    Raises:
        FormatError: The store holds vectors of another space, size or dtype, or none that nestvec wrote.
    """
    if "nestvec.space" not in stored:
        raise FormatError(f"{address}: exists, and nestvec did not write it; choose another name")
    for key in COMPARED:
        there, here = stored.get(key, ""), layout.metadata.get(key, "")
        if there != here:
            what = key.removeprefix("nestvec.")
            models = stored.get("nestvec.model", ""), layout.metadata.get("nestvec.model", "")
            raise FormatError(
                f"{address}: holds vectors of {what} '{there}' (model {models[0]}), and these are of {what} '{here}' "
                f"(model {models[1]}); they cannot be compared: choose another name, or the model of then"
            )


def check_columns(address: str, stored: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse rows of other columns than a table has.

    Raises:
        FormatError: The columns differ; the message names those that do.
    """
    if differing := set(stored) ^ set(wanted):
        missing = sorted(differing.intersection(stored))
        added = sorted(differing.intersection(wanted))
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"brings {', '.join(added)}"] if added else []
        raise FormatError(
            f"{address}: has other columns; this run {' and '.join(parts)} (--with-text, --keep-columns); "
            "choose another name"
        )


def output_dtype(metadata: Mapping[str, str]) -> str:
    """Return the name of the output dtype that an output's metadata tells."""
    return metadata.get("nestvec.output_dtype", "float32")


def payload(row: Row, layout: StoreLayout) -> dict[str, Any]:
    """Return a row's columns but for its id and vector; its text where texts are kept."""
    values: dict[str, Any] = {name: getattr(row, name) for name in OWN_COLUMNS}
    if layout.with_text:
        values["text"] = row.text
    return values | {name: row.columns.get(name) for name in layout.columns}


def distinct(rows: Sequence[Row], vectors: Vectors) -> tuple[list[Row], list[Any]]:
    """Return the last row of each id, and its vector: some stores refuse an id that comes twice in a call."""
    last: dict[RowId, int] = {row.id: n for n, row in enumerate(rows)}
    kept = sorted(last.values())
    return [rows[n] for n in kept], [vectors[n] for n in kept]
