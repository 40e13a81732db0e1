"""A store whose library's errors are told as errors of ours, whichever method they come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from nestvec.corpus.store_writer import (
    Hit,
    IdKind,
    Row,
    StoredRow,
    StoreKind,
    StoreLayout,
    StoreReader,
    StoreWriter,
    Vectors,
)
from nestvec.corpus.stores.common import library_errors

ErrorKinds = Callable[[], tuple[type[Exception], ...]]


class _Store(StoreWriter, StoreReader, Protocol):
    """What every file of this folder gives: a store that is read, and written where it was opened for it."""


class GuardedStore:
    """A store, of which every failure names its address.

    Args:
        store: The store.
        address: Its address, without a password.
        errors: Returns what its library raises; asked once the library is imported.
    """

    def __init__(self, store: _Store, address: str, errors: ErrorKinds) -> None:
        self._store = store
        self._address = address
        self._errors = errors()

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was noted of the vectors."""
        with library_errors(self._address, *self._errors):
            return self._store.metadata

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""
        with library_errors(self._address, *self._errors):
            yield from self._store.stored()

    def search(self, vector: NDArray[Any], limit: int) -> list[Hit]:
        """Return the rows nearest to a vector."""
        with library_errors(self._address, *self._errors):
            return self._store.search(vector, limit)

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Put rows into the store."""
        with library_errors(self._address, *self._errors):
            self._store.write(rows, vectors)

    def commit(self) -> None:
        """Make durable what was written."""
        with library_errors(self._address, *self._errors):
            self._store.commit()

    def remove(self, documents: Mapping[str, str]) -> None:
        """Remove the old rows of documents."""
        with library_errors(self._address, *self._errors):
            self._store.remove(documents)

    def finish(self) -> None:
        """Complete the store."""
        with library_errors(self._address, *self._errors):
            self._store.finish()

    def close(self) -> None:
        """Close the store."""
        with library_errors(self._address, *self._errors):
            self._store.close()


def guarded(  # noqa: PLR0913 - a row of the registry
    name: str,
    check: Callable[[str], None],
    opener: Callable[[str, StoreLayout], _Store],
    reader: Callable[[str], _Store],
    errors: ErrorKinds,
    *,
    id_kind: IdKind = IdKind.NAME,
    shown: Callable[[str], str] = str,
) -> StoreKind:
    """Describe a kind of store, with its errors told as ours.

    Args:
        name: What people call it.
        check: Refuses an address, or a missing package.
        opener: Opens a store for writing.
        reader: Opens a store for reading.
        errors: Returns what its library raises.
        id_kind: The ids that it takes where the user names none.
        shown: Returns an address without its password.
    """

    def open_store(address: str, layout: StoreLayout) -> StoreWriter:
        with library_errors(shown(address), *errors()):
            return GuardedStore(opener(address, layout), shown(address), errors)

    def read_store(address: str) -> StoreReader:
        check(address)
        with library_errors(shown(address), *errors()):
            return GuardedStore(reader(address), shown(address), errors)

    return StoreKind(name, check, open_store, read_store, id_kind)
