"""Where rows go: a draft of a file, standard output, or a vector store; and what of a corpus is there already."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from nestvec.corpus.files.draft import Draft, Progress
from nestvec.corpus.files.formats import open_base, open_writer
from nestvec.corpus.files.json_lines import write_lines
from nestvec.corpus.files.writer import FileLayout, Kept, Writer
from nestvec.corpus.store_writer import Row, StoredRow, StoreWriter, Vectors


class KnownDocuments:
    """What an output holds: of each document the rows of each content hash.

    Args:
        rows: All its rows.
    """

    def __init__(self, rows: Iterable[StoredRow] = ()) -> None:
        # Number of rows found and wanted; a second hash of a document, which is rare, stands apart.
        self._found: dict[str, tuple[str, int, int]] = {}
        self._others: dict[tuple[str, str], tuple[int, int]] = {}
        for row in rows:
            content_hash, found, _ = self._found.get(row.document, (row.content_hash, 0, 0))
            if content_hash == row.content_hash:
                self._found[row.document] = (content_hash, found + 1, row.chunks)
            else:
                key = (row.document, row.content_hash)
                self._others[key] = (self._others.get(key, (0, 0))[0] + 1, row.chunks)
        self._mixed = {document for document, _ in self._others}

    def is_whole(self, document: str, content_hash: str) -> bool:
        """Return whether all rows of a document's present content are there."""
        known, found, wanted = self._found.get(document, ("", 0, 1))
        if known != content_hash:
            found, wanted = self._others.get((document, content_hash), (0, 1))
        return found >= wanted

    def is_stale(self, document: str, content_hash: str) -> bool:
        """Return whether there are rows of another content of the document."""
        known = self._found.get(document)
        return document in self._mixed or (known is not None and known[0] != content_hash)

    def without(self, documents: "set[str]") -> list[str]:
        """Return the documents that are none of these."""
        return [document for document in self._found if document not in documents]


class Sink(Protocol):
    """Takes rows in order, and makes them durable.

    Attributes:
        start: The progress that an earlier run committed.
        known: What the output holds of earlier runs.
    """

    start: Progress
    known: KnownDocuments

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Write rows, those of a document together."""

    def replace(self, document: str, content_hash: str) -> None:
        """Note that a document's rows of other contents are to go once what was written is durable."""

    def commit(self, progress: Progress) -> None:
        """Make durable what was written; `progress` tells all but the sizes of files."""

    def finish(self, gone: Sequence[str]) -> None:
        """Complete the output, without the rows of documents that are gone."""

    def close(self) -> None:
        """Close the output; no effect on what was committed."""


class StdoutSink:
    """Writes rows to standard output, as JSON lines."""

    def __init__(self, layout: FileLayout) -> None:
        self._layout = layout
        self.start = Progress()
        self.known = KnownDocuments()

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Write rows and their vectors."""
        write_lines(sys.stdout.buffer, rows, vectors, self._layout)
        sys.stdout.buffer.flush()

    def replace(self, document: str, content_hash: str) -> None:
        """Do nothing: no earlier run wrote here."""

    def commit(self, progress: Progress) -> None:
        """Do nothing: what was written is gone down the pipe."""

    def finish(self, gone: Sequence[str]) -> None:
        """Do nothing: all has been written."""

    def close(self) -> None:
        """Do nothing: the stream is not ours."""


class DraftSink:
    """Writes rows to a draft of a file.

    Args:
        draft: The draft.
        layout: How rows stand in the file; its offsets are the draft's.
        base: An earlier output that is added to.
    """

    def __init__(self, draft: Draft, layout: FileLayout, base: Path | None) -> None:
        self._draft = draft
        self._base = base
        self.known = KnownDocuments()
        if base is not None:
            self.known = KnownDocuments(open_base(base, layout.store.metadata).stored())
        self._dropped: set[str] = set()
        self._writer: Writer = open_writer(draft.path, layout)
        self.start = draft.progress

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Write rows and their vectors."""
        self._writer.write(rows, vectors)

    def replace(self, document: str, content_hash: str) -> None:
        """Note that the base's rows of a document are to go."""
        self._dropped.add(document)

    def commit(self, progress: Progress) -> None:
        """Sync the files to disk, then note their sizes."""
        progress.offsets = self._writer.sync()
        self._draft.commit(progress)

    def finish(self, gone: Sequence[str]) -> None:
        """Complete the file, and put it in its place."""
        kept = None if self._base is None else Kept(self._base, self._dropped | set(gone))
        self._draft.publish(self._writer.finish(kept))

    def close(self) -> None:
        """Close the draft's files."""
        self._writer.close()


class StoreSink:
    """Writes rows to a vector store, which tells itself what it holds.

    Args:
        open_store: Opens the store.
    """

    def __init__(self, open_store: Callable[[], StoreWriter]) -> None:
        self._writer = open_store()
        self.start = Progress()
        try:
            self.known = KnownDocuments(self._writer.stored())
        except BaseException:
            self._writer.close()
            raise
        self._stale: dict[str, str] = {}

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Put rows and their vectors into the store."""
        self._writer.write(rows, vectors)

    def replace(self, document: str, content_hash: str) -> None:
        """Note that a document's rows of other contents are to go."""
        self._stale[document] = content_hash

    def commit(self, progress: Progress) -> None:
        """Make rows durable, then remove those that they stand for."""
        del progress  # the store itself tells a later run
        self._writer.commit()
        self._remove(self._stale)
        self._stale = {}

    def finish(self, gone: Sequence[str]) -> None:
        """Remove the rows of documents that are gone, and complete the store."""
        self._remove(dict.fromkeys(gone, ""))
        self._writer.finish()

    def close(self) -> None:
        """Close the store."""
        self._writer.close()

    def _remove(self, documents: Mapping[str, str]) -> None:
        if documents:
            self._writer.remove(documents)
            self._writer.commit()
