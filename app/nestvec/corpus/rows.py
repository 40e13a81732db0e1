"""Records to rows: which chunks a record has, what they are called, and by what a later run knows them again."""

import base64
import hashlib
import itertools
import json
import uuid
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nestvec.corpus.embedders import ModelDescription, TextOptions
from nestvec.corpus.reading.records import Record
from nestvec.corpus.store_writer import ColumnType, IdKind, Row, RowId
from nestvec.engine.splitting import Span, Splitter, SplitterKind
from nestvec.errors import InputError

# Of the UUIDs (version 5) of rows; made once, at random.
NAMESPACE: Final = uuid.UUID("6f0d9f8e-3f0b-4a7e-9d55-0c1a4b1f7c02")
MAX_INT_ID: Final = 2**63
DEFAULT_CHUNK_TOKENS: Final = 256
# Room beside a chunk for special tokens and a prompt.
FRAME_TOKENS: Final = 16


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut.

    Attributes:
        kind: The rule that cuts.
        tokens: Most tokens of a chunk; None for what suits the model.
        overlap_tokens: How many tokens a chunk shares with the one before.
        language: ISO code, for sentences.
        is_late: Whether a chunk's vector is pooled from states that saw its whole document.
    """

    kind: SplitterKind
    tokens: int | None = None
    overlap_tokens: int = 0
    language: str = "en"
    is_late: bool = False

    def for_model(self, model: ModelDescription) -> "Chunking":
        """Return the same with a number of tokens that the model takes.

        Raises:
            InputError: More tokens were asked for than it reads, or more overlap than half a chunk.
        """
        most = model.max_tokens if self.is_late else model.max_tokens - FRAME_TOKENS
        tokens = self.tokens
        if tokens is None:
            tokens = max(1, min(DEFAULT_CHUNK_TOKENS, most))
        if tokens > model.max_tokens and not self.is_late:
            raise InputError(
                f"chunks of {tokens} tokens are more than the model reads ({model.max_tokens})",
                param="chunk_tokens",
            )
        if self.overlap_tokens > tokens // 2:
            raise InputError(
                f"chunks may share half of their {tokens} tokens at most", param="chunk_overlap"
            )
        return Chunking(self.kind, tokens, self.overlap_tokens, self.language, self.is_late)

    @property
    def splitter(self) -> Splitter:
        """What cuts documents, but for chunks that share tokens and sentences that are too long."""
        assert self.tokens is not None  # noqa: S101 - for mypy: `for_model` has set it
        return Splitter(self.kind, self.tokens - self.overlap_tokens, 0, self.language)

    def spans(
        self, text: str, starts: Sequence[int], splitter: Splitter | None = None
    ) -> list[Span]:
        """Cut a document into chunks; the whole is one where it holds no token.

        Args:
            text: The document.
            starts: Where each of its tokens starts, in characters, rising.
            splitter: What cuts this very document, where its sentences were looked at first.
        """
        if not starts:
            return [(0, len(text))]
        splitter = splitter or self.splitter
        size = splitter.chunk_tokens
        spans = [
            part for span in splitter.spans(text, starts) for part in _parts(span, starts, size)
        ]
        return [self._with_overlap(span, starts) for span in spans]

    def _with_overlap(self, span: Span, starts: Sequence[int]) -> Span:
        """The span, begun so many tokens earlier."""
        first = bisect_left(starts, span[0])
        if not (first and self.overlap_tokens):
            return span
        return starts[max(0, first - self.overlap_tokens)], span[1]


def _parts(span: Span, starts: Sequence[int], size: int) -> list[Span]:
    """A span, cut where it is longer than a chunk may be: a sentence or a line without an end."""
    first, last = bisect_left(starts, span[0]), bisect_left(starts, span[1])
    if last - first <= size:
        return [span]
    edges = [span[0], *(starts[n] for n in range(first + size, last, size)), span[1]]
    return list(itertools.pairwise(edges))


def row_id(kind: IdKind, name: str, document: str, start: int, text: str) -> RowId:
    """Return a row's id.

    Args:
        kind: What it is made of.
        name: The row's name: of a record its id, of a chunk its document's id and its number.
        document: "" for a record that is one row, else the document's id.
        start: Where the chunk begins in it.
        text: The row's text.
    """
    if kind is IdKind.UUID5:
        return str(uuid.uuid5(NAMESPACE, name))
    if kind is IdKind.INT:
        if name.isascii() and name.isdigit() and int(name) < MAX_INT_ID:
            return int(name)
        return name_hash(name)
    if kind is IdKind.SHA256:
        parts = (document, str(start), text) if document else (text,)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return name


def name_hash(name: str) -> int:
    """Return 63 bits of the SHA-256 of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes rows of records.

    Attributes:
        id_kind: What ids are made of.
        chunking: How documents are cut; None where each record is one row.
        columns: Names and types of the kept columns.
        salt: Of all options that decide vectors or rows.
    """

    id_kind: IdKind = IdKind.NAME
    chunking: Chunking | None = None
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    salt: str = ""

    def document(self, record: Record) -> str:
        """Return the name by which a record's rows belong together."""
        if self.id_kind is IdKind.SHA256 and self.chunking is None:
            return str(
                row_id(self.id_kind, record.id, "", 0, _own(record.identity, record.context))
            )
        return record.id

    def content_hash(self, record: Record) -> str:
        """Return the hash of all that decides a record's rows."""
        columns = {} if self.id_kind is IdKind.SHA256 else dict(record.columns)
        parts: list[Any] = [self.salt, record.identity, columns]
        if record.context:
            parts.append(record.context)
        if record.members:
            parts.append([[part.text, part.context, part.weight] for part in record.members])
        content = json.dumps(parts, sort_keys=True, default=repr)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def rows(self, record: Record, spans: Sequence[Span], content_hash: str) -> list[Row]:
        """Return a row for each chunk of a record."""
        document = self.document(record)
        columns = {
            name: as_type(record.columns.get(name), kind) for name, kind in self.columns.items()
        }
        rows = []
        for number, (start, end) in enumerate(spans):
            text = record.text[start:end]
            name = record.id if self.chunking is None else f"{record.id}#{number}"
            of_document = "" if self.chunking is None else document
            own = _own(text if record.picture is None else record.identity, record.context)
            rows.append(
                Row(
                    id=row_id(self.id_kind, name, of_document, start, own),
                    document=document,
                    start=start,
                    end=end,
                    text=text,
                    chunk=number,
                    chunks=len(spans),
                    content_hash=content_hash,
                    columns=columns,
                )
            )
        return rows


def _own(text: str, context: str) -> str:
    """What a row's vector is made of, for ids of texts: the same text in another context is another."""
    return f"{text}\0{context}" if context else text


def salt_of(options: TextOptions, chunking: Chunking | None) -> str:
    """Return what of the options decides vectors besides their space, size and dtype."""
    return repr((options.prompt_name, options.truncate.value, chunking))


def as_type(value: Any, kind: ColumnType) -> Any:  # noqa: ANN401 - any column
    """Return a kept value as its column's type."""
    if value is None:
        return None
    if kind is ColumnType.JSON:
        return json.dumps(value, ensure_ascii=False, default=_plain)
    if kind is ColumnType.FLOAT:
        return float(value)
    return value


def _plain(value: Any) -> str:  # noqa: ANN401 - whatever a Parquet file holds
    """A value that JSON has no form for, as text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
